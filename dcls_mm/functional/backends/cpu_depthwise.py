"""Depthwise 2-d convolution on a CPU, float32, with the fastest way for each pass.

torch (oneDNN) convolves contiguous images at full speed with kernels under 15 columns;
from there on through a general path, 20 times slower, while channels_last images stay
fast. The gradient of the kernel is a correlation of two whole images, for which neither
layout has a fast path: it is done by FFT. ``benchmarks/bench_convolve.py`` compares.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .._torch import (
    autocast_dtype,
    is_channels_last,
    is_recorded,
    transforms_active,
)
from . import native
from .call import ConvolutionCall
from .fft_correlation import kernel_gradient
from .memory_format import copy_by_rows

# Columns from which torch's own convolution of contiguous images is the slow one, and
# its gradient of channels_last images slower than a convolution.
SLOW_COLUMNS = 15

# Image converted at a time, so that it stays in the cache: bytes, and channels (a cache
# line) of which it is a multiple.
CONVERTED_BYTES = 2 * 2**20
CONVERTED_CHANNELS = 16

# Taps, or bytes of the image, from which the gradient of a contiguous input is faster
# by way of channels_last.
MANY_TAPS = 400
LARGE_IMAGE = 12 * 2**20

# Taps from which the kernel's gradient is faster by FFT, and the columns up to which
# torch's own stays fast on contiguous images.
FFT_TAPS_CHANNELS_LAST = 81
FFT_TAPS_CONTIGUOUS = 25
FAST_COLUMNS = 3


def unsupported(call: ConvolutionCall) -> str | None:
    """Why this backend can't serve the call; None if it can."""
    x, kernel = call.x, call.kernel
    if x.device.type != 'cpu':
        return f'it runs on a CPU, the input is on {x.device}'
    if kernel.ndim != 4:
        return f'it is for 2 axes of space, got {kernel.ndim - 2}'
    if not call.groups == x.shape[1] == kernel.shape[0]:
        return 'it is depthwise: groups must equal the input and the output channels'
    if call.stride != (1, 1):
        return f'it needs stride 1, got {call.stride}'
    if any(p >= size for p, size in zip(call.padding, kernel.shape[2:])):
        return f'it needs padding under the kernel size, got {call.padding}'
    if x.numel() == 0:
        return 'the input is empty'
    if transforms_active():
        return "transforms of torch.func see through torch's operators only"
    dtypes = {x.dtype, kernel.dtype}
    casts = autocast_dtype('cpu') is not None and torch.float64 not in dtypes
    if not casts and dtypes != {torch.float32}:
        return f'it computes in float32, got {x.dtype} and {kernel.dtype}'
    return None


def worthwhile(call: ConvolutionCall) -> bool:
    """Whether some pass of the call is faster here than by torch's own convolution."""
    x, kernel = call.x, call.kernel
    extent = kernel.shape[2:]
    learned = kernel.requires_grad and torch.is_grad_enabled()
    if len(extent) != 2 or not (learned or extent[1] >= SLOW_COLUMNS):
        return False
    if autocast_dtype('cpu') is not None:  # in which torch's own is slower for these
        return extent[1] >= SLOW_COLUMNS
    return _forward_converts(x, extent) or (learned and _uses_fft(x, extent))


def convolve(call: ConvolutionCall) -> Tensor:
    """The convolution, in float32 also under autocast."""
    if is_recorded():  # for another place, or to count FLOPs: by a plain convolution
        return native.convolve(call)
    with torch.autocast('cpu', enabled=False):
        bias = None if call.bias is None else call.bias.float()
        return _DepthwiseConv2d.apply(
            call.x.float(), call.kernel.float(), bias, call.padding
        )


class _DepthwiseConv2d(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, kernel, bias, padding):
        ctx.save_for_backward(x, kernel)
        ctx.padding = padding
        if _forward_converts(x, tuple(kernel.shape[2:])):
            return _convolve_converted(x, kernel, bias, padding)
        return F.conv2d(x, kernel, bias, padding=padding, groups=len(kernel))

    @staticmethod
    def backward(ctx, grad_y):
        x, kernel = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        grad_x = grad_kernel = grad_bias = None
        if wanted[2]:
            grad_bias = grad_y.sum((0, 2, 3))
        if torch.is_grad_enabled() or transforms_active(grad_y):
            grad_x, grad_kernel = _native(grad_y, x, kernel, ctx.padding, wanted[:2])
            return grad_x, grad_kernel, grad_bias, None

        layout = torch.channels_last if is_channels_last(x) else torch.contiguous_format
        grad_y = grad_y.contiguous(memory_format=layout)
        extent = tuple(kernel.shape[2:])
        if wanted[0]:
            grad_x = _input_gradient(grad_y, x, kernel, ctx.padding)
        if wanted[1] and _uses_fft(x, extent):
            grad_kernel = kernel_gradient(x, grad_y, extent, ctx.padding)
        elif wanted[1]:
            grad_kernel = _native(grad_y, x, kernel, ctx.padding, (False, True))[1]
        return grad_x, grad_kernel, grad_bias, None


def _input_gradient(grad_y: Tensor, x: Tensor, kernel: Tensor, padding) -> Tensor:
    """Of torch's own, or a convolution with the flipped kernel: the faster one."""
    rows, columns = extent = tuple(kernel.shape[2:])
    channels_last = is_channels_last(grad_y)
    small = rows * columns < MANY_TAPS and x.numel() * x.element_size() < LARGE_IMAGE
    if columns < SLOW_COLUMNS or (small and not channels_last):
        return _native(grad_y, x, kernel, padding, (True, False))[0]
    flipped = kernel.flip(2, 3)
    padding = tuple(size - 1 - p for size, p in zip(extent, padding))
    if channels_last:
        return F.conv2d(grad_y, flipped, padding=padding, groups=len(kernel))
    return _convolve_converted(grad_y, flipped, None, padding)


def _forward_converts(x: Tensor, extent: tuple[int, int]) -> bool:
    return extent[1] >= SLOW_COLUMNS and not is_channels_last(x)


def _uses_fft(x: Tensor, extent: tuple[int, int]) -> bool:
    taps = extent[0] * extent[1]
    if is_channels_last(x):
        return taps >= FFT_TAPS_CHANNELS_LAST
    return taps >= FFT_TAPS_CONTIGUOUS and extent[1] > FAST_COLUMNS


def _convolve_converted(x: Tensor, kernel: Tensor, bias: Tensor | None, padding):
    """A contiguous image, by way of channels_last and back, some channels at a time."""
    out_size = [
        size + 2 * p - k + 1
        for size, p, k in zip(x.shape[2:], padding, kernel.shape[2:])
    ]
    y = x.new_empty(*x.shape[:2], *out_size)
    step = CONVERTED_CHANNELS
    step *= max(1, CONVERTED_BYTES // (x[:, :step].numel() * x.element_size()))
    biases = [None] * len(kernel) if bias is None else bias.split(step)
    for parts in zip(x.split(step, 1), kernel.split(step), biases, y.split(step, 1)):
        image, taps, offset, target = parts
        image = image.contiguous(memory_format=torch.channels_last)
        copy_by_rows(
            target, F.conv2d(image, taps, offset, padding=padding, groups=len(taps))
        )
    return y


def _native(grad_y: Tensor, x: Tensor, kernel: Tensor, padding, wanted):
    """torch's own gradients of input and kernel, None for what isn't wanted."""
    gradients = torch.ops.aten.convolution_backward(
        grad_y,
        x,
        kernel,
        None,
        stride=[1, 1],
        padding=padding,
        dilation=[1, 1],
        transposed=False,
        output_padding=[0, 0],
        groups=len(kernel),
        output_mask=[*wanted, False],
    )
    return gradients[:2]
