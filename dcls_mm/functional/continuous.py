"""The coordinates of a continuous kernel, and the mask that gives it its size.

The extent of a kernel is the interval [-1, 1] along each axis. Its middle tap is at 0;
a causal kernel ends with its newest tap, at 1.
"""

import math
from typing import TypeVar

import torch
from torch import Tensor

from ._arguments import check_choice

Number = TypeVar('Number', float, Tensor)

# What rounding errors may subtract from a whole number of taps.
_SLACK = 1e-6


def taps_within(distance: float, extent: int, resolution: float, causal: bool) -> int:
    """Count the taps of an axis that are within ``distance`` of its anchor.

    The anchor is the middle tap, or the newest one of a causal kernel.

    Args:
        distance: in coordinates, in which ``extent`` taps reach from -1 to 1.
        extent: taps at resolution 1.
        resolution: taps per tap at resolution 1.
        causal: whether taps lie on one side of the anchor only.

    Returns:
        The number, from 1 to that of all taps in [-1, 1]; all if ``distance`` is NaN.
    """
    farthest = 2.0 if causal else 1.0
    within = max(distance, 0.0) if distance < farthest else farthest
    steps = int(within * (extent - 1) / 2 * resolution + _SLACK)
    return steps + 1 if causal else 2 * steps + 1


def tap_coordinates(
    taps: int, extent: int, resolution: float, causal: bool, like: Tensor
) -> Tensor:
    """Return the coordinates of the ``taps`` about the anchor, (taps,), ascending.

    Args:
        taps: as :func:`taps_within` counts them.
        extent, resolution, causal: see there.
        like: a tensor of the wanted device and dtype.
    """
    pitch = 2 / ((extent - 1) * resolution) if extent > 1 else 0.0
    index = torch.arange(taps, device=like.device, dtype=like.dtype)
    if causal:
        return 1 + (index - (taps - 1)) * pitch
    return (index - taps // 2) * pitch


def mask_reach(
    mean: Number, width: Number, threshold: float, causal: bool = False
) -> Number:
    """Return how far from the anchor the mask of an axis reaches ``threshold``.

    The mask is ``exp(-((x - mean) / width)^2 / 2)``, whose centre need not be the
    anchor. The distance is that on the longer side, as the same number of taps is kept
    on both.

    Source: arXiv 2110.08059, section on cropping, and its published code.
    """
    half = abs(width) * math.sqrt(-2 * math.log(threshold))
    return 1 - mean + half if causal else abs(mean) + half


def gaussian_profile(coordinates: Tensor, mean: Tensor, width: Tensor) -> Tensor:
    """Return ``exp(-((x - mean) / width)^2 / 2)``, shaped like ``coordinates`` x.

    Source: arXiv 2110.08059, equation of the mask.
    """
    return torch.exp(-(((coordinates - mean) / width) ** 2) / 2)


def alias_penalty(
    filters: Tensor,
    nyquist: float,
    mask: Tensor | None = None,
    method: str = 'per_filter',
) -> Tensor:
    """Return the square of how far a kernel's frequencies may exceed ``nyquist``.

    With n filters of frequency f_i, the mask's frequency m (0 without a mask) and
    ``nyquist`` N, the methods are:

    - 'per_filter': ``sum_i max(0, f_i + m / n - N / n)^2``, which compares each filter
      and its share of the mask with its share of N (the published default);
    - 'summed': ``max(0, sum_i f_i + m - N)^2`` (published);
    - 'per_factor': ``sum_i max(0, g_i - N / (n + 1))^2`` over the factors g of the
      kernel, which are the filters and the mask; without a mask, n replaces n + 1. This
      is not published. It keeps the mask itself from growing sharp, but also penalises
      kernels that the bound says are free of aliases.

    Args:
        filters: (n,), in periods per unit of the coordinates.
        nyquist: the highest frequency that the taps can represent.
        mask: a number; None for no mask, or to leave it out.
        method: one of ``ALIAS_METHODS``.

    Returns:
        A number.

    Raises:
        ValueError: ``filters`` is not a vector with at least one entry, or ``method``
            is unknown.

    Source: arXiv 2110.08059, section on anti-aliasing, and its published code.
    """
    if filters.ndim != 1 or not len(filters):
        raise ValueError(
            f'filters must have the shape (filters,), got {tuple(filters.shape)}'
        )
    check_choice('method', method, ALIAS_METHODS)
    return (ALIAS_METHODS[method](filters, mask, nyquist).relu() ** 2).sum()


def _excess_per_filter(filters: Tensor, mask: Tensor | None, nyquist: float) -> Tensor:
    return filters + ((0.0 if mask is None else mask) - nyquist) / len(filters)


def _excess_of_sum(filters: Tensor, mask: Tensor | None, nyquist: float) -> Tensor:
    return filters.sum() + (0.0 if mask is None else mask) - nyquist


def _excess_per_factor(filters: Tensor, mask: Tensor | None, nyquist: float) -> Tensor:
    factors = filters if mask is None else torch.cat((filters, mask.view(1)))
    return factors - nyquist / len(factors)


ALIAS_METHODS = {
    'per_filter': _excess_per_filter,
    'summed': _excess_of_sum,
    'per_factor': _excess_per_factor,
}
