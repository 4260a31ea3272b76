"""The gradient of a depthwise kernel by FFT, on a CPU."""

import torch
from torch import Tensor

from .memory_format import copy_by_rows

# Bytes of image that one FFT takes in, so that the spectra stay in the cache and the
# extra memory doesn't grow with the channels.
CHUNK_BYTES = 4 * 2**20

# Channels of a chunk are a multiple of this: a cache line of channels_last memory.
CHUNK_CHANNELS = 16


def kernel_gradient(
    x: Tensor, grad_y: Tensor, extent: tuple[int, ...], padding: tuple[int, ...]
) -> Tensor:
    """Correlation of input and output gradient at the kernel's lags, by FFT.

    Tap t needs lag ``t - padding``. On a circle of at least ``size + padding`` points
    (and ``extent``, so that lags differ) no lag in use meets a wrapped one.
    """
    batch, channels = x.shape[:2]
    points = [
        _next_smooth(max(size + p, k))
        for size, p, k in zip(x.shape[2:], padding, extent)
    ]
    lags = [(torch.arange(k) - p) % n for k, p, n in zip(extent, padding, points)]
    bytes_a_step = 4 * batch * points[0] * points[1] * CHUNK_CHANNELS
    step = min(channels, max(1, CHUNK_BYTES // bytes_a_step) * CHUNK_CHANNELS)
    images = torch.empty(batch, step, *points)
    chunks = []
    for x_part, grad_part in zip(x.split(step, 1), grad_y.split(step, 1)):
        spectrum = _spectrum(grad_part, images).conj_physical_()
        spectrum *= _spectrum(x_part, images)
        correlation = torch.fft.irfft2(spectrum.sum(0), s=points)
        chunks.append(correlation[:, lags[0][:, None], lags[1]])
    return torch.cat(chunks).unsqueeze(1)


def _spectrum(part: Tensor, images: Tensor) -> Tensor:
    """rfft2 of some channels, padded with zeros in the buffer ``images``."""
    height, width = part.shape[2:]
    images = images[:, : part.shape[1]]
    images[:, :, height:] = 0
    images[:, :, :height, width:] = 0
    copy_by_rows(images[:, :, :height, :width], part)
    return torch.fft.rfft2(images)


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
