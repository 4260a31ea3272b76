"""The demos' models are written by the tests of the engine."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / 'test_engine'))
