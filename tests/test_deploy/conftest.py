"""The demos' models are written by the tests of the engine, small ones by these."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE))
