"""The gradient of a depthwise kernel, by FFT on a CPU."""

import math

import torch
from torch import Tensor

from .._torch import copy_by_rows

# Bytes of image per FFT, so that the spectra stay in the cache and the extra memory
# doesn't grow with the channels.
CHUNK_BYTES = 8 * 2**20

# The channels of a chunk are a multiple of two cache lines of channels_last memory.
CHUNK_CHANNELS = 32


def kernel_gradient(
    x: Tensor, grad_y: Tensor, extent: tuple[int, ...], padding: tuple[int, ...]
) -> Tensor:
    """Correlate input and output gradient at the kernel's lags, by FFT.

    Tap t needs lag ``t - padding``. On a circle of :func:`circle_points` no lag in use
    meets a wrapped one.

    Args:
        x, grad_y: (batch, channels, height, width), float32, in any memory format.
        extent, padding: those of the depthwise convolution, one int per axis.

    Returns:
        (channels, 1, *extent).
    """
    batch, channels = x.shape[:2]
    points = circle_points(x.shape[2:], extent, padding)
    rows, columns = _inverse_transform(points, extent, padding)
    bytes_a_step = 4 * batch * math.prod(points) * CHUNK_CHANNELS
    step = min(channels, max(1, CHUNK_BYTES // bytes_a_step) * CHUNK_CHANNELS)
    images = x.new_empty(batch, step, *points)
    chunks = []
    for x_part, grad_part in zip(x.split(step, 1), grad_y.split(step, 1)):
        spectrum = _spectrum(grad_part, images).conj_physical_()
        spectrum *= _spectrum(x_part, images)
        spectrum = spectrum[0] if batch == 1 else spectrum.sum(0)
        # Only the lags in use are transformed back, by real matrix products.
        by_columns = torch.view_as_real(spectrum).flatten(-2) @ columns
        chunks.append(rows @ by_columns.unflatten(-1, (2, -1)).flatten(-3, -2))
    return torch.cat(chunks).unsqueeze(1)


def _inverse_transform(
    points: list[int], extent: tuple[int, ...], padding: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """Return the inverse of rfft2 at the kernel's lags, as one matrix per axis.

    Returns:
        (rows of the kernel, 2 * points of the first axis), which subtracts imaginary
        parts from real ones; and (2 * frequencies of the second axis, 2 * columns of
        the kernel), from interleaved real and imaginary parts to all real parts
        followed by all imaginary ones.
    """
    angles = []
    for axis, (n, k, p) in enumerate(zip(points, extent, padding)):
        frequencies = torch.arange(n if axis == 0 else n // 2 + 1, dtype=torch.float64)
        lags = torch.arange(k, dtype=torch.float64) - p
        angles.append(2 * math.pi / n * torch.outer(lags, frequencies))
    over_rows, over_columns = angles
    rows = torch.stack((over_rows.cos(), -over_rows.sin()), -1).flatten(1)
    # Each frequency represents its negative too, except 0 and the highest of an even n.
    weight = torch.full_like(over_columns[0], 2 / math.prod(points))
    weight[0] /= 2
    if points[1] % 2 == 0:
        weight[-1] /= 2
    cos, sin = over_columns.cos() * weight, over_columns.sin() * weight
    of_real, of_imaginary = torch.cat((cos, sin)), torch.cat((-sin, cos))
    columns = torch.stack((of_real, of_imaginary), -1).flatten(1).T
    return rows.float(), columns.float()


def _spectrum(part: Tensor, images: Tensor) -> Tensor:
    """Return rfft2 of some channels, padded with zeros in the buffer ``images``."""
    height, width = part.shape[2:]
    images = images[:, : part.shape[1]]
    images[:, :, height:] = 0
    images[:, :, :height, width:] = 0
    copy_by_rows(images[:, :, :height, :width], part)
    return torch.fft.rfft2(images)


def circle_points(
    size: tuple[int, ...], extent: tuple[int, ...], padding: tuple[int, ...]
) -> list[int]:
    """Return points per axis on which a convolution may wrap around, for fast FFTs.

    They are at least ``size + padding``, so that no tap or lag in use meets what is
    wrapped; ``extent``, so that taps are distinct; and the output's ``size + 2 *
    padding - extent + 1``, which is the largest if padding reaches the extent.
    """
    return [
        next_smooth(max(n + p, k, n + 2 * p - k + 1))
        for n, k, p in zip(size, extent, padding)
    ]


def next_smooth(size: int) -> int:
    """Return the least number from ``size`` on without prime factors above 7."""
    while True:
        rest = size
        for prime in (2, 3, 5, 7):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return size
        size += 1
