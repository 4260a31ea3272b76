"""The definitions as plain loops: slow, obvious, called by tests only.

The loops compute in float64 on tensors of one value (in the convolutions, one per
sample), so that autograd differentiates the definitions too. At kinks they have torch's
slopes: none for relu and \\|.\\| at 0, and for bilinear at whole pixels the one towards
the next tap.
"""

import itertools
import math

import torch
from torch import Tensor

from .interpolation import INTERPOLATIONS, interpolation_name


def reference_kernel(weight, positions, sigma=None, *, kernel_size, interpolation):
    """Construct what :func:`construct_kernel` does, one element and tap at a time."""
    interpolation = interpolation_name(interpolation)
    weights, places = _values(weight), _values(positions)
    widths = dict.fromkeys(places) if sigma is None else _values(sigma)
    shape = (*weight.shape[:-1], *kernel_size)
    kernel = dict.fromkeys(_indices(shape), torch.zeros((), dtype=torch.float64))
    for element, value in weights.items():
        profiles = []
        finite = True
        for axis, size in enumerate(kernel_size):
            place, width = places[(axis, *element)], widths[(axis, *element)]
            finite &= all(v is None or v.isfinite().item() for v in (place, width))
            center = place + size // 2
            profiles.append(
                [_share(interpolation, tap, center, width) for tap in range(size)]
            )
        taps = {
            tap: math.prod(profile[i] for profile, i in zip(profiles, tap))
            for tap in _indices(kernel_size)
        }
        total = 1.0
        if INTERPOLATIONS[interpolation].normalized:
            total = sum(taps.values()) + 1e-7
        for tap, share in taps.items():
            share = share / total if finite else math.nan
            index = (*element[:-1], *tap)
            kernel[index] = kernel[index] + value * share
    return torch.stack(list(kernel.values())).reshape(shape)


def _share(interpolation, tap, center, width):
    """Return what one tap of one axis gets, before normalisation."""
    if interpolation == 'bilinear':
        lower = center.floor()
        if tap == lower:
            return 1 - (center - lower)
        return center - lower if tap == lower + 1 else 0.0
    distance = (tap - center).abs()
    if interpolation == 'triangle':
        return (1 - distance).relu()
    if interpolation == 'max':
        return (1 + width.abs() - distance).relu()
    return (-((distance / (0.27 + width.abs())) ** 2) / 2).exp()


def reference_convolution(x, kernel, bias, *, stride, padding, groups) -> Tensor:
    """Cross-correlate with zero padding, one output pixel and tap at a time."""
    size, (out, group_in, *extent) = x.shape[2:], kernel.shape
    out_size = _out_size(size, extent, stride, padding)
    pixels, taps = _pixels(x), _values(kernel)
    y = _bias_everywhere(len(x), out, out_size, bias)
    for channel, *pixel in y:
        first = channel // (out // groups) * group_in
        for source, *tap in _indices((group_in, *extent)):
            at = _input_pixel(pixel, tap, stride, padding)
            value = pixels.get((first + source, *at), 0.0)
            y[(channel, *pixel)] += value * taps[(channel, source, *tap)]
    return torch.stack(list(y.values()), -1).reshape(len(x), out, *out_size)


def reference_transposed_convolution(
    x, kernel, bias, *, stride, padding, output_padding, groups
) -> Tensor:
    """Add a copy of the kernel (in, out // groups, *extent) for every input pixel."""
    size, (channels, group_out, *extent) = x.shape[2:], kernel.shape
    out_size = [
        (n - 1) * s - 2 * p + k + more
        for n, s, p, k, more in zip(size, stride, padding, extent, output_padding)
    ]
    y = _bias_everywhere(len(x), group_out * groups, out_size, bias)
    pixels = _pixels(x)
    for (channel, target, *tap), weight in _values(kernel).items():
        target += channel // (channels // groups) * group_out
        for pixel in _indices(size):
            at = [i * s + t - p for i, s, t, p in zip(pixel, stride, tap, padding)]
            if (target, *at) in y:
                y[(target, *at)] += pixels[(channel, *pixel)] * weight
    return torch.stack(list(y.values()), -1).reshape(len(x), -1, *out_size)


def reference_sampled_convolution(
    x, weight, positions, bias, *, kernel_size, stride, padding, groups
) -> Tensor:
    """Compute :func:`sampled_convolution`, one output pixel and element at a time.

    An element reads the zero-padded input at its position, between up to ``2 ** ndim``
    pixels around it; those outside the extent do not count.
    """
    if positions.ndim == weight.ndim:
        positions = positions.unsqueeze(1)
    places = _values(positions.expand(-1, *weight.shape))
    out, group_in, _ = weight.shape
    out_size = _out_size(x.shape[2:], kernel_size, stride, padding)
    pixels, weights = _pixels(x), _values(weight)
    y = _bias_everywhere(len(x), out, out_size, bias)
    for channel, *pixel in y:
        first = channel // (out // groups) * group_in
        for source, element in _indices(weight.shape[1:]):
            index = (channel, source, element)
            around = []
            for axis, size in enumerate(kernel_size):
                center = places[(axis, *index)] + size // 2
                if not center.isfinite():
                    y[(channel, *pixel)] += math.nan
                    center = center.new_zeros(())
                lower = int(center.floor())
                taps = {lower: 1 - (center - lower), lower + 1: center - lower}
                around.append([t for t in taps.items() if 0 <= t[0] < size])
            for corner in itertools.product(*around):
                tap, shares = zip(*corner)
                at = _input_pixel(pixel, tap, stride, padding)
                value = pixels.get((first + source, *at), 0.0)
                y[(channel, *pixel)] += weights[index] * math.prod(shares) * value
    return torch.stack(list(y.values()), -1).reshape(len(x), out, *out_size)


def _indices(shape):
    return itertools.product(*map(range, shape))


def _values(tensor) -> dict:
    """Return index -> value."""
    return dict(zip(_indices(tensor.shape), tensor.double().flatten().unbind()))


def _pixels(x) -> dict:
    """Return (channel, *pixel) -> its values, one per sample."""
    return dict(zip(_indices(x.shape[1:]), x.double().flatten(1).unbind(1)))


def _bias_everywhere(batch, channels, size, bias) -> dict:
    bias = torch.zeros(channels) if bias is None else bias
    start = torch.zeros(batch, dtype=torch.float64)
    return {index: start + bias[index[0]] for index in _indices((channels, *size))}


def _out_size(size, extent, stride, padding):
    return [
        (n + 2 * p - k) // s + 1 for n, p, k, s in zip(size, padding, extent, stride)
    ]


def _input_pixel(pixel, tap, stride, padding):
    return [i * s + t - p for i, s, t, p in zip(pixel, stride, tap, padding)]
