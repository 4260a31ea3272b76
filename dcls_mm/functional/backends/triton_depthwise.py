"""Depthwise 2-d convolution on the tensor cores of a GPU, with kernels in Triton.

torch convolves contiguous depthwise images beyond 5x5 taps with one thread per output.
Here the convolution is a product with a Toeplitz matrix for each row of the kernel, see
``functional/triton_kernels/convolution.py``. Images stay in the autocast dtype, the
kernel and its gradient in float32.
"""

import math

import torch
from torch import Tensor

from .._torch import ConvolutionCall
from ..operators.depthwise import convolve_depthwise
from ..triton_kernels import RECORDED, missing
from . import native

# The taps from which it may be worthwhile, by the number of axes.
LEAST_TAPS = {1: math.inf, 2: 121, 3: math.inf}

# An axis has at least so many taps, and the input so many pixels in all channels.
LEAST_EXTENT = 9
LEAST_PIXELS = 200_000

LARGEST_EXTENT = 63

# Tensor cores have multiplied bfloat16 and TF32 since Ampere.
LEAST_CAPABILITY = (8, 0)

DTYPES = {torch.float16, torch.bfloat16, torch.float32}


def unsupported(call: ConvolutionCall) -> str | None:
    """Return why this backend doesn't support the call, or None if it does."""
    image, kernel, state = call.image, call.kernel, call.state
    if state.device_type != 'cuda' or torch.version.hip is not None:
        return f'it runs on NVIDIA GPUs, the input is on {_device(image)}'
    if missing() is not None:
        return missing()
    capability = _capability(image.device)
    if capability < LEAST_CAPABILITY:
        return (
            f'it needs a GPU of compute capability {_dotted(LEAST_CAPABILITY)} or '
            f'newer, got {_dotted(capability)}'
        )
    if kernel.ndim != 4:
        return f'it needs 2 spatial axes, got {kernel.ndim - 2}'
    if not call.groups == image.shape[1] == kernel.shape[0]:
        return 'it is depthwise: groups must equal the input and the output channels'
    if call.stride != (1, 1):
        return f'it needs stride 1, got {call.stride}'
    extent = tuple(kernel.shape[2:])
    if max(extent) > LARGEST_EXTENT:
        return f'it needs at most {LARGEST_EXTENT} taps per axis, got {extent}'
    if image.numel() == 0:
        return 'the input is empty'
    if state.transformed:
        return "transforms of torch.func support torch's own operators only"
    dtypes = {state.result_dtype(image), state.result_dtype(kernel)}
    if not dtypes <= DTYPES:
        return (
            f'it computes in float16, bfloat16 or float32, got {image.dtype} and '
            f'{kernel.dtype}'
        )
    return None


def worthwhile(call: ConvolutionCall) -> bool:
    """Return whether it should be faster than torch's own convolution.

    Nothing has been measured on a GPU, so it never is for now.
    """
    if not RECORDED or call.state.device_type != 'cuda':
        return False
    image, extent = call.image, call.kernel.shape[2:]
    return (
        min(extent) >= LEAST_EXTENT
        and image.numel() >= LEAST_PIXELS
        and image.shape[-1] % 2 == 0
    )


def convolve(call: ConvolutionCall) -> Tensor:
    """Return the convolution, contiguous; under autocast in its dtype."""
    state, image = call.state, call.image
    # A record runs elsewhere, or serves to count FLOPs: both need a plain convolution.
    if state.recorded:
        return native.convolve(call)
    (top, bottom), (left, right) = call.sides
    rows, columns = call.kernel.shape[2:]
    height, width = image.shape[2:]
    size = height + top + bottom - rows + 1, width + left + right - columns + 1
    return convolve_depthwise(
        image.to(state.result_dtype(image)),
        call.kernel,
        call.bias,
        (top, left),
        size,
        flip=False,
    )


@torch.compiler.assume_constant_result
def _capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)


def _device(image: Tensor) -> str:
    return f'{image.device}' if torch.version.hip is None else 'an AMD GPU'


def _dotted(capability: tuple[int, int]) -> str:
    return '.'.join(map(str, capability))
