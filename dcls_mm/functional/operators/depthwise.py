"""The depthwise convolution and the gradient of its kernel, as operators of torch.

Both are bilinear, and each is a gradient of the other: the input's gradient is a
convolution with the flipped kernel, and the gradients of ``depthwise_kernel_gradient``
are convolutions too. So they can be differentiated any number of times.

With u, v over the taps of the kernel, and x zero outside the image:

    y[n, c, i, j] = sum_uv kernel[c, 0, u, v] * x[n, c, i + u - before[0], j + v - ...]

The gradient of the kernel is summed and returned in at least float32, also for images
in float16: the sum over all pixels under a loss scale would overflow.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.library import custom_op
from torch.nn.grad import conv2d_weight
from torch.utils.flop_counter import register_flop_formula

from ..padding import pad


@custom_op(
    'dcls_mm::convolve_depthwise',
    mutates_args=(),
    schema=(
        '(Tensor x, Tensor kernel, Tensor? bias, SymInt[] before, SymInt[] size, '
        'bool flip) -> Tensor'
    ),
)
def convolve_depthwise(
    x: Tensor,
    kernel: Tensor,
    bias: Tensor | None,
    before: Sequence[int],
    size: Sequence[int],
    flip: bool,
) -> Tensor:
    """Cross-correlate each channel with its kernel; on a CPU with torch's operators.

    Args:
        x: (batch, channels, height, width).
        kernel: (channels, 1, *extent); in the dtype of ``x``, or in float32 beside a
            narrower one, to which it is then rounded.
        bias: (channels,), floating.
        before: zeros before the first row and column; negative numbers leave some out.
        size: of the output. Zeros after the image follow from it.
        flip: whether to take the taps in reverse order.

    Returns:
        (batch, channels, *size), contiguous, in the dtype of ``x``.
    """
    wide = _at_least_float32(x)
    taps = kernel.to(x.dtype).to(wide)
    padded = _padded(x.to(wide), kernel.shape[2:], before, size)
    offset = None if bias is None else bias.to(wide)
    y = F.conv2d(padded, taps.flip(2, 3) if flip else taps, offset, groups=len(kernel))
    return y.to(x.dtype).contiguous()


@custom_op(
    'dcls_mm::depthwise_kernel_gradient',
    mutates_args=(),
    schema=(
        '(Tensor x, Tensor grad_y, SymInt[] extent, SymInt[] before, bool flip) '
        '-> Tensor'
    ),
)
def depthwise_kernel_gradient(
    x: Tensor,
    grad_y: Tensor,
    extent: Sequence[int],
    before: Sequence[int],
    flip: bool,
) -> Tensor:
    """Correlate input and output gradient at the kernel's lags.

    Args:
        x, grad_y: (batch, channels, *size) of one dtype, each with its own size.
        extent: of the kernel.
        before, flip: those of the convolution.

    Returns:
        (channels, 1, *extent), in at least float32.
    """
    wide = _at_least_float32(x)
    padded = _padded(x.to(wide), extent, before, grad_y.shape[2:])
    shape = (x.shape[1], 1, *extent)
    grad_kernel = conv2d_weight(padded, shape, grad_y.to(wide), groups=x.shape[1])
    return (grad_kernel.flip(2, 3) if flip else grad_kernel).contiguous()


@convolve_depthwise.register_kernel('cuda')
def _(x, kernel, bias, before, size, flip):
    from ..triton_kernels import convolution  # needs triton

    return convolution.convolve_depthwise(x, kernel, bias, before, size, flip)


@depthwise_kernel_gradient.register_kernel('cuda')
def _(x, grad_y, extent, before, flip):
    from ..triton_kernels import kernel_gradient  # needs triton

    return kernel_gradient.depthwise_kernel_gradient(x, grad_y, extent, before, flip)


@convolve_depthwise.register_fake
def _(x, kernel, bias, before, size, flip):
    return x.new_empty(*x.shape[:2], *size)


@depthwise_kernel_gradient.register_fake
def _(x, grad_y, extent, before, flip):
    return x.new_empty(x.shape[1], 1, *extent, dtype=_at_least_float32(x))


def _keep_convolution(ctx, inputs, output) -> None:
    x, kernel, bias, before, _, flip = inputs
    ctx.save_for_backward(x, kernel)
    ctx.before, ctx.flip = before, flip
    ctx.bias_dtype = None if bias is None else bias.dtype


def _differentiate_convolution(ctx, grad_y: Tensor):
    x, kernel = ctx.saved_tensors
    wanted = ctx.needs_input_grad
    grad_x = grad_kernel = grad_bias = None
    if wanted[0]:
        grad_x = _transposed(grad_y, kernel, ctx, x.shape[2:])
    if wanted[1]:
        grad_kernel = depthwise_kernel_gradient(
            x, grad_y, kernel.shape[2:], ctx.before, ctx.flip
        ).to(kernel.dtype)
    if wanted[2]:
        grad_bias = grad_y.sum((0, 2, 3), dtype=_at_least_float32(grad_y))
        grad_bias = grad_bias.to(ctx.bias_dtype)
    return grad_x, grad_kernel, grad_bias, None, None, None


def _keep_gradient(ctx, inputs, output) -> None:
    x, grad_y, _, before, flip = inputs
    ctx.save_for_backward(x, grad_y)
    ctx.before, ctx.flip = before, flip


def _differentiate_gradient(ctx, kernel: Tensor):
    x, grad_y = ctx.saved_tensors
    grad_x = grad_grad_y = None
    if ctx.needs_input_grad[0]:
        grad_x = _transposed(grad_y, kernel, ctx, x.shape[2:])
    if ctx.needs_input_grad[1]:
        grad_grad_y = convolve_depthwise(
            x, kernel, None, ctx.before, grad_y.shape[2:], ctx.flip
        )
    return grad_x, grad_grad_y, None, None, None


convolve_depthwise.register_autograd(
    _differentiate_convolution, setup_context=_keep_convolution
)
depthwise_kernel_gradient.register_autograd(
    _differentiate_gradient, setup_context=_keep_gradient
)


@register_flop_formula(torch.ops.dcls_mm.convolve_depthwise)
def _(x_shape, kernel_shape, bias_shape, before, size, *args, **kwargs) -> int:
    return _flops(x_shape, kernel_shape[2:], size)


@register_flop_formula(torch.ops.dcls_mm.depthwise_kernel_gradient)
def _(x_shape, grad_y_shape, extent, *args, **kwargs) -> int:
    return _flops(x_shape, extent, grad_y_shape[2:])


def _flops(x_shape, extent, size) -> int:
    """Count two operations per tap and pixel, as torch does for its convolutions."""
    batch, channels = x_shape[:2]
    (rows, columns), (height, width) = extent, size
    return 2 * batch * channels * height * width * rows * columns


def _transposed(grad_y: Tensor, kernel: Tensor, ctx, size: Sequence[int]) -> Tensor:
    """Return the gradient of an input of the given size."""
    before = [taps - 1 - b for taps, b in zip(kernel.shape[2:], ctx.before)]
    return convolve_depthwise(grad_y, kernel, None, before, size, not ctx.flip)


def _padded(
    x: Tensor, extent: Sequence[int], before: Sequence[int], size: Sequence[int]
) -> Tensor:
    """Return what an output of the size needs of ``x`` and of the zeros around it."""
    (top, left), (height, width) = before, size
    bottom = height + extent[0] - 1 - top - x.shape[2]
    right = width + extent[1] - 1 - left - x.shape[3]
    return pad(x, [(top, bottom), (left, right)], 'zeros')


def _at_least_float32(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)
