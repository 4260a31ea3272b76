"""The parts of setup_environment.py; they need only the standard library."""

import os
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]


class Stack(NamedTuple):
    """A set of packages; the pins of later files add to or replace earlier ones."""

    venv: str
    pins_files: tuple
    python: tuple = (3, 11)
    mmcv: str = 'mmcv'  # the distribution that provides mmcv and is compiled
    triton_files: tuple = ()


STACKS = {
    # Triton's compiler doesn't depend on the rest: its versions are tested here alone.
    'stock': Stack('.venv', ('verified.txt',), triton_files=('triton.txt',)),
    'oldest': Stack('.venv-oldest', ('verified.txt', 'oldest.txt'), (3, 10)),
    'newest': Stack('.venv-newest', ('verified.txt', 'newest.txt'), (3, 12)),
    'onedl': Stack('.venv-onedl', ('verified.txt', 'onedl.txt'), mmcv='onedl-mmcv'),
    'timm': Stack('.venv-timm', ('verified.txt', 'timm.txt')),
}

STACK = os.environ.get('STACK') or 'stock'
if STACK not in STACKS:
    sys.exit(f'STACK must be one of {", ".join(STACKS)}, got {STACK!r}')
PINS_FILES = [ROOT / 'requirements' / name for name in STACKS[STACK].pins_files]
TRITON_FILES = [ROOT / 'requirements' / name for name in STACKS[STACK].triton_files]
MMCV = STACKS[STACK].mmcv
PYTHON = STACKS[STACK].python
VENV = ROOT / STACKS[STACK].venv
VENV_PYTHON = VENV / 'bin' / 'python'
CACHE = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'dcls_mm'

AGAIN = 'Run the same command again: it continues where it stopped.'


class SetupError(Exception):
    """A condition that the user has to change; the message says what to do."""
