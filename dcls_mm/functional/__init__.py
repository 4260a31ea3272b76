"""The maths of DCLS on plain tensors, with torch only, no state and no registry."""

from .backends import autotune, use_backend
from .convolution import compatible_backends, convolve, convolve_transposed
from .interpolation import INTERPOLATIONS, Interpolation
from .kernel import construct_kernel
from .sampling import sampled_convolution

__all__ = [
    'INTERPOLATIONS',
    'Interpolation',
    'autotune',
    'compatible_backends',
    'construct_kernel',
    'convolve',
    'convolve_transposed',
    'sampled_convolution',
    'use_backend',
]
