"""Checks of this machine before the set-up."""

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from . import CACHE, PYTHON, VENV, SetupError

GIB = 2**30
# A finished .venv with the CPU build of torch takes 1.5 GiB; compiling mmcv, 0.5 GiB.
NEEDS = ((VENV, 2 * GIB), (CACHE, 1 * GIB))

NAME = 'python{}.{}'.format(*PYTHON)


def problems():
    """Yield one message for each problem of this machine."""
    if not sys.platform.startswith('linux'):
        yield (
            f'The verified set is for Linux, this is {sys.platform}. Use your own '
            "environment: pip install -e '.[all]'"
        )
    if sys.version_info[:2] != PYTHON:
        wanted, found = ('{}.{}'.format(*v) for v in (PYTHON, sys.version_info))
        yield (
            f'Python {wanted} is needed for this set of packages; this is Python '
            f'{found} ({sys.executable}). Name the right one: make PYTHON={NAME}'
        )
    if not all(importlib.util.find_spec(name) for name in ('venv', 'ensurepip')):
        yield (
            f'{sys.executable} lacks the module venv or ensurepip and cannot make a '
            f'virtual environment. On Debian: apt install {NAME}-venv'
        )
    header = Path(sysconfig.get_path('include'), 'Python.h')
    if not header.is_file():
        yield (
            f'The Python headers are missing ({header}); compiling mmcv needs them. On '
            f'Debian: apt install {NAME}-dev'
        )
    compiler = os.environ.get('CXX') or 'c++'
    if not runs(compiler):
        yield (
            f'The C++ compiler {compiler!r} does not run; compiling mmcv needs it. On '
            'Debian: apt install g++. Or name another compiler in CXX.'
        )
    yield from full_disks()


def runs(compiler):
    quiet = {'stdout': subprocess.DEVNULL, 'stderr': subprocess.DEVNULL}
    try:
        command = [*shlex.split(compiler), '--version']
        return subprocess.run(command, **quiet).returncode == 0
    except OSError:
        return False


def full_disks():
    """Yield one message for each full disk, adding up `NEEDS` by file system."""
    totals = {}
    for folder, size in NEEDS:
        while not folder.exists():
            folder = folder.parent
        device = folder.stat().st_dev
        totals[device] = folder, size + totals.get(device, (folder, 0))[1]
    for folder, size in totals.values():
        free = shutil.disk_usage(str(folder)).free
        if free < size:
            yield (
                f'{size / GIB:.1f} GiB of free disk space are needed at {folder} '
                '(about 6 GiB more for a CUDA build of torch); '
                f'{free / GIB:.1f} GiB are free.'
            )


def check_machine():
    found = list(problems())
    if found:
        raise SetupError('\n'.join(found))
