"""Where the elements of a layer start: the values of its argument initial_positions."""

import math

import torch
from torch import Tensor, nn

from ..functional import INTERPOLATIONS
from ..functional._arguments import as_float
from .geometry import extent_of
from .positions import LearnedPositions

# The standard deviation of the published initial positions, in pixels.
NORMAL_SPREAD = 0.5

# 'even' takes the remotest of so many places, and holds so many distances at a time.
CANDIDATES = 24
DISTANCES_AT_ONCE = 2**22


def normal_positions(layer: LearnedPositions) -> None:
    """Draw from a normal distribution around the centre, as published if it is narrow.

    Its standard deviation is the layer's ``initial_spread``, in pixels. Places outside
    the extent are moved onto its border.
    """
    nn.init.normal_(layer.P, std=initial_spread(layer) or 0.0)
    layer.clamp_positions()


def uniform_positions(layer: LearnedPositions) -> None:
    """Draw uniformly from first to last tap, as published if some axes are dense."""
    for positions, axis in zip(layer.P, layer.position_axes):
        nn.init.uniform_(positions, *layer.position_limits(axis))


@torch.no_grad()
def even_positions(layer: LearnedPositions) -> None:
    """Cover the extent evenly with each kernel's elements, in a way of its own.

    The elements are placed one by one: of some uniformly drawn candidates each takes
    the one farthest from the elements that the kernel already has. The extent counts as
    closed to a torus, so that they are no denser at the border.

    Source: Mitchell's best candidate, "Spectrally optimal sampling for distribution ray
    tracing", SIGGRAPH 1991.
    """
    limits = [layer.position_limits(axis) for axis in layer.position_axes]
    rows, count = len(limits), layer.kernel_count
    sizes = layer.P.new_tensor([last - first for first, last in limits]).float()
    kernels = layer.P[0].numel() // count
    step = max(1, DISTANCES_AT_ONCE // (CANDIDATES * count))
    parts = [
        _spread_out(min(step, kernels - start), count, sizes)
        for start in range(0, kernels, step)
    ]
    places = torch.cat(parts).movedim(-1, 0).view_as(layer.P)
    firsts = layer.P.new_tensor([first for first, _ in limits])
    layer.P.copy_(places + firsts.view(rows, *(1,) * (layer.P.ndim - 1)))


def _spread_out(kernels: int, count: int, sizes: Tensor) -> Tensor:
    """Return (kernels, count, axes) places in [0, size), far from each other."""
    drawn = torch.rand(kernels, count, CANDIDATES, len(sizes), device=sizes.device)
    drawn *= sizes
    places = drawn[:, :, 0].clone()
    for i in range(1, count):
        # (kernels, candidates, elements so far, axes)
        apart = (drawn[:, i, :, None] - places[:, None, :i]).abs()
        apart = torch.minimum(apart, sizes - apart)
        best = apart.square().sum(-1).amin(-1).argmax(-1)
        places[:, i] = drawn[torch.arange(kernels, device=sizes.device), i, best]
    return places


@torch.no_grad()
def grid_positions(layer: LearnedPositions) -> None:
    """Place elements on the taps of the replaced dilated conv, and rings around it."""
    size = grid_size(layer, layer.kernel_size)
    places = grid_places(layer, size, layer.dilation)
    for positions, row in zip(layer.P, places):
        positions.copy_(row)


def grid_size(layer: LearnedPositions, kernel_size: tuple[int, ...]) -> tuple[int, ...]:
    """Return a plain kernel's size, with the rings for which a layer has elements.

    Each ring adds one tap on every side. If no number of rings gives as many taps as
    the layer has elements, it is the size itself.
    """
    learned = layer.position_axes

    def with_rings(count: int) -> tuple[int, ...]:
        return tuple(n + 2 * count * (i in learned) for i, n in enumerate(kernel_size))

    rings = 0
    while math.prod(with_rings(rings)[axis] for axis in learned) < layer.kernel_count:
        rings += 1
    taps = math.prod(with_rings(rings)[axis] for axis in learned)
    return with_rings(rings if taps == layer.kernel_count else 0)


def grid_places(
    layer: LearnedPositions, kernel_size: tuple[int, ...], dilation: tuple[int, ...]
) -> Tensor:
    """Return the positions of a plain convolution's taps, the last axis fastest.

    Returns:
        (rows of P, taps along the learned axes), in pixels from the layer's centre.

    Raises:
        ValueError: the number of elements is not that of the taps, or the taps don't
            fit into the extent.
    """
    learned = sorted(layer.position_axes)
    span = extent_of(kernel_size, dilation)
    taps = []
    for axis in range(layer.ndim):
        margin = layer.extent[axis] - span[axis]
        if margin < 0 or margin % 2 or (margin and axis not in learned):
            larger = ', or larger by an even number' if axis in learned else ''
            raise ValueError(
                "elements on a plain convolution's taps need a dilated_kernel_size "
                'equal to its extent, dilation * (kernel_size - 1) + 1'
                f'{larger}: axis {axis} has {layer.extent[axis]} for {span[axis]}'
            )
        if axis in learned:
            first = layer.position_limits(axis)[0] + margin // 2
            taps.append(first + dilation[axis] * torch.arange(kernel_size[axis]))
    places = torch.cartesian_prod(*taps).view(-1, len(learned))
    if len(places) != layer.kernel_count:
        raise ValueError(
            "elements on a plain convolution's taps must be as many as these: make "
            f'kernel_count {len(places)} or leave it out, got {layer.kernel_count} '
            f'(kernel_size {kernel_size})'
        )
    return places[:, [learned.index(axis) for axis in layer.position_axes]].T


# The argument initial_positions of a layer -> a function that fills P in place.
INITIAL_POSITIONS = {
    'normal': normal_positions,
    'uniform': uniform_positions,
    'even': even_positions,
    'grid': grid_positions,
}


def initial_spread(layer: LearnedPositions) -> float | None:
    """Return the standard deviation of a layer's 'normal' start, in pixels, or None."""
    if layer.initial_positions != 'normal':
        return None
    return NORMAL_SPREAD if layer.initial_spread is None else layer.initial_spread


def check_spread(start: str, spread: float | None) -> None:
    """Raise a ValueError or TypeError unless ``initial_spread`` fits the start."""
    if spread is None:
        return
    as_float('initial_spread', spread, minimum=0.0)
    if start != 'normal':
        raise ValueError(
            "initial_spread is the width of initial_positions='normal', got "
            f'initial_positions={start!r}: leave it out'
        )


def starting_sigma(layer: LearnedPositions) -> float:
    """Return the value of SIG at the start, in pixels: the given or published one."""
    if layer.initial_sigma is not None:
        return layer.initial_sigma
    # None if the interpolation has been changed to one that doesn't read SIG.
    return INTERPOLATIONS[layer.interpolation].initial_sigma or 0.0


@torch.no_grad()
def initialize_sigma(layer: LearnedPositions) -> None:
    """Set SIG, if any, to its initial value."""
    if layer.SIG is not None:
        layer.SIG.fill_(starting_sigma(layer))
