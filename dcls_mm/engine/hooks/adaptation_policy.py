"""Which elements go, where new ones start, and which layers get more of them.

Pure functions of tensors and numbers. A *kernel* is a pair of channels (and of dense
taps, if any), with elements of its own; ``*kernels`` are these dimensions.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ...functional.scatter import construct_checked
from ...layers.resizing import Rearrangement

STAYS = -1

# A layer gets elements of another one if it asks this many times as much for them.
MARGIN = 2.0

SMALLEST_EXTENT = 3


def leaving_elements(
    positions: Tensor,
    magnitude: Tensor,
    spared: Tensor,
    *,
    meet: float,
    near_zero: float,
    most: int,
    least: int = 0,
) -> Tensor:
    """Choose the elements that lose their weight until the next visit.

    Of two that have met, the lighter one hands its weight over to the heavier one. No
    element gets the weight of several. Elements that weigh almost nothing fade.

    Args:
        positions: (axes, *kernels, count), in pixels.
        magnitude: |weight| relative to the kernel's mean, (*kernels, count).
        spared: bool, (*kernels, count); elements that are too young to be judged.
        meet: the distance in pixels at which two have met.
        near_zero: the magnitude below which an element fades.
        most: elements of a kernel that leave at most, below count.
        least: 1 makes the lightest element leave where none has reason to.

    Returns:
        The index of the element that gets the weight, of the element itself if it
        fades, and ``STAYS`` for all others, (*kernels, count).
    """
    count = magnitude.shape[-1]
    index = torch.arange(count, device=magnitude.device)
    mine, other = magnitude.unsqueeze(-1), magnitude.unsqueeze(-2)
    lighter = (mine < other) | ((mine == other) & (index[:, None] > index))
    difference = positions.unsqueeze(-1) - positions.unsqueeze(-2)
    met = lighter & (difference.square().sum(0) <= meet**2) & ~spared.unsqueeze(-1)
    partner = other.expand(met.shape).masked_fill(~met, -1).argmax(-1)
    # Of those with the same partner, the lightest goes.
    gives = met.any(-1)
    to = (partner.unsqueeze(-1) == index) & gives.unsqueeze(-1)
    chosen = mine.expand(to.shape).masked_fill(~to, torch.inf).argmin(-2)
    gives = gives & (chosen.gather(-1, partner) == index)
    gives = gives & ~gives.gather(-1, partner)
    gets = ((partner.unsqueeze(-1) == index) & gives.unsqueeze(-1)).any(-2)

    reason = gives | ((magnitude < near_zero) & ~spared & ~gets)
    # Those with a reason first, then the others, and young ones and partners last.
    order = magnitude + torch.where(reason, 0.0, count) + (spared | gets) * 2.0 * count
    rank = order.argsort(stable=True, dim=-1).argsort(-1)
    goes = (reason & (rank < most)) | (rank < least)
    return torch.where(goes, torch.where(gives, partner, index), STAYS)


def hand_over(weight: Tensor, leaving: Tensor, share: float) -> None:
    """Move a share of the weight of elements that leave, in place.

    Args:
        weight: (..., *kernels, count).
        leaving: from :func:`leaving_elements`.
        share: of their weight now; 1 leaves exactly zero.
    """
    index = torch.arange(leaving.shape[-1], device=leaving.device)
    moved = (weight * share).masked_fill(leaving == STAYS, 0)
    weight.sub_(moved)
    # No two have the same partner, so the order of the additions doesn't matter.
    given = moved.masked_fill(leaving == index, 0)
    weight.scatter_add_(-1, leaving.clamp(min=0).expand(weight.shape), given)


class Wanted(NamedTuple):
    """The taps at which a new element would lower the loss most, the best first.

    Attributes:
        places: (axes, *kernels, n), in pixels from the kernel's centre.
        gain: \\|gradient\\| there, (*kernels, n); 0 at taps that an element covers.
    """

    places: Tensor
    gain: Tensor


def wanted_places(
    gradient: Tensor, positions: Tensor, stays: Tensor, number: int
) -> Wanted:
    """Find the taps without an element that have the largest gradient.

    Args:
        gradient: \\|gradient\\| of the dense kernel, (*kernels, *extent).
        positions: (axes, *kernels, count), rows in the order of the extent's axes.
        stays: which elements count, (*kernels, count).
        number: how many taps to find; fewer if the extent has fewer.

    Source: RigL, arXiv 1911.11134, where each weight of a layer is such a tap.
    """
    extent = tuple(gradient.shape[gradient.ndim - len(positions) :])
    ones = stays.to(positions.dtype)
    covered = construct_checked(ones, positions, None, extent, 'bilinear') != 0
    gain = gradient.masked_fill(covered, 0).flatten(-len(extent))
    best = gain.topk(min(number, gain.shape[-1]))
    rest, rows = best.indices, []
    for size in reversed(extent):
        rows.insert(0, rest % size - size // 2)
        rest = rest // size
    return Wanted(torch.stack(rows), best.values)


def rearranged(dead: Tensor, count: int) -> Rearrangement:
    """Return the elements of kernels that get another count.

    Args:
        dead: which elements weigh nothing, (*kernels, old count).
        count: the new number. If it is lower, dead elements go, and each kernel must
            have enough; if not, new ones are appended. All other dead ones start anew.
    """
    old = dead.shape[-1]
    if count < old:
        source = dead.int().argsort(stable=True, dim=-1)[..., :count]
        return Rearrangement(source, dead.gather(-1, source))
    index = torch.arange(count, device=dead.device)
    source = index.clamp(max=old - 1).expand(*dead.shape[:-1], count)
    fresh = torch.ones_like(source, dtype=torch.bool)
    fresh[..., :old] = dead
    return Rearrangement(source, fresh)


def places_of_fresh(fresh: Tensor, wanted: Wanted) -> Tensor:
    """Return where new elements start: the first of a kernel at its best tap, etc.

    Args:
        fresh: which elements are new, (*kernels, count).
        wanted: at least as many taps as a kernel has new elements, or all taps.

    Returns:
        (axes, *kernels, count); the values of elements that aren't new mean nothing.
    """
    rank = (fresh.cumsum(-1) - 1).clamp(0, wanted.gain.shape[-1] - 1)
    return wanted.places.gather(-1, rank.expand(len(wanted.places), *rank.shape))


class Share(NamedTuple):
    """What is known of a layer, or of layers that share positions, to share a budget.

    Attributes:
        count: elements of a kernel.
        cost: weights that one more element of every kernel makes.
        spare: elements that weigh nothing in every kernel.
        demand: mean gain of a weight that a new element adds.
        most: how many elements a kernel may get at once.
    """

    count: int
    cost: int
    spare: int
    demand: float
    most: int


def plan_counts(shares: Sequence[Share], budget: int) -> list[int]:
    """Return the new counts: whoever asks most gets elements that others can spare.

    Args:
        shares: what is known of each layer.
        budget: weights in all. The total never passes it, and if it is higher at the
            start, it falls as elements become spare.
    """
    counts = [share.count for share in shares]
    order = sorted(range(len(shares)), key=lambda i: shares[i].demand)
    room = budget - sum(share.count * share.cost for share in shares)

    def shrink(needed: int, givers: list[int]) -> None:
        nonlocal room
        for i in givers:
            fewest = max(1, shares[i].count - shares[i].spare)
            while room < needed and counts[i] > fewest:
                counts[i] -= 1
                room += shares[i].cost

    shrink(0, order)
    taker = order[-1]
    asks = shares[taker]
    givers = [i for i in order[:-1] if shares[i].demand * MARGIN < asks.demand]
    kept = list(counts)
    shrink(asks.cost, givers)
    if room < asks.cost or not asks.demand:
        return kept
    while room >= asks.cost and counts[taker] < asks.count + asks.most:
        counts[taker] += 1
        room -= asks.cost
    return counts


def givers_to_be(shares: Sequence[Share], budget: int) -> list[bool]:
    """Return which layers should have an element to spare at the next visit.

    All while the budget is passed, else the one that asks least, if another asks for
    more than ``MARGIN`` times as much.
    """
    total = sum(share.count * share.cost for share in shares)
    if total > budget:
        return [share.count > 1 for share in shares]
    able = [i for i, share in enumerate(shares) if share.count > 1]
    giver = min(able, key=lambda i: shares[i].demand, default=None)
    most = max(share.demand for share in shares)
    return [
        i == giver and share.demand * MARGIN < most for i, share in enumerate(shares)
    ]


def next_extent(
    extent: int,
    bounds: tuple[float, float],
    pressing: float,
    *,
    pressed: float,
    smallest: int,
    largest: int | None,
) -> int:
    """Return the extent along an axis until the next visit.

    Args:
        extent: now, in pixels.
        bounds: first and last tap that an element reaches, from the kernel's centre.
        pressing: share of the weight within a pixel of the border.
        pressed: the share from which the extent grows, by a pixel on each side.
        smallest, largest: limits; no ``largest`` if it is None.

    Returns:
        If it doesn't grow, it is cropped to leave at least a pixel beside all taps.
    """
    if pressing >= pressed and (largest is None or extent + 2 <= largest):
        return extent + 2
    first, last = bounds
    smaller, smallest = extent, max(smallest, SMALLEST_EXTENT)
    while smaller - 2 >= smallest and holds(smaller - 2, first - 1, last + 1):
        smaller -= 2
    return smaller


def holding_extent(extent: int, first: float, last: float, largest: int | None) -> int:
    """Return the smallest extent from this one on that has all taps, up to the largest.

    Args:
        extent: now, in pixels.
        first, last: of the taps, from the kernel's centre; NaN is held by none.
        largest: the largest extent; None if there is no limit.
    """
    if not -torch.inf < first <= last < torch.inf:
        return extent
    while not holds(extent, first, last) and (largest is None or extent + 2 <= largest):
        extent += 2
    return extent


def holds(extent: int, first: float, last: float) -> bool:
    """Return whether an extent has the taps from ``first`` to ``last``."""
    return first >= -(extent // 2) and last <= extent - 1 - extent // 2


def pressing_shares(
    positions: Tensor, magnitude: Tensor, extent: Sequence[int]
) -> list[float]:
    """Return the share of the weight within a pixel of the border, per axis.

    Args:
        positions: (axes, *kernels, count), in the order of ``extent``.
        magnitude: (*kernels, count).
        extent: in pixels, per axis.
    """
    total = magnitude.sum().clamp(min=torch.finfo(magnitude.dtype).tiny)
    shares = []
    for places, size in zip(positions, extent):
        near = (places <= 1 - size // 2) | (places >= size - 2 - size // 2)
        shares.append((magnitude * near).sum() / total)
    return torch.stack(shares).tolist()
