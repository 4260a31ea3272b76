"""What setup_environment.py does, in parts; needs nothing but the standard library."""

import os
from pathlib import Path

PYTHON = (3, 11)

ROOT = Path(__file__).resolve().parents[2]
PINS_FILE = ROOT / 'requirements' / 'verified.txt'
VENV = ROOT / '.venv'
VENV_PYTHON = VENV / 'bin' / 'python'
CACHE = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'dcls_mm'

AGAIN = 'Run the same command again: it continues where it stopped.'


class SetupError(Exception):
    """A condition that the user has to change; its text says which and how."""
