"""The im2col formulation, which samples the input and builds no kernel."""

import math
from collections.abc import Callable
from functools import reduce
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ._arguments import (
    IntOrTuple,
    as_int,
    as_tuple,
    check_bias,
    check_elements,
    check_floating,
)
from ._torch import ask, in_format
from .convolution import (
    check_fits,
    check_input,
    padding_sides,
)
from .interpolation import finite_or_nan
from .padding import check_padding_mode, pad

# Pixels gathered in one step (at least those of one element of one output per group).
# Each takes about 60 bytes in the backward pass, in float32. On a CPU a step should
# stay in the caches; on other devices its operators should take longer than the host
# takes to launch them, which 250 MB allow.
STEP_PIXELS = 2**19
STEP_PIXELS_ON_DEVICE = 2**22

# Devices on which torch's own gradient of a gather adds up in the same order each time.
IN_ORDER = {'cpu'}


def sampled_convolution(
    x: Tensor,
    weight: Tensor,
    positions: Tensor,
    bias: Tensor | None = None,
    *,
    kernel_size: IntOrTuple,
    stride: IntOrTuple = 1,
    padding: IntOrTuple | str = 0,
    groups: int = 1,
    padding_mode: str = 'zeros',
) -> Tensor:
    """Convolve ``x`` with bilinear elements without building their kernel.

    ``y[o] = sum_{i, e} weight[o, i, e] * x[i](pixel + positions[:, i, e])``, where
    ``x`` is interpolated between its pixels. The result is that of :func:`convolve`
    with the kernel that :func:`construct_kernel` makes of the elements. The work grows
    with the number of elements but not with the extent. The memory grows with neither,
    as the backward pass samples again. This pays off with few elements in a large
    extent, above all if many outputs share their positions.

    Positions beyond the extent are allowed: the taps outside are dropped. A position
    that is NaN or infinite makes every output that uses it NaN. The computation is in
    the dtype of ``x`` and ``weight``, in at least float32, also under autocast; torch's
    settings for matrix products hold. The gradients are the same in every run, on CUDA
    too, except in transforms of torch.func and for second derivatives, which there need
    torch.use_deterministic_algorithms.

    Args:
        x: (batch, in, *size) or (in, *size), with 1, 2 or 3 spatial axes.
        weight: (out, in // groups, count).
        positions: (ndim, in // groups, count), shared over the outputs and the groups,
            or (ndim, out, in // groups, count), in pixels from the kernel's centre,
            which is tap ``extent // 2``; row i belongs to spatial axis i. An axis of
            size 1 is shared along that axis of ``weight``.
        bias: (out,).
        kernel_size: the extent in taps; one int, or one per axis.
        stride, padding, groups, padding_mode: as in :func:`convolve`.

    Returns:
        (batch, out, *out_size), or without batch if ``x`` has none; in the dtype and
        memory format of ``x``.

    Raises:
        ValueError, TypeError: an argument doesn't fit.
        RuntimeError: the extent is larger than the padded input, with torch's message.

    Source: arXiv 2112.03740.
    """
    check_floating('weight', weight)
    check_floating('positions', positions)
    if weight.ndim != 3 or len(weight) == 0:
        raise ValueError(
            'weight must have the shape (out, in // groups, count) with some outputs, '
            f'got {tuple(weight.shape)}'
        )
    if positions.ndim == 3:
        check_elements(weight[0], positions)
        positions = positions.unsqueeze(1)
    check_elements(weight, positions)
    ndim = len(positions)
    groups = as_int('groups', groups, minimum=1)
    out, group_in, _ = weight.shape
    if out % groups:
        raise ValueError(f'groups must divide the {out} output channels, got {groups}')
    check_input(x, ndim, group_in * groups)
    check_bias(bias, out)
    extent = as_tuple('kernel_size', kernel_size, ndim, minimum=1)
    stride = as_tuple('stride', stride, ndim, minimum=1)
    check_padding_mode(padding_mode)
    sides = padding_sides(padding, extent, stride)

    check_fits(x, extent, sides)
    unbatched = x.ndim == ndim + 1
    x = x.unsqueeze(0) if unbatched else x
    state = ask(x)
    if padding_mode != 'zeros':
        x = pad(x, sides, padding_mode)
        sides = [(0, 0)] * ndim
    axes = [_axis(*axis, x.device) for axis in zip(x.shape[2:], sides, extent, stride)]
    # Transforms of torch.func support no hooks on saved tensors.
    may_resample = torch.is_grad_enabled() and not state.transformed
    with state.without_autocast():
        y = _sample_and_multiply(
            x, weight, positions, extent, axes, groups, may_resample
        )
        if bias is not None:
            y = y + bias.view(-1, *[1] * ndim)
        y = y.to(x.dtype)
    y = in_format(state, y)
    return y.squeeze(0) if unbatched else y


class _Axis(NamedTuple):
    """The pixels of one axis that an element at its first tap needs, ascending.

    Attributes:
        pixels: the two around each output's sample; shared ones are listed once.
        spacing: steps in ``pixels`` from one output's to the next's, 1 or 2.
        stride: pixels from one output's to the next's.
        before: zeros before the image.
    """

    pixels: Tensor
    spacing: int
    stride: int
    before: int


def _axis(
    size: int, sides: tuple[int, int], taps: int, stride: int, device: torch.device
) -> _Axis:
    last = size + sum(sides) - taps
    spacing = min(stride, 2)
    number = torch.arange(last // stride * spacing + 2, device=device)
    pixels = number // spacing * stride + number % spacing - sides[0]
    return _Axis(pixels, spacing, stride, sides[0])


def _sample_and_multiply(
    x: Tensor,
    weight: Tensor,
    positions: Tensor,
    extent: tuple[int, ...],
    axes: list[_Axis],
    groups: int,
    may_resample: bool,
) -> Tensor:
    """Return (batch, out, *out_size), computed in steps of some sets and elements.

    ``sets`` is the number of positions of an element in a group: one for each output,
    or one for all.
    """
    out, group_in, count = weight.shape
    sets = 1 if positions.shape[1] == 1 else out // groups
    dtype = reduce(torch.promote_types, (x.dtype, weight.dtype, torch.float32))
    positions = positions.expand(-1, -1, group_in, count).unflatten(1, (-1, sets))
    start, fraction, scale = _taps(positions, extent)
    fraction = fraction.to(dtype)
    outputs = out // groups // sets
    weight = weight.to(dtype).reshape(groups, sets, outputs, group_in, count)
    weight = weight * scale.to(dtype).unsqueeze(2)
    # The added border of zeros represents all pixels beyond it.
    x = F.pad(x.to(dtype), (1, 1) * len(extent)).unflatten(1, (groups, 1, group_in))

    # Per element and set: the pixels gathered, or those of the gradient's image.
    gathered = len(x) * groups * group_in * math.prod([len(a.pixels) for a in axes])
    pixels = max(1, gathered, x.numel())
    most = STEP_PIXELS if x.device.type == 'cpu' else STEP_PIXELS_ON_DEVICE
    elements_a_step = min(max(1, most // pixels), max(1, count))
    sets_a_step = max(1, most // (pixels * elements_a_step))
    learned = x.requires_grad or weight.requires_grad or fraction.requires_grad
    gather: Callable[..., Tensor] = _gather
    step: Callable[..., Tensor] = _step
    if may_resample and learned:
        step = _resampling_step
        gather = _gather if x.device.type in IN_ORDER else _Gather.apply
    parts = []
    for of_sets in zip(
        weight.split(sets_a_step, 1),
        start.split(sets_a_step, 2),
        fraction.split(sets_a_step, 2),
    ):
        elements = zip(*[tensor.split(elements_a_step, -1) for tensor in of_sets])
        parts.append(
            reduce(torch.add, [step(x, *some, axes, gather) for some in elements])
        )
    return torch.cat(parts, 2).flatten(1, 3)


def _taps(positions: Tensor, extent: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Write elements as ``scale * lerp(x[start], x[start + 1], fraction)`` per axis.

    Within the extent the scale is 1. Where one of the taps is dropped, the fraction
    chooses the other, whose weight is the scale. Elsewhere the scale is 0, or NaN.

    Returns:
        start and fraction, shaped like ``positions``, and the product of the scales of
        all axes.
    """
    positions = positions.to(torch.promote_types(positions.dtype, torch.float32))
    starts, fractions = [], []
    scale: Any = 1
    for position, size in zip(finite_or_nan(positions), extent):
        place = position + size // 2
        lower = place.floor()
        fraction = place - lower
        before, last = lower == -1, lower == size - 1
        inside = (lower > -1) & (lower < size - 1)
        starts.append(lower.nan_to_num().clamp(-1, size - 1).long())
        fractions.append(torch.where(inside, fraction, before.to(fraction.dtype)))
        # Not a plain zero or one, which would hide a NaN.
        constant = fraction * 0 + inside.to(fraction.dtype)
        scale = scale * torch.where(
            before, fraction, torch.where(last, 1 - fraction, constant)
        )
    return torch.stack(starts), torch.stack(fractions), scale


def _step(
    x: Tensor,
    weight: Tensor,
    start: Tensor,
    fraction: Tensor,
    axes: list[_Axis],
    gather: Callable[..., Tensor],
) -> Tensor:
    """Return what some elements add to the output.

    Args:
        x: (batch, groups, 1, in // groups, *size + 2), with a border of zeros.
        weight: (groups, sets, outputs of a set, in // groups, count).
        start, fraction: (ndim, groups or 1, sets, in // groups, count).
        axes: one per spatial axis.
        gather: :func:`_gather`, or ``_Gather.apply``.

    Returns:
        (batch, groups, sets, outputs of a set, *out_size).
    """
    samples = gather(x, start, axes)
    for number, axis in enumerate(axes):
        later: tuple[Any, ...] = (slice(None),) * (len(axes) - 1 - number)
        samples = torch.lerp(
            samples[(..., slice(None, -1, axis.spacing), *later)],
            samples[(..., slice(1, None, axis.spacing), *later)],
            fraction[number].unflatten(-1, (-1, *[1] * len(axes))),
        )
    share = weight.flatten(3) @ samples.flatten(5).flatten(3, 4)
    return share.unflatten(-1, samples.shape[5:])


def _gather(x: Tensor, start: Tensor, axes: list[_Axis]) -> Tensor:
    """Return the pixels around the samples, (batch, groups, sets, in, count, *pixels).

    Args:
        x, start, axes: see :func:`_step`.
    """
    index = torch.zeros((), dtype=torch.long, device=x.device)
    for number, (axis, size) in enumerate(zip(axes, x.shape[4:])):
        pixels = start[number].unsqueeze(-1) + (axis.pixels + 1)
        pixels = pixels.clamp(0, size - 1).unflatten(-1, (*[1] * number, -1))
        index = (index * size).unsqueeze(-1) + pixels
    return (
        x.flatten(4)
        .expand(-1, -1, index.shape[1], -1, -1)
        .gather(4, index.flatten(3).expand(*x.shape[:2], -1, -1, -1))
        .unflatten(4, index.shape[3:])
    )


class _Gather(torch.autograd.Function):
    """:func:`_gather`, whose gradient is gathered too.

    An element reads a pixel of the image for one output at most. So its gradient is
    found where that output is, and the sum over elements has an order. torch's own adds
    up atomically on CUDA, in any order; on a CPU it is faster. The border of zeros gets
    no gradient that is of use.
    """

    @staticmethod
    def forward(ctx, x, start, axes):
        ctx.save_for_backward(start)
        ctx.axes, ctx.shape = axes, x.shape
        return _gather(x, start, axes)

    @staticmethod
    def backward(ctx, grad):
        (start,) = ctx.saved_tensors
        batch, groups, *_ = ctx.shape
        size = ctx.shape[4:]
        index = torch.zeros((), dtype=torch.long, device=grad.device)
        read = torch.ones((), dtype=torch.bool, device=grad.device)
        for number, (axis, pixels) in enumerate(zip(ctx.axes, size)):
            # The distance from the first pixel that is read.
            pixel = torch.arange(pixels, device=grad.device) + (axis.before - 1)
            distance = pixel - start[number].unsqueeze(-1)
            output = distance // axis.stride
            beyond = distance - output * axis.stride
            place, last = output * axis.spacing + beyond, len(axis.pixels) - 1
            is_read = (beyond < axis.spacing) & (place >= 0) & (place <= last)
            shape = (*[1] * number, -1)
            place = place.clamp(0, last).unflatten(-1, shape)
            index = (index * (last + 1)).unsqueeze(-1) + place
            read = read.unsqueeze(-1) & is_read.unflatten(-1, shape)
        index = index.flatten(4).expand(batch, groups, -1, -1, -1, -1)
        values = grad.flatten(5).gather(5, index)
        values = torch.where(read.flatten(4), values, 0.0).sum((2, 4))
        return values.unsqueeze(2).unflatten(4, size), None, None


def _resampling_step(*arguments) -> Tensor:
    """Run ``_step``, which samples again in the backward pass to save memory."""
    return checkpoint(_step, *arguments, use_reentrant=False, preserve_rng_state=False)
