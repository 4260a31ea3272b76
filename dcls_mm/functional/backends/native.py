"""torch's own convolution, which supports every call: the baseline of benchmarks."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import grad as gradients

from .._torch import ConvolutionCall

CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}

# By the number of axes: the gradients of the input and of the kernel.
GRADIENTS = {
    1: (gradients.conv1d_input, gradients.conv1d_weight),
    2: (gradients.conv2d_input, gradients.conv2d_weight),
    3: (gradients.conv3d_input, gradients.conv3d_weight),
}

# Devices on which torch convolves contiguous depthwise images with kernels of its own,
# which do the same work in every dtype, and the taps of an axis beyond which it does
# by default. (Except for sequences in float16, which have cuDNN's in the forward pass.)
SAME_IN_EVERY_DTYPE = {'cuda'}
CUDNN_TAPS = 5


def unsupported(call: ConvolutionCall) -> None:
    """Return None, as torch's convolution supports every call."""


def worthwhile(call: ConvolutionCall) -> bool:
    """Return True, as this backend is the last to be tried."""
    return True


def convolve(call: ConvolutionCall) -> Tensor:
    """Return the result of torch.nn.functional.convNd."""
    if call.x.device.type in SAME_IN_EVERY_DTYPE and _keeps_float32(call):
        dtype = call.state.autocast
        return _FloatGradients.apply(
            call.x.to(dtype),
            call.kernel,
            call.bias,
            call.stride,
            call.padding,
        )
    conv = CONVOLUTIONS[call.kernel.ndim - 2]
    return conv(
        call.x, call.kernel, call.bias, call.stride, call.padding, groups=call.groups
    )


def _keeps_float32(call: ConvolutionCall) -> bool:
    """Return whether the gradient of a float32 kernel should be in float32.

    That is, under autocast, where torch uses the same kernel for it: for depthwise
    convolutions of contiguous images. cuDNN's are small, or of channels_last images.
    """
    kernel = call.kernel
    return (
        kernel.requires_grad
        and torch.is_grad_enabled()
        and kernel.dtype == torch.float32
        and call.groups == call.x.shape[1] == len(kernel)
        and max(kernel.shape[2:]) > CUDNN_TAPS
        and call.state.autocast in (torch.float16, torch.bfloat16)
        and not call.state.channels_last
        and not (call.state.transformed or call.state.recorded)
    )


class _FloatGradients(torch.autograd.Function):
    """A depthwise convolution in half precision with gradients in float32.

    torch's own rounds the gradient of the kernel to half precision. That is a sum over
    all pixels, and the loss may be scaled: in float16 it overflows first. The input's
    gradient is in half precision here too.
    """

    @staticmethod
    def forward(ctx, x, kernel, bias, stride, padding):
        ctx.save_for_backward(x, kernel)
        ctx.stride, ctx.padding = stride, padding
        with torch.autocast(x.device.type, enabled=False):
            return CONVOLUTIONS[len(stride)](
                x,
                kernel.to(x.dtype),
                None if bias is None else bias.to(x.dtype),
                stride,
                padding,
                groups=len(kernel),
            )

    @staticmethod
    def backward(ctx, grad_y):
        x, kernel = ctx.saved_tensors
        of_x, of_kernel = GRADIENTS[len(ctx.stride)]
        options = dict(stride=ctx.stride, padding=ctx.padding, groups=len(kernel))
        grad_x = grad_kernel = grad_bias = None
        with torch.autocast(x.device.type, enabled=False):
            if ctx.needs_input_grad[0]:
                grad_x = of_x(x.shape, kernel.to(x.dtype), grad_y, **options)
            in_full = grad_y.to(kernel.dtype)
            if ctx.needs_input_grad[1]:
                grad_kernel = of_kernel(
                    x.to(kernel.dtype), kernel.shape, in_full, **options
                )
            if ctx.needs_input_grad[2]:
                grad_bias = in_full.sum((0, *range(2, grad_y.ndim)))
        return grad_x, grad_kernel, grad_bias, None, None
