"""The launches that are compiled: those of a stage of ConvNeXt, 96 channels wide."""

import functools
from collections.abc import Callable

import torch

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
}
