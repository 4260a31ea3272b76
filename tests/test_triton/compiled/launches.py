"""The launches that are compiled: those of a stage of ConvNeXt, 96 channels wide."""

import functools
from collections.abc import Callable

import torch

from dcls_mm.functional.interpolation import INTERPOLATIONS
from dcls_mm.functional.triton_kernels.construction import (
    construct,
    construct_gradient,
)
from dcls_mm.functional.triton_kernels.convolution import convolve_depthwise
from dcls_mm.functional.triton_kernels.kernel_gradient import depthwise_kernel_gradient

DTYPES = {'fp16': torch.float16, 'bf16': torch.bfloat16, 'fp32': torch.float32}
TAPS = (17, 31)
CHANNELS, SIZE = 96, (200, 320)


def convolve(dtype: torch.dtype, taps: int) -> None:
    images = torch.empty(2, CHANNELS, *SIZE, dtype=dtype)
    kernel = torch.empty(CHANNELS, 1, taps, taps, dtype=dtype)
    bias = torch.empty(CHANNELS)
    convolve_depthwise(images, kernel, bias, (taps // 2, taps // 2), SIZE, False)


def kernel_gradient(dtype: torch.dtype, taps: int) -> None:
    images = torch.empty(2, CHANNELS, *SIZE, dtype=dtype)
    before = (taps // 2, taps // 2)
    depthwise_kernel_gradient(images, images, (taps, taps), before, False)


def elements(interpolation: str, shared: bool = False):
    """Return 34 elements per kernel: weight, positions, sigma or None."""
    weight = torch.empty(CHANNELS, 1, 34)
    positions = torch.empty(2, 1 if shared else CHANNELS, 1, 34)
    has_sigma = INTERPOLATIONS[interpolation].has_sigma
    return weight, positions, positions.clone() if has_sigma else None


def constructing(interpolation: str, taps: int) -> None:
    extent, dtype = (taps, taps), torch.float16
    construct(*elements(interpolation), extent, interpolation, dtype)


def construct_backward(interpolation: str, taps: int, shared: bool = False) -> None:
    gradient = torch.empty(CHANNELS, 1, taps, taps)
    weight, positions, sigma = elements(interpolation, shared)
    wanted = (True, True, sigma is not None)
    construct_gradient(
        gradient, weight, positions, sigma, (taps, taps), interpolation, wanted
    )


def by_interpolation(launch: Callable[..., None]) -> dict[str, Callable]:
    return {
        f'{name} {taps}': functools.partial(launch, name, taps)
        for name in INTERPOLATIONS
        for taps in TAPS
    }


def by_dtype(launch: Callable[[torch.dtype, int], None]) -> dict[str, Callable]:
    return {
        f'{name} {taps}': functools.partial(launch, dtype, taps)
        for name, dtype in DTYPES.items()
        for taps in TAPS
    }


# name -> case -> a call that launches one kernel or two
LAUNCHES: dict[str, dict[str, Callable[[], None]]] = {
    'convolve': by_dtype(convolve),
    'kernel gradient': by_dtype(kernel_gradient),
    'construct': by_interpolation(constructing),
    'construct gradient': {
        **by_interpolation(construct_backward),
        'gauss 17 shared': functools.partial(construct_backward, 'gauss', 17, True),
    },
}
