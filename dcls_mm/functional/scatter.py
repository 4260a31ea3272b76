"""Constructing kernels by scattering, where an element touches two taps an axis.

Of a 17x17 kernel a bilinear element sets 4 taps of 289: writing these, and reading
their gradients in the backward pass, is many times faster than any dense product.
"""

import math
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from .interpolation import NORMALIZATION_EPS, Interpolation
from .profiles import product_kernel


def scatter_kernel(
    weight: Tensor, positions: Tensor, extent: tuple[int, ...], rule: Interpolation
) -> Tensor:
    """What :func:`product_kernel` makes of ``rule.two_taps``, with its gradients."""
    return _Scatter.apply(weight, positions, extent, rule)


class _Canvas(NamedTuple):
    """Where the taps of a kernel lie, with one more before and after, along each axis.

    So an element at the border, or beyond, has taps to write to. One whose first tap is
    the last of the canvas runs over its end, into some more places.

    Attributes:
        strides: places from one tap to the next, an axis.
        size: places in all.
        corners: places of an element's taps, from tap -1 of each axis' first tap; the
            last axis varies fastest.
    """

    strides: list[int]
    size: int
    corners: list[int]


def _canvas(extent: tuple[int, ...]) -> _Canvas:
    shape = [size + 2 for size in extent]
    strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    first = sum(strides)
    steps = product(*((0, stride) for stride in strides))
    corners = [first + sum(step) for step in steps]
    return _Canvas(strides, math.prod(shape) + first, corners)


class _Scatter(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight, positions, extent, rule):
        ctx.extent, ctx.rule = extent, rule
        canvas, count = _canvas(extent), weight.shape[-1]
        places = positions.expand(-1, *weight.shape).reshape(len(extent), -1, count)
        center, moved, size = _on_canvas(places, extent)
        cells = moved.floor()
        fractions = moved - cells

        elements, total = weight.reshape(-1, count), None
        if rule.normalized:
            total = _taps_inside(moved, size).prod(0) + NORMALIZATION_EPS
            elements = elements / total
        values = [elements]
        for fraction in fractions:
            values = [part for v in values for part in _split(v, fraction)]

        # A NaN may lie anywhere, if only it lies on the canvas.
        *others, first = cells.nan_to_num(0).long()
        for stride, cell in zip(canvas.strides, others):
            first = torch.add(first, cell, alpha=stride)
        corners = torch.tensor(canvas.corners, device=weight.device).unsqueeze(1)
        taps = (first.unsqueeze(1) + corners).flatten(1)
        # But a position that is NaN or infinite shows in every tap of its kernel.
        poison = (places * 0).sum((0, 2)).unsqueeze(1)
        kernels = poison.expand(-1, canvas.size).contiguous()
        kernels.scatter_add_(1, taps, torch.cat(values, 1))
        ctx.save_for_backward(
            weight, positions, elements, total, taps, fractions, moved, center == moved
        )
        return _inside(kernels, extent, canvas).reshape(*weight.shape[:-1], *extent)

    @staticmethod
    def backward(ctx, grad_kernel):
        weight, positions, *saved = ctx.saved_tensors
        if torch.is_grad_enabled():  # to be differentiated again
            kernel = product_kernel(weight, positions, None, ctx.extent, ctx.rule)
            grads = torch.autograd.grad(
                kernel,
                [t for t in (weight, positions) if t.requires_grad],
                grad_kernel,
                create_graph=True,
            )
            wanted = weight.requires_grad, positions.requires_grad
            return (
                grads[0] if wanted[0] else None,
                grads[-1] if wanted[1] else None,
                None,
                None,
            )

        elements, total, taps, fractions, moved, on_canvas = saved
        canvas = _canvas(ctx.extent)
        kernels = grad_kernel.new_zeros(len(elements), canvas.size)
        inside = _inside(kernels, ctx.extent, canvas)
        inside.copy_(grad_kernel.reshape(inside.shape))
        corners = kernels.gather(1, taps).split(weight.shape[-1], 1)
        value, slopes = _interpolate(corners, list(fractions))
        slopes = torch.stack(slopes)
        if total is not None:
            value = value / total
            slopes = slopes - value * _slopes_of_total(moved, ctx.extent)
            slopes = slopes * (fractions != 0)
        grad_places = slopes * on_canvas * elements
        grad_positions = grad_places.reshape(-1, *weight.shape)
        return (
            value.reshape(weight.shape),
            grad_positions.sum_to_size(positions.shape),
            None,
            None,
        )


def _on_canvas(places: Tensor, extent: tuple):
    """Taps from the kernel's first, (ndim, kernels, count), and the size of each axis.

    Also the taps once more, those beyond the canvas moved to its border, where they
    touch no tap of the kernel.
    """
    if len(set(extent)) == 1:
        size, before = extent[0], -1
        center = places + size // 2
    else:
        size = torch.tensor(extent).to(places).view(-1, 1, 1)
        before = torch.full_like(size, -1)
        center = places + (size / 2).floor()
    moved = center.clamp(before, size)  # type: ignore[arg-type]
    return center, moved, size


def _taps_inside(moved: Tensor, size) -> Tensor:
    """Sum of an element's taps inside the kernel, an axis each."""
    return torch.minimum(moved + 1, size - moved).clamp(max=1)


def _slopes_of_total(moved: Tensor, extent: tuple) -> Tensor:
    """Of the product of :func:`_taps_inside` over the axes, along each."""
    size = _on_canvas(moved, extent)[2]
    sums = _taps_inside(moved, size)
    others = [torch.cat((sums[:i], sums[i + 1 :])).prod(0) for i in range(len(sums))]
    slopes = (moved < 0).to(moved) - (moved > size - 1).to(moved)
    return slopes * torch.stack(others)


def _inside(kernels: Tensor, extent: tuple, canvas: _Canvas) -> Tensor:
    """A view, (kernels, *extent), of the kernels in (kernels, canvas.size)."""
    shape, strides = (len(kernels), *extent), (canvas.size, *canvas.strides)
    return kernels.as_strided(shape, strides, canvas.corners[0])


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
