"""Depthwise 2-d convolution with large kernels on a CPU, float32.

torch runs a large depthwise kernel on contiguous input through a slow general path. On
channels_last input oneDNN has a fast one, for the forward pass and, with the kernel
flipped, for the gradient of the input. The gradient of the kernel is a correlation of
two whole images, for which neither layout has a fast path: it is done by FFT.
"""

from typing import Optional

import torch
import torch.nn.functional as F
from torch import Tensor

from .._torch import is_channels_last, torch_func_active
from .call import ConvolutionCall

# Extents from which this path is chosen: about where torch's own slows down.
WORTHWHILE_EXTENT = 11

# Bytes of image that one FFT of the kernel's gradient takes in, so that the spectra
# stay in the cache and the extra memory doesn't grow with the channels.
FFT_CHUNK_BYTES = 4 * 2**20


def unsupported(call: ConvolutionCall) -> Optional[str]:
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
    if torch.jit.is_tracing():
        return "torch.jit.trace, which also counts FLOPs, records torch's operators"
    if torch_func_active():
        return "transforms of torch.func see through torch's operators only"
    if not _autocast_on_cpu() and {x.dtype, kernel.dtype} != {torch.float32}:
        return f'it computes in float32, got {x.dtype} and {kernel.dtype}'
    return None


def worthwhile(call: ConvolutionCall) -> bool:
    """Whether the kernel is large enough for this path to be the faster one."""
    return min(call.kernel.shape[2:]) >= WORTHWHILE_EXTENT


def convolve(call: ConvolutionCall) -> Tensor:
    """The convolution, in float32 also under autocast, in the memory format of x."""
    with torch.autocast('cpu', enabled=False):
        x = call.x.float().contiguous(memory_format=torch.channels_last)
        bias = None if call.bias is None else call.bias.float()
        y = _DepthwiseConv2d.apply(x, call.kernel.float(), bias, call.padding)
    return y if is_channels_last(call.x) else y.contiguous()


class _DepthwiseConv2d(torch.autograd.Function):
    @staticmethod
    def forward(x, kernel, bias, padding):
        return F.conv2d(x, kernel, bias, padding=padding, groups=len(kernel))

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, kernel, _, ctx.padding = inputs
        ctx.save_for_backward(x, kernel)

    @staticmethod
    def backward(ctx, grad_y):
        x, kernel = ctx.saved_tensors
        grad_x = grad_kernel = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_x = _input_gradient(grad_y, kernel, ctx.padding)
        if ctx.needs_input_grad[1]:
            grad_kernel = _kernel_gradient(x, grad_y, kernel.shape[2:], ctx.padding)
        if ctx.needs_input_grad[2]:
            grad_bias = grad_y.sum((0, 2, 3))
        return grad_x, grad_kernel, grad_bias, None


def _input_gradient(grad_y: Tensor, kernel: Tensor, padding: tuple) -> Tensor:
    """The same convolution with the flipped kernel and the complementary padding."""
    padding = [size - 1 - p for size, p in zip(kernel.shape[2:], padding)]
    grad_y = grad_y.contiguous(memory_format=torch.channels_last)
    return F.conv2d(grad_y, kernel.flip(2, 3), padding=padding, groups=len(kernel))


def _kernel_gradient(x: Tensor, grad_y: Tensor, extent: tuple, padding: tuple):
    """Correlation of input and output gradient at the kernel's lags, by FFT.

    Tap t needs lag ``t - padding``. On a circle of at least ``size + padding`` points
    (and ``extent``, so that lags differ) no lag in use meets a wrapped one.
    """
    points = [
        _next_smooth(max(size + p, k))
        for size, p, k in zip(x.shape[2:], padding, extent)
    ]
    bytes_a_channel = 4 * len(x) * points[0] * points[1]
    channels = max(1, FFT_CHUNK_BYTES // bytes_a_channel)
    lags = [
        (torch.arange(k) - p) % n for k, p, n in zip(extent, padding, points)
    ]
    chunks = []
    for x_part, grad_part in zip(x.split(channels, 1), grad_y.split(channels, 1)):
        spectrum = torch.fft.rfft2(grad_part.contiguous(), s=points).conj_physical_()
        spectrum *= torch.fft.rfft2(x_part.contiguous(), s=points)
        correlation = torch.fft.irfft2(spectrum.sum(0), s=points)
        chunks.append(correlation[:, lags[0][:, None], lags[1]])
    return torch.cat(chunks).unsqueeze(1)


def _next_smooth(size: int) -> int:
    """The least number from ``size`` on without prime factors above 5."""
    while True:
        rest = size
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return size
        size += 1


def _autocast_on_cpu() -> bool:
    try:
        return torch.is_autocast_enabled('cpu')
    except TypeError:  # torch < 2.4 takes no argument
        return torch.is_autocast_cpu_enabled()
