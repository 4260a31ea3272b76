"""Depthwise 2-d convolution in float32 on a CPU, in the fastest way for each pass.

torch (oneDNN) convolves contiguous images at full speed with kernels under 15 columns.
From there on it takes a general path that is 20 times slower, while channels_last
images stay fast. The kernel's gradient is a correlation of two whole images, for which
torch has no fast path in either layout, so it is computed by FFT.
``benchmarks/bench_convolve.py`` compares.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .._torch import ConvolutionCall, copy_by_rows, transforms_active
from . import native
from .fft_correlation import kernel_gradient

# The columns from which torch's convolution of contiguous images is slow, and its
# gradient of channels_last images slower than a convolution.
SLOW_COLUMNS = 15

# What is converted at a time, so that it stays in the cache: the bytes of image, and
# the number of channels (a cache line) of which it is a multiple.
CONVERTED_BYTES = 2 * 2**20
CONVERTED_CHANNELS = 16

# The taps, or bytes of image, from which the gradient of a contiguous input is faster
# through channels_last.
MANY_TAPS = 400
LARGE_IMAGE = 12 * 2**20

# The taps from which the kernel's gradient is faster by FFT, and the columns up to
# which torch's own is still fast on contiguous images.
FFT_TAPS_CHANNELS_LAST = 81
FFT_TAPS_CONTIGUOUS = 25
FAST_COLUMNS = 3

# Pixels times taps below which torch is still faster, under SLOW_COLUMNS columns; for
# contiguous images, and for channels_last ones.
FEW_PRODUCTS = (2 * 10**6, 10**7)

# The taps from which it may be worthwhile, by the number of axes; in 2-d, one row.
LEAST_TAPS = {1: math.inf, 2: SLOW_COLUMNS, 3: math.inf}


def unsupported(call: ConvolutionCall) -> str | None:
    """Return why this backend doesn't support the call, or None if it does."""
    x, kernel = call.x, call.kernel
    if x.device.type != 'cpu':
        return f'it runs on a CPU, the input is on {x.device}'
    if kernel.ndim != 4:
        return f'it needs 2 spatial axes, got {kernel.ndim - 2}'
    if not call.groups == x.shape[1] == kernel.shape[0]:
        return 'it is depthwise: groups must equal the input and the output channels'
    if call.stride != (1, 1):
        return f'it needs stride 1, got {call.stride}'
    rows, columns = call.padding
    if rows >= kernel.shape[2] or columns >= kernel.shape[3]:
        return f'it needs padding below the kernel size, got {call.padding}'
    if x.numel() == 0:
        return 'the input is empty'
    state = call.state
    if state.transformed:
        return "transforms of torch.func support torch's own operators only"
    dtypes = {x.dtype, kernel.dtype}
    casts = state.autocast is not None and torch.float64 not in dtypes
    if not casts and dtypes != {torch.float32}:
        return f'it computes in float32, got {x.dtype} and {kernel.dtype}'
    return None


def worthwhile(call: ConvolutionCall) -> bool:
    """Return whether some pass of the call is faster than torch's own convolution."""
    rows, columns = call.kernel.shape[2:]
    learned = call.kernel.requires_grad and torch.is_grad_enabled()
    if not learned and columns < SLOW_COLUMNS:
        return False
    state = call.state
    few = call.x.numel() * rows * columns < FEW_PRODUCTS[state.channels_last]
    if columns < SLOW_COLUMNS and (few or state.autocast is not None):
        return False
    # Under autocast torch's own is slow for so many columns in either format.
    if columns >= SLOW_COLUMNS and (state.autocast or not state.channels_last):
        return True
    return learned and _uses_fft(rows, columns, state.channels_last)


def convolve(call: ConvolutionCall) -> Tensor:
    """Return the convolution, in float32 even under autocast."""
    state = call.state
    # A record runs elsewhere, or serves to count FLOPs: both need a plain convolution.
    if state.recorded:
        return native.convolve(call)
    with state.without_autocast():
        bias = None if call.bias is None else call.bias.float()
        return _DepthwiseConv2d.apply(
            call.x.float(), call.kernel.float(), bias, call.padding, state.channels_last
        )


class _DepthwiseConv2d(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, kernel, bias, padding, channels_last):
        ctx.save_for_backward(x, kernel)
        ctx.padding, ctx.channels_last = padding, channels_last
        if kernel.shape[3] >= SLOW_COLUMNS and not channels_last:
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
            return grad_x, grad_kernel, grad_bias, None, None

        channels_last, (rows, columns) = ctx.channels_last, kernel.shape[2:]
        if wanted[0] or wanted[1]:
            layout = torch.channels_last if channels_last else torch.contiguous_format
            grad_y = grad_y.contiguous(memory_format=layout)
        if wanted[0]:
            grad_x = _input_gradient(grad_y, x, kernel, ctx.padding, channels_last)
        if wanted[1] and _uses_fft(rows, columns, channels_last):
            grad_kernel = kernel_gradient(x, grad_y, (rows, columns), ctx.padding)
        elif wanted[1]:
            grad_kernel = _native(grad_y, x, kernel, ctx.padding, (False, True))[1]
        return grad_x, grad_kernel, grad_bias, None, None


def _input_gradient(
    grad_y: Tensor, x: Tensor, kernel: Tensor, padding, channels_last: bool
) -> Tensor:
    """Return the input's gradient, by torch or with the flipped kernel if faster."""
    rows, columns = extent = tuple(kernel.shape[2:])
    small = rows * columns < MANY_TAPS and x.numel() * x.element_size() < LARGE_IMAGE
    if columns < SLOW_COLUMNS or (small and not channels_last):
        return _native(grad_y, x, kernel, padding, (True, False))[0]
    flipped = kernel.flip(2, 3)
    padding = tuple(size - 1 - p for size, p in zip(extent, padding))
    if channels_last:
        return F.conv2d(grad_y, flipped, padding=padding, groups=len(kernel))
    return _convolve_converted(grad_y, flipped, None, padding)


def _uses_fft(rows: int, columns: int, channels_last: bool) -> bool:
    if channels_last:
        return rows * columns >= FFT_TAPS_CHANNELS_LAST
    return rows * columns >= FFT_TAPS_CONTIGUOUS and columns > FAST_COLUMNS


def _convolve_converted(x: Tensor, kernel: Tensor, bias: Tensor | None, padding):
    """Convolve contiguous images through channels_last, some channels at a time."""
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
    """Return torch's gradients of input and kernel; None for what isn't wanted."""
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
