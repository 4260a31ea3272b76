"""The definitions as plain loops in float64: slow, obvious, called by tests only."""

import itertools
import math

import torch
from torch import Tensor

from .interpolation import interpolation_name


def reference_kernel(weight, positions, sigma=None, *, kernel_size, interpolation):
    """What :func:`construct_kernel` means, one element and one tap at a time."""
    interpolation = interpolation_name(interpolation)
    kernel = torch.zeros(*weight.shape[:2], *kernel_size, dtype=torch.float64)
    for element in itertools.product(*map(range, weight.shape)):
        taps = {}
        for tap in itertools.product(*map(range, kernel_size)):
            taps[tap] = 1.0
            for axis, size in enumerate(kernel_size):
                where = (axis, *element)
                center = float(positions[where]) + size // 2
                width = None if sigma is None else abs(float(sigma[where]))
                taps[tap] *= _profile(interpolation, tap[axis], center, width)
        total = 1.0 if interpolation == 'bilinear' else sum(taps.values()) + 1e-7
        for tap, share in taps.items():
            kernel[element[:2] + tap] += float(weight[element]) * share / total
    return kernel


def _profile(interpolation, tap, center, width):
    if interpolation == 'bilinear':
        fraction = center - math.floor(center)
        return {0: 1 - fraction, 1: fraction}.get(tap - math.floor(center), 0.0)
    if interpolation == 'triangle':
        return max(0.0, 1 - abs(tap - center))
    if interpolation == 'max':
        return max(0.0, 1 + width - abs(tap - center))
    return math.exp(-(((tap - center) / (0.27 + width)) ** 2) / 2)


def reference_convolution(x, kernel, bias, *, stride, padding, groups) -> Tensor:
    """Cross-correlation with zero padding, one output value at a time."""
    batch, _, *size = x.shape
    out, group_in, *extent = kernel.shape
    out_size = [
        (n + 2 * p - k) // s + 1 for n, p, k, s in zip(size, padding, extent, stride)
    ]
    y = torch.zeros(batch, out, *out_size, dtype=torch.float64)
    for sample, channel in itertools.product(range(batch), range(out)):
        first = channel // (out // groups) * group_in
        for place in itertools.product(*map(range, out_size)):
            total = 0.0 if bias is None else float(bias[channel])
            for source in range(group_in):
                for tap in itertools.product(*map(range, extent)):
                    at = [
                        i * s + t - p for i, s, t, p in zip(place, stride, tap, padding)
                    ]
                    if all(0 <= a < n for a, n in zip(at, size)):
                        value = x[(sample, first + source, *at)]
                        total += float(value) * float(kernel[(channel, source, *tap)])
            y[(sample, channel, *place)] = total
    return y
