"""Puts the compiled part of dcls_mm into wheels; pyproject.toml has everything else.

A wheel that is built where a C++ compiler is holds the library and is for the platform,
whatever Python and torch: the library has an interface of plain C. Without a compiler,
or with DCLS_MM_NATIVE=0, the wheel is for every platform, and layers are slower on a
CPU. An editable install has its library in the cache instead (`make env`).
"""

import importlib.util
import os
import shutil
import sys
import tempfile
from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel

VARIABLE = 'DCLS_MM_NATIVE'
FOLDER = Path('dcls_mm', 'functional', 'native_code')


def load_building():
    """Load building.py by its path: importing dcls_mm would need torch."""
    path = Path(__file__).resolve().parent / FOLDER / 'building.py'
    spec = importlib.util.spec_from_file_location('building', path)
    building = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(building)
    return building


class Wheel(bdist_wheel):
    """Adds the library to the wheel, and tags it for this platform only then."""

    def run(self):
        self.run_command('build')
        folder = Path(self.get_finalized_command('build_py').build_lib, FOLDER)
        if add_library(folder):
            self.root_is_pure = False
            self.distribution.has_ext_modules = lambda: True
        super().run()

    def get_tag(self):
        python, abi, platform = super().get_tag()
        return (
            (python, abi, platform) if self.root_is_pure else ('py3', 'none', platform)
        )


def add_library(folder):
    """Write the library into a folder, or remove it; say why, and return whether."""
    building = load_building()
    target = folder / building.NAME
    target.unlink(missing_ok=True)
    reason = None
    if os.environ.get(VARIABLE) == '0':
        reason = f'{VARIABLE} is 0'
    else:
        try:
            with tempfile.TemporaryDirectory() as temporary:
                shutil.copy(building.build(Path(temporary, building.NAME)), target)
        except building.BuildError as error:
            reason = str(error)
    if reason:
        print(f'dcls_mm: the wheel has no compiled part: {reason}', file=sys.stderr)
    return reason is None


setup(cmdclass={'bdist_wheel': Wheel})
