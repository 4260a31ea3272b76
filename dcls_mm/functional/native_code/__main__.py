"""Builds the compiled part of dcls_mm with the C++ compiler of the system."""

import sys

from . import instructions
from .building import PACKAGED, BuildError, build, library_path

try:
    # That of a wheel is complete.
    path = PACKAGED if library_path() == PACKAGED else build()
except BuildError as error:
    sys.exit(str(error))
print(f'{path} is ready; this processor runs it with {instructions()} instructions')
