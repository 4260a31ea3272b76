"""Where a continuous kernel is evaluated, and the mask that gives it its size.

The extent of a kernel is the interval [-1, 1] along each axis. Its middle tap stands at
0; a causal kernel ends at its newest tap, at 1.
"""

import math
from typing import Union

import torch
from torch import Tensor

Number = Union[float, Tensor]

# What rounding may take from a whole number of taps.
_SLACK = 1e-6


def taps_within(distance: float, extent: int, resolution: float, causal: bool) -> int:
    """How many taps of an axis are no farther than ``distance`` from its anchor.

    The anchor is the middle tap, or the newest one of a causal kernel.

    Args:
        distance: in coordinates, in which ``extent`` taps reach from -1 to 1.
        extent: taps at the resolution 1.
        resolution: taps where there was one.
        causal: whether taps lie on one side of the anchor only.

    Returns:
        1 at least, and at most all taps in [-1, 1], as for a distance that is NaN.
    """
    farthest = 2.0 if causal else 1.0
    within = max(distance, 0.0) if distance < farthest else farthest
    steps = int(within * (extent - 1) / 2 * resolution + _SLACK)
    return steps + 1 if causal else 2 * steps + 1


def tap_coordinates(
    taps: int, extent: int, resolution: float, causal: bool, like: Tensor
) -> Tensor:
    """The coordinates of the ``taps`` about the anchor, (taps,), in order.

    Args:
        taps: as :func:`taps_within` counts them.
        extent, resolution, causal: see there.
        like: a tensor of the device and dtype wanted.
    """
    pitch = 2 / ((extent - 1) * resolution) if extent > 1 else 0.0
    index = torch.arange(taps, device=like.device, dtype=like.dtype)
    if causal:
        return 1 + (index - (taps - 1)) * pitch
    return (index - taps // 2) * pitch


def mask_reach(
    mean: Number, width: Number, threshold: float, causal: bool = False
) -> Number:
    """How far from the anchor the mask of an axis is ``threshold`` or more.

    Of the mask ``exp(-((x - mean) / width)^2 / 2)``, whose centre need not be the
    anchor: what is nearer than this on the other side is kept as well, so that a kernel
    stays as long on both sides.

    Source: arXiv 2110.08059, section on cropping, and its published code.
    """
    half = abs(width) * math.sqrt(-2 * math.log(threshold))
    return 1 - mean + half if causal else abs(mean) + half


def gaussian_profile(coordinates: Tensor, mean: Tensor, width: Tensor) -> Tensor:
    """``exp(-((x - mean) / width)^2 / 2)`` along one axis, shaped like coordinates.

    Source: arXiv 2110.08059, equation of the mask.
    """
    return torch.exp(-(((coordinates - mean) / width) ** 2) / 2)


def alias_penalty(
    frequencies: Tensor, nyquist: float, per_filter: bool = False
) -> Tensor:
    """How far a kernel's frequencies may exceed what its taps can show, squared.

    ``max(0, sum(frequencies) - nyquist)^2``, or with ``per_filter`` the sum of
    ``max(0, frequency - nyquist / count)^2``, each against its equal share.

    Args:
        frequencies: (count,), of the factors of the kernel, in periods a unit.
        nyquist: the highest that the taps can show.

    Returns:
        A number.

    Source: arXiv 2110.08059, section on anti-aliasing.
    """
    if per_filter:
        return ((frequencies - nyquist / len(frequencies)).relu() ** 2).sum()
    return (frequencies.sum() - nyquist).relu() ** 2
