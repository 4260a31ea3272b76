"""The maths of DCLS on plain tensors: torch only, no state, no registry."""

from .convolution import convolve
from .interpolation import INTERPOLATIONS
from .kernel import construct_kernel

__all__ = ['INTERPOLATIONS', 'construct_kernel', 'convolve']
