"""Path of the set-up, which is a tool outside the package."""

import sys
from pathlib import Path

# At the end, so that tools/test.py doesn't hide the module `test`.
sys.path.append(str(Path(__file__).resolve().parents[2] / 'tools'))
