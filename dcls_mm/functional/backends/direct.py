"""Depthwise convolution over the taps that exist, on a CPU, in compiled code.

It needs what only layers have: the elements that a kernel is constructed from, or the
taps of a kernel that is kept. Its cost grows with their number and not with the
extent, as zeros are left out. See ``csrc/`` for how, and ``functional/native_code`` for
how that is built.
"""

import math

import torch
from torch import Tensor

from .. import native_code
from .._torch import ConvolutionCall
from ..native_code.direct import DTYPES, Elements
from ..operators.direct import convolve_elements, convolve_taps
from ..sparse_kernel import SparseKernel

# The taps of the extent from which it may be worthwhile, by the number of axes.
LEAST_TAPS = {1: 5, 2: 25, 3: math.inf}

# Beyond so many taps a kernel is faster by FFT.
MOST_TAPS = {1: 150, 2: 1000}

# Without a gradient of the kernel, the others start later, by the number of axes: the
# extent from which it pays whatever the number of taps; the one from which it pays if
# at most half of them exist; and the pixels of an image below which torch, which leaves
# out taps beyond the image, is faster.
WHOLE_EXTENT = {1: 17, 2: 169}
HALF_EXTENT = {1: 17, 2: 49}
LEAST_PIXELS = {1: 0, 2: 150}


def unsupported(call: ConvolutionCall) -> str | None:
    """Return why this backend doesn't support the call, or None if it does."""
    return _mismatch(call) or _missing()


def _mismatch(call: ConvolutionCall) -> str | None:
    """Return why the call is not one for this backend, or None if it is."""
    image, kernel, state = call.image, call.source, call.state
    if not isinstance(kernel, SparseKernel):
        return (
            'it needs the elements of a depthwise layer with stride 1 and one or two '
            "axes, of interpolation 'bilinear' or 'triangle', or a kernel kept in "
            'evaluation; it got a dense kernel'
        )
    if state.device_type != 'cpu':
        return f'it runs on a CPU, the input is on {image.device}'
    if kernel.shape[1] != 1:
        return (
            'it is depthwise: groups must equal the input channels, got '
            f'{call.groups} for {image.shape[1]}'
        )
    if len(call.stride) > 2:
        return f'it needs 1 or 2 spatial axes, got {len(call.stride)}'
    if max(call.stride) > 1:
        return f'it needs stride 1, got {call.stride}'
    if state.transformed:
        return "transforms of torch.func support torch's own operators only"
    for name, tensor in (('input', image), ('kernel', kernel)):
        dtype = state.result_dtype(tensor)
        if dtype not in DTYPES:
            return f'it computes in float32 or bfloat16, got {name} in {dtype}'
    return None


def worthwhile(call: ConvolutionCall) -> bool:
    """Return whether it should be faster than all backends with a dense kernel.

    Where only the compiled part is missing for that, this says so once.
    """
    kernel, state = call.source, call.state
    if not isinstance(kernel, SparseKernel) or kernel.shape[1] != 1:
        return False
    if max(call.stride) > 1:
        return False
    if state.device_type != 'cpu' or state.recorded or not _pays(call):
        return False
    if _missing() is None:
        return True
    if state.is_plain and _mismatch(call) is None:
        native_code.tell_missing()
    return False


def _pays(call: ConvolutionCall) -> bool:
    """Return whether it is faster, as measured with AVX2 and AVX-512."""
    kernel, axes = call.source, len(call.stride)
    assert isinstance(kernel, SparseKernel)
    if kernel.requires_grad and torch.is_grad_enabled():
        return kernel.taps_each <= MOST_TAPS[axes]
    extent = math.prod(kernel.shape[2:])
    if math.prod(call.image.shape[2:]) < LEAST_PIXELS[axes]:
        return False
    if kernel.taps_each > MOST_TAPS[axes]:
        return False
    return extent >= WHOLE_EXTENT[axes] or (
        extent >= HALF_EXTENT[axes] and 2 * kernel.taps_each <= extent
    )


def convolve(call: ConvolutionCall) -> Tensor:
    """Return the convolution, in the dtype and memory format of the image."""
    assert isinstance(call.source, SparseKernel)
    image, state, sides = call.image, call.state, call.sides
    image = image.to(state.result_dtype(image))
    extent: tuple[int, ...] = call.source.shape[2:]
    line = len(extent) == 1
    if line:
        image, sides, extent = image.unsqueeze(2), [(0, 0), *sides], (1, *extent)
    before, after = zip(*sides)
    size = [
        n + b + a - k + 1 for n, b, a, k in zip(image.shape[2:], before, after, extent)
    ]
    content, geometry = call.source.content, (extent, before, size)
    if isinstance(content, Elements):
        weight, positions, normalized = content
        y = convolve_elements(
            image, call.bias, weight, positions, *geometry, normalized
        )
    else:
        y = convolve_taps(image, call.bias, *content, *geometry)
    return y.squeeze(2) if line else y


@torch.compiler.assume_constant_result
def _missing() -> str | None:
    return native_code.missing()
