"""Convolution by FFT for kernels as long as the input, on any device, in 1 to 3 axes.

Its time doesn't depend on the kernel's size, and its memory doesn't grow with taps
times pixels. ``benchmarks/bench_convolve.py`` compares.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .._torch import ConvolutionCall
from . import native
from .fft_correlation import circle_points

# The taps from which it may be worthwhile, by the number of axes.
LEAST_TAPS = {1: 32, 2: 512, 3: 125}

# The ratio of direct operations to those by FFT from which FFT is faster on a CPU, by
# the number of axes: without the kernel's gradient, and with it.
DEPTHWISE_RATIOS = {1: (1, 1), 2: (12, 12), 3: (20, 2)}
DENSE_RATIOS = {1: (16, 16), 2: (45, 45), 3: (150, 60)}

# Without the kernel's gradient, of 2-d depthwise convolutions of channels_last images,
# which torch's own does at full speed: between those of 31x31 and 55x55 kernels.
CHANNELS_LAST_RATIO = 16

# The same on other devices, where nothing was measured, from their limits: FFT moves
# about 0.8 bytes of memory per operation, so at its speed. At their peak, GPUs do 8 to
# 65 times as many direct operations in that time, and 120 to 250 times as many with
# tensor cores, which only dense convolutions use.
DEVICE_DEPTHWISE_RATIO = 100
DEVICE_DENSE_RATIO = 500


def unsupported(call: ConvolutionCall) -> str | None:
    """Return why this backend doesn't support the call, or None if it does."""
    if call.x.numel() == 0:
        return 'the input is empty'
    dtypes = {call.x.dtype, call.kernel.dtype}
    if call.state.autocast is None and dtypes not in (
        {torch.float32},
        {torch.float64},
    ):
        return (
            f'it computes in float32 or float64, got {call.x.dtype} and '
            f'{call.kernel.dtype}'
        )
    return None


def worthwhile(call: ConvolutionCall) -> bool:
    """Return whether FFT should be faster, judging by a count of operations."""
    if call.state.recorded or call.x.numel() == 0:
        return False
    kernel, axes = call.kernel, len(call.stride)
    depthwise = call.groups == call.x.shape[1] == len(kernel)
    on_device = call.state.device_type != 'cpu'
    device_ratio = DEVICE_DEPTHWISE_RATIO if depthwise else DEVICE_DENSE_RATIO
    if on_device and _most_gain(call) <= device_ratio:  # as nearly always
        return False
    direct, by_fft = _operations(call)
    if on_device:
        return direct > device_ratio * by_fft
    ratios = (DEPTHWISE_RATIOS if depthwise else DENSE_RATIOS)[axes]
    learned = kernel.requires_grad and torch.is_grad_enabled()
    if depthwise and axes == 2 and call.state.channels_last and not learned:
        return direct > CHANNELS_LAST_RATIO * by_fft
    return direct > ratios[learned] * by_fft


def convolve(call: ConvolutionCall) -> Tensor:
    """Return the convolution, in at least float32."""
    # A record runs elsewhere, or serves to count FLOPs: both need a plain convolution.
    if call.state.recorded:
        return native.convolve(call)
    x, kernel = call.x, call.kernel
    dtype = torch.promote_types(
        torch.promote_types(x.dtype, kernel.dtype), torch.float32
    )
    with call.state.without_autocast():
        y = _correlate(x.to(dtype), kernel.to(dtype), call)
        if call.bias is not None:
            y = y + call.bias.to(dtype).view(-1, *[1] * len(call.stride))
    return y


def _correlate(x: Tensor, kernel: Tensor, call: ConvolutionCall) -> Tensor:
    """Correlate on a circle large enough that no wrapped pixel meets a tap in use."""
    extent, axes = kernel.shape[2:], tuple(range(-len(call.stride), 0))
    points = _points(call)
    before_and_after = [
        side
        for p, size, n in reversed(list(zip(call.padding, x.shape[2:], points)))
        for side in (p, n - p - size)
    ]
    of_x = torch.fft.rfftn(F.pad(x, before_and_after), dim=axes)
    # Not by `s=points`: MKL rejects expanded tensors, of which padding makes a copy.
    after = [side for n, k in zip(points[::-1], extent[::-1]) for side in (0, n - k)]
    of_kernel = torch.fft.rfftn(F.pad(kernel, after), dim=axes).conj()
    # (batch, group, 1, in, ...) * (group, out, in, ...), summed over in.
    of_x = of_x.unflatten(1, (call.groups, 1, -1))
    of_kernel = of_kernel.unflatten(0, (call.groups, -1))
    if kernel.shape[1] == 1:
        product = of_x.squeeze(3) * of_kernel.squeeze(2)
    else:
        product = torch.einsum('bgui...,goi...->bgo...', of_x, of_kernel)
    y = torch.fft.irfftn(product.flatten(1, 2), s=points, dim=axes)
    for axis, (n, p, k, step) in enumerate(
        zip(x.shape[2:], call.padding, extent, call.stride), 2
    ):
        y = y[(slice(None),) * axis + (slice(0, n + 2 * p - k + 1, step),)]
    return y


def _points(call: ConvolutionCall) -> list[int]:
    return circle_points(call.x.shape[2:], call.kernel.shape[2:], call.padding)


def _most_gain(call: ConvolutionCall) -> float:
    """Bound the ratio of :func:`_operations`, by one transform of the output alone."""
    _, group_in, *extent = call.kernel.shape
    taps = math.prod(extent)
    return 2 * group_in * taps / (2.5 * math.log2(max(taps, 2)))


def _operations(call: ConvolutionCall) -> tuple[float, float]:
    """Count the operations of a direct convolution, and of one by FFT."""
    batch, channels = call.x.shape[:2]
    out, group_in = call.kernel.shape[:2]
    extent = call.kernel.shape[2:]
    out_pixels = math.prod(
        (n + 2 * p - k) // s + 1
        for n, p, k, s in zip(call.x.shape[2:], call.padding, extent, call.stride)
    )
    direct = 2 * batch * out * group_in * out_pixels * math.prod(extent)
    points = math.prod(_points(call))
    images = batch * channels + out * group_in + batch * out
    transforms = 2.5 * images * points * math.log2(max(points, 2))
    return direct, transforms + 4 * batch * out * group_in * points
