"""The set-up is a tool, no part of the package: it is found here by its path."""

import sys
from pathlib import Path

# At the end, since tools/test.py is not to hide a module `test`.
sys.path.append(str(Path(__file__).resolve().parents[2] / 'tools'))
