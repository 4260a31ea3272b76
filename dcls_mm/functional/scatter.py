"""Constructing kernels by scattering, where an element touches two taps an axis.

Of a 17x17 kernel a bilinear element sets 4 taps of 289: writing these, and reading
their gradients in the backward pass, is many times faster than any dense product.
"""

import math
from functools import lru_cache
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from .interpolation import NORMALIZATION_EPS


def scatter_kernel(
    weight: Tensor, positions: Tensor, extent: tuple[int, ...], normalized: bool
) -> Tensor:
    """The bilinear, or if ``normalized`` the triangle, kernel.

    Args:
        weight: (*kernels, count).
        positions: (ndim, *kernels, count) or 1 in an axis that shares them; of one
            dtype with ``weight``.
        extent: (ndim,).
        normalized: triangle: divide by the sum of the taps inside the extent, and take
            no slope where a position is on a tap.

    Returns:
        (*kernels, *extent), differentiable any number of times.
    """
    positions = positions.expand(-1, *weight.shape)
    count = weight.shape[-1]
    kernel = _Scatter.apply(
        weight.reshape(-1, count),
        positions.reshape(len(positions), -1, count),
        extent,
        normalized,
    )
    return kernel.view(*weight.shape[:-1], *extent)


class _Canvas(NamedTuple):
    """Where the taps of a kernel lie, with one more before and after, along each axis.

    So an element at the border, or beyond, has taps to write to. One whose first tap is
    the last of the canvas runs over its end, into ``size - prod(shape)`` more places.

    Attributes:
        shape: taps an axis.
        strides: places from one tap to the next, an axis.
        size: places in all.
        corners: places of an element's taps, from tap -1 of each axis' first tap; the
            last axis varies fastest.
    """

    shape: list[int]
    strides: list[int]
    size: int
    corners: list[int]


@lru_cache(maxsize=64)
def _canvas(extent: tuple[int, ...]) -> _Canvas:
    shape = [size + 2 for size in extent]
    strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    first = sum(strides)
    steps = product(*((0, stride) for stride in strides))
    corners = [first + sum(step) for step in steps]
    return _Canvas(shape, strides, math.prod(shape) + first, corners)


class _Scatter(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight, positions, extent, normalized):
        canvas = _canvas(extent)
        cells, fractions, _ = _cells(positions, extent)
        index = cells[-1]
        for cell, stride in zip(cells[:-1], canvas.strides):
            index = torch.add(index, cell, alpha=stride)
        corners = torch.tensor(canvas.corners, device=weight.device)
        # A NaN may lie anywhere, if only it lies on the canvas.
        index = index.nan_to_num(0).long().unsqueeze(1) + corners.unsqueeze(1)
        taps = index.flatten(1)
        ctx.save_for_backward(weight, positions, taps)
        ctx.extent, ctx.normalized = extent, normalized

        values = [_normalized(weight, positions, extent)[0] if normalized else weight]
        for fraction in fractions:
            values = [part for v in values for part in _split(v, fraction)]
        # A position that is NaN or infinite shows in every tap of its kernel.
        poison = (positions * 0).sum((0, 2)).unsqueeze(1)
        places = poison.repeat(1, canvas.size)
        places.scatter_add_(1, taps, torch.cat(values, 1))
        return _inside(places, extent).contiguous()

    @staticmethod
    def backward(ctx, grad_kernel):
        weight, positions, taps = ctx.saved_tensors
        _, fractions, on_canvas = _cells(positions, ctx.extent)
        places = grad_kernel.new_zeros(len(weight), _canvas(ctx.extent).size)
        _inside(places, ctx.extent).copy_(grad_kernel)
        corners = places.gather(1, taps).split(weight.shape[1], 1)
        value, slopes = _interpolate(corners, fractions)
        slopes = torch.stack(slopes)
        if ctx.normalized:
            weight, total, total_slopes = _normalized(weight, positions, ctx.extent)
            value = value / total
            slopes = (slopes - value * total_slopes) * (torch.stack(fractions) != 0)
        return value, slopes * torch.stack(on_canvas) * weight, None, None


def _cells(positions: Tensor, extent: tuple) -> tuple[list, list, list]:
    """First tap, fraction, and whether the position is on the canvas, an axis each.

    Beyond the canvas it is moved to its border, where it touches no tap of the extent.
    """
    cells, fractions, on_canvas = [], [], []
    for position, size in zip(positions, extent):
        center = position + size // 2
        moved = center.clamp(-1, size)
        cells.append(moved.floor())
        fractions.append(moved - cells[-1])
        on_canvas.append(center == moved)
    return cells, fractions, on_canvas


def _inside(places: Tensor, extent: tuple) -> Tensor:
    """A view, (kernels, *extent), of the kernels in (kernels, size of the canvas)."""
    canvas = _canvas(extent)
    shape, strides = (len(places), *extent), (canvas.size, *canvas.strides)
    return places.as_strided(shape, strides, canvas.corners[0])


def _split(value: Tensor, fraction: Tensor) -> tuple[Tensor, Tensor]:
    upper = value * fraction
    return value - upper, upper


def _interpolate(corners, fractions: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """The multilinear value between corners, and its slope along each axis."""
    if not fractions:
        return corners[0], []
    fraction, *rest = fractions
    half = len(corners) // 2
    lower, lower_slopes = _interpolate(corners[:half], rest)
    upper, upper_slopes = _interpolate(corners[half:], rest)
    slope = upper - lower
    slopes = [
        torch.addcmul(a, b - a, fraction) for a, b in zip(lower_slopes, upper_slopes)
    ]
    return torch.addcmul(lower, slope, fraction), [slope, *slopes]


def _normalized(
    weight: Tensor, positions: Tensor, extent: tuple
) -> tuple[Tensor, Tensor, Tensor]:
    """weight by the sum of its taps inside; that sum, and its slope along each axis."""
    sums, slopes = [], []
    for position, size in zip(positions, extent):
        center = position + size // 2
        before, after = (-center).relu(), (center - (size - 1)).relu()
        sums.append((1 - before - after).relu())
        slopes.append(before.sign() - after.sign())
    for axis in range(len(sums)):
        for other in sums[:axis] + sums[axis + 1 :]:
            slopes[axis] = slopes[axis] * other
    total = math.prod(sums) + NORMALIZATION_EPS
    return weight / total, total, torch.stack(slopes)
