"""The compiled part of dcls_mm, built anew where csrc/ or the compiler has changed."""

import importlib.util
import time

from . import ROOT
from .running import clock

BUILDING = ROOT / 'dcls_mm' / 'functional' / 'native_code' / 'building.py'


def load_building():
    """Load building.py by its path: it needs no torch, and the package does."""
    spec = importlib.util.spec_from_file_location('building', BUILDING)
    building = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(building)
    return building


def build():
    """Build it unless that is done; go on without it if it can't be built."""
    building = load_building()
    try:
        if building.is_built(building.library_path()):
            return
        print('compiling csrc/, the direct convolution', flush=True)
        start = time.monotonic()
        building.build()
    except building.BuildError as error:
        print(
            f'dcls_mm is used without its compiled part, and slower on a CPU: {error}',
            flush=True,
        )
    else:
        print(f'      done in {clock(time.monotonic() - start)}', flush=True)
