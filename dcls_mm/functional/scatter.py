"""Kernels of checked elements, by scattering or by products.

An element that touches two taps per axis sets only 4 of the 289 taps of a 17x17 kernel.
Writing these, and reading their gradients in the backward pass, is many times faster
than any dense product.
"""

from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor

from . import triton_kernels
from ._arguments import check_elements
from ._torch import ask, column
from .backends.forcing import forced_name
from .interpolation import INTERPOLATIONS, NORMALIZATION_EPS
from .operators.construction import TRITON_DEVICES, construct
from .profiles import product_kernel


def construct_checked(
    weight: Tensor,
    positions: Tensor,
    sigma: Tensor | None,
    extent: tuple[int, ...],
    interpolation: str,
    backend: str | None = None,
) -> Tensor:
    """Run :func:`.construct_kernel` with arguments of which only shapes need checks.

    A ``backend`` is the one that is named for the convolution, or None.
    """
    if positions.shape != (len(extent), *weight.shape):  # shared, or wrong
        check_elements(weight, positions)
    rule = INTERPOLATIONS[interpolation]
    state = ask(weight)
    dtype = reduce(torch.promote_types, (weight.dtype, positions.dtype, torch.float32))
    # Transforms support only torch's own operators, and so does a recorded graph.
    plain = not (state.transformed or state.recorded)
    with state.without_autocast():
        on_gpu = plain and state.device_type in TRITON_DEVICES
        if on_gpu and _by_triton(weight, dtype, backend):
            return construct(
                weight, positions, sigma, extent, interpolation, weight.dtype
            )
        scaled, placed = weight.to(dtype), positions.to(dtype)
        # Elsewhere scatter_add_ adds in any order, and the kernel would differ by run.
        if plain and rule.two_taps and state.device_type == 'cpu':
            kernel = _Scatter.apply(scaled, placed, extent, rule)
        else:
            width = None if sigma is None else sigma.to(dtype)
            kernel = product_kernel(scaled, placed, width, extent, rule)
        return kernel.to(weight.dtype)


def _by_triton(weight: Tensor, dtype: torch.dtype, backend: str | None) -> bool:
    """Return whether Triton constructs a kernel on CUDA, computing in ``dtype``.

    If it can't, though it is named, torch does: the convolution says what is missing.
    """
    if backend is None:
        backend = forced_name()
    named = backend == 'triton' or (backend is None and triton_kernels.RECORDED)
    return (
        named
        and dtype == torch.float32
        and weight.numel() > 0
        and torch.version.hip is None
        and triton_kernels.missing() is None
    )


class _Canvas(NamedTuple):
    """The memory layout of a kernel with one more tap before and after, on each axis.

    An element at the border or beyond thus has taps to write to. If its first tap is
    the last of the canvas, the second is past the end, so there is some spare memory.

    Attributes:
        strides: numbers from one tap to the next, per axis.
        size: numbers in all.
        first: index of the kernel's first tap.
    """

    strides: list[int]
    size: int
    first: int


def _canvas(extent: tuple[int, ...]) -> _Canvas:
    strides: list[int] = []
    size = 1
    for taps in reversed(extent):
        strides.insert(0, size)
        size *= taps + 2
    first = sum(strides)
    return _Canvas(strides, size + first, first)


class _Scatter(torch.autograd.Function):
    """:func:`product_kernel` for ``rule.two_taps``, with its gradients."""

    @staticmethod
    def forward(ctx, weight, positions, extent, rule):
        canvas, count = _canvas(extent), weight.shape[-1]
        ctx.extent, ctx.rule, ctx.canvas = extent, rule, canvas
        places = positions.expand(-1, *weight.shape).reshape(len(extent), -1, count)
        center, moved, size = _on_canvas(places, extent)
        cells = moved.floor()
        fractions = moved - cells

        elements, total = weight.reshape(-1, count), None
        if rule.normalized:
            total = _taps_inside(moved, size).prod(0) + NORMALIZATION_EPS
            elements = elements / total
        # Where a NaN is written doesn't matter, as long as it is on the canvas.
        *others, first = cells.nan_to_num(0).long().unbind()
        for stride, cell in zip(canvas.strides, others):
            first = torch.add(first, cell, alpha=stride)
        # (kernels, 2 ** axes, count): both taps per axis; the last axis varies fastest.
        taps, values = (first + canvas.first).unsqueeze(1), elements.unsqueeze(1)
        for stride, fraction in zip(canvas.strides, fractions.unsqueeze(2).unbind()):
            upper = values * fraction
            values = torch.stack((values - upper, upper), 2).flatten(1, 2)
            taps = torch.stack((taps, taps + stride), 2).flatten(1, 2)
        taps = taps.flatten(1)
        # A position that is NaN or infinite makes every tap of its kernel NaN.
        poison = (places * 0).sum((0, 2)).unsqueeze(1)
        kernels = poison.expand(-1, canvas.size).contiguous()
        kernels.scatter_add_(1, taps, values.flatten(1))
        # These are saved only if the positions need a gradient.
        for_positions = (None,) * 3
        if ctx.needs_input_grad[1]:
            for_positions = elements, moved, center == moved
        ctx.save_for_backward(weight, positions, total, taps, fractions, *for_positions)
        return _inside(kernels, extent, canvas).reshape(*weight.shape[:-1], *extent)

    @staticmethod
    def backward(ctx, grad_kernel):
        weight, positions, total, taps, fractions, *for_positions = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        if torch.is_grad_enabled():  # to be differentiated again
            kernel = product_kernel(weight, positions, None, ctx.extent, ctx.rule)
            grads = torch.autograd.grad(
                kernel,
                [t for t, w in zip((weight, positions), wanted) if w],
                grad_kernel,
                create_graph=True,
            )
            return (
                grads[0] if wanted[0] else None,
                grads[-1] if wanted[1] else None,
                None,
                None,
            )

        count = weight.shape[-1]
        kernels = grad_kernel.new_zeros(len(taps), ctx.canvas.size)
        inside = _inside(kernels, ctx.extent, ctx.canvas)
        inside.copy_(grad_kernel.reshape(inside.shape))
        # The multilinear value between the taps, and its slope along each axis.
        value = kernels.gather(1, taps).view(len(taps), -1, count)
        slopes: list[Tensor] = []
        for fraction in reversed(fractions.unsqueeze(2).unbind()):
            lower, upper = value[:, ::2], value[:, 1::2]
            step = upper - lower
            value = torch.addcmul(lower, step, fraction)
            if wanted[1]:
                for axis, slope in enumerate(slopes):
                    lower, upper = slope[:, ::2], slope[:, 1::2]
                    slopes[axis] = torch.addcmul(lower, upper - lower, fraction)
                slopes.insert(0, step)
        value = value.squeeze(1)
        if total is not None:
            value = value / total
        grad_positions = None
        if wanted[1]:
            elements, moved, on_canvas = for_positions
            grad_places = torch.cat(slopes, 1).transpose(0, 1)
            if total is not None:
                grad_places = grad_places - value * _slopes_of_total(moved, ctx.extent)
                grad_places = grad_places * (fractions != 0)
            grad_places = grad_places * on_canvas * elements
            grad_positions = grad_places.reshape(-1, *weight.shape)
            grad_positions = grad_positions.sum_to_size(positions.shape)
        grad_weight = value.reshape(weight.shape) if wanted[0] else None
        return grad_weight, grad_positions, None, None


def _on_canvas(places: Tensor, extent: tuple[int, ...]):
    """Return ``places`` in taps from the kernel's first, and each axis' size.

    Between the two comes a copy of the taps, (ndim, kernels, count) like the first. In
    it, those beyond the canvas are moved to its border, where they touch no tap of the
    kernel.
    """
    if len(set(extent)) == 1:
        size, before = extent[0], -1
        center = places + size // 2
    else:
        size = column(extent, like=places)
        before = torch.full_like(size, -1)
        center = places + (size / 2).floor()
    moved = center.clamp(before, size)  # type: ignore[arg-type]
    return center, moved, size


def _taps_inside(moved: Tensor, size) -> Tensor:
    """Return the sum of an element's taps inside the kernel, for each axis."""
    return torch.minimum(moved + 1, size - moved).clamp(max=1)


def _slopes_of_total(moved: Tensor, extent: tuple[int, ...]) -> Tensor:
    """Return the slopes, along each axis, of the product of :func:`_taps_inside`."""
    size = _on_canvas(moved, extent)[2]
    sums = _taps_inside(moved, size)
    others = [torch.cat((sums[:i], sums[i + 1 :])).prod(0) for i in range(len(sums))]
    slopes = (moved < 0).to(moved) - (moved > size - 1).to(moved)
    return slopes * torch.stack(others)


def _inside(kernels: Tensor, extent: tuple[int, ...], canvas: _Canvas) -> Tensor:
    """Return a view, (kernels, *extent), of the kernels in (kernels, canvas.size)."""
    shape, strides = (len(kernels), *extent), (canvas.size, *canvas.strides)
    return kernels.as_strided(shape, strides, canvas.first)
