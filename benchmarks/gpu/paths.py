"""Makes the checkout and the other benchmarks importable, installed or not."""

import sys
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[1:1] = [str(ROOT), str(HERE.parent)]

if find_spec('torch') is None:
    sys.exit(
        f'{sys.executable} has no torch: name a Python that has one for CUDA, such as '
        'make gpu PYTHON=/path/to/python'
    )
