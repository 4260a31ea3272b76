"""Figures on each layer's elements, as pure functions of arrays."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from .elements import LayerElements, at_border

# Few enough that the pairs of elements of wide layers need little memory.
_KERNELS_AT_ONCE = 1024
# Width in pixels of the bins for comparing the blocks' positions.
_BIN = 0.25


@dataclass(frozen=True)
class SigmaSpread:
    """|SIG| over a layer's elements and axes, in pixels; ``zero`` is the share at 0."""

    mean: float
    std: float
    minimum: float
    maximum: float
    zero: float


@dataclass(frozen=True)
class LayerStatistics:
    """Figures on a set of positions; shares are in [0, 1], lengths in pixels.

    Attributes:
        layers: names of the layers that have these positions.
        extent: number of taps along each learned axis.
        interpolation: interpolation of the layers.
        kernels, count: number of kernels, and of elements in each.
        learned: whether positions are learned at all.
        moved: whether the positions visibly differ from how they started: they started
            'normal' and now spread more than 1.1 times as far, or started on the 'grid'
            and are no longer on whole pixels.
        spread: standard deviation of the positions, the root mean square over axes.
        border: share of elements whose nearest tap is an outermost one (along any
            axis), or that are beyond it ('agglutination').
        even_border: what ``border`` would be with elements spread evenly from the first
            tap to the last.
        lost: share of elements a pixel or more beyond an outermost tap, where
            'bilinear' and 'triangle' have no tap to write to and no gradient.
        reach: 99th percentile of the distance from the centre as a share of the limit,
            along the axis where that is largest.
        occupied: share of the extent that 95% of the elements occupy, twice the 95th
            percentile of the distance from the centre by the extent, along the axis
            where that is largest.
        held_extent: smallest odd extent, the same for all axes, with 99% of the
            elements inside along each axis.
        crowded: share of elements closer than a pixel to another one of their kernel.
        distinct: number of taps that are nearest to some element, mean over kernels.
        sigma: spread of sigma; None without sigma.
        blocks: number of layers of this shape that share or could share the positions.
        shared: whether they do.
        block_difference: largest Kolmogorov-Smirnov distance, over axes, between where
            two of those layers have their |weight|; None for a single layer.
        histograms: for each axis, how many elements are nearest to each tap; those
            beyond count for the outermost tap.
        travel: mean distance of the elements from where they began; None if unknown.
    """

    layers: tuple[str, ...]
    extent: tuple[int, ...]
    interpolation: str
    kernels: int
    count: int
    learned: bool
    moved: bool
    spread: float
    border: float
    even_border: float
    lost: float
    reach: float
    occupied: float
    held_extent: int
    crowded: float
    distinct: float
    sigma: SigmaSpread | None
    blocks: int
    shared: bool
    block_difference: float | None
    histograms: tuple[tuple[int, ...], ...]
    travel: float | None = None


def compute_statistics(
    elements: Mapping[str, LayerElements],
) -> dict[str, LayerStatistics]:
    """Compute the figures of each set of positions.

    Args:
        elements: elements by layer from ``collect_elements``.

    Raises:
        ValueError: there are no elements.
    """
    if not elements:
        raise ValueError('elements is empty: the model has no layer with positions')
    alike: dict[tuple, list[LayerElements]] = {}
    for layer in elements.values():
        alike.setdefault(_form(layer), []).append(layer)
    return {
        name: _layer_statistics(layer, _blocks(layer, alike[_form(layer)]))
        for name, layer in elements.items()
    }


def _form(layer: LayerElements) -> tuple:
    """Return what layers must have in common to share positions."""
    return layer.limits, layer.axes, layer.interpolation, layer.positions.shape


def _blocks(
    layer: LayerElements, alike: Iterable[LayerElements]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """List positions and magnitudes of the layers that share or could share them."""
    sets = [layer] if len(layer.layers) > 1 else alike
    return [(one.positions, weights) for one in sets for weights in one.magnitudes]


def _layer_statistics(layer: LayerElements, blocks: list) -> LayerStatistics:
    positions, limits = layer.positions, np.array(layer.limits)
    first, last = limits.T
    distance = np.abs(positions)
    distance = distance.reshape(-1, len(limits))
    farthest = np.percentile(distance, 99, axis=0)
    usual = np.percentile(distance, 95, axis=0)
    spread = spread_of(positions)
    beyond = (positions <= first - 1) | (positions >= last + 1)
    crowded, distinct = _crowding(positions)
    return LayerStatistics(
        layers=layer.layers,
        extent=layer.extent,
        interpolation=layer.interpolation,
        kernels=positions.shape[0],
        count=positions.shape[1],
        learned=layer.learned,
        moved=_MOVED.get(layer.initial_positions, _always)(layer, spread),
        spread=spread,
        border=float(at_border(positions, limits).mean()),
        even_border=even_border(layer.extent),
        lost=float(beyond.any(-1).mean()),
        reach=float((farthest / np.maximum(-first, 1)).max()),
        occupied=float((2 * usual / np.array(layer.extent)).max()),
        held_extent=2 * int(np.ceil(farthest.max())) + 1,
        crowded=crowded,
        distinct=distinct,
        sigma=_sigma_spread(layer.sigma),
        blocks=len(blocks),
        shared=len(layer.layers) > 1,
        block_difference=_block_difference(blocks, limits),
        histograms=_histograms(positions, limits),
    )


def spread_of(positions: np.ndarray) -> float:
    """Return the standard deviation of (..., axes) positions, RMS over the axes."""
    return float(np.sqrt(positions.reshape(-1, positions.shape[-1]).var(0).mean()))


def even_border(extent: Iterable[int]) -> float:
    """Return the share of evenly spread positions within half a pixel of an end."""
    inside = [max(size - 2, 0) / max(size - 1, 1) for size in extent]
    return 1 - float(np.prod(inside))


def _crowding(positions: np.ndarray) -> tuple[float, float]:
    crowded, distinct = 0, 0
    for start in range(0, len(positions), _KERNELS_AT_ONCE):
        part = positions[start : start + _KERNELS_AT_ONCE]
        squares = sum(
            (rows[:, :, None] - rows[:, None, :]) ** 2
            for rows in np.moveaxis(part, -1, 0)
        )
        # Each element counts itself, at distance 0.
        crowded += int(((squares < 1).sum(-1) > 1).sum())
        taps = np.round(part)
        same = (taps[:, :, None] == taps[:, None, :]).all(-1)
        distinct += int((~np.tril(same, -1).any(-1)).sum())
    return crowded / positions[..., 0].size, distinct / len(positions)


def _sigma_spread(sigma: np.ndarray | None) -> SigmaSpread | None:
    if sigma is None:
        return None
    return SigmaSpread(
        mean=float(sigma.mean()),
        std=float(sigma.std()),
        minimum=float(sigma.min()),
        maximum=float(sigma.max()),
        zero=float((sigma == 0).mean()),
    )


def _block_difference(blocks: list, limits: np.ndarray) -> float | None:
    if len(blocks) < 2:
        return None
    largest = 0.0
    for axis, (first, last) in enumerate(limits):
        edges = np.arange(first, last + _BIN, _BIN)
        cumulative = np.array(
            [
                np.histogram(
                    positions[..., axis].clip(first, last), edges, weights=weights
                )[0].cumsum()
                / max(weights.sum(), np.finfo(np.float32).tiny)
                for positions, weights in blocks
            ]
        )
        # The largest difference of any two is between the highest and the lowest.
        largest = max(largest, float(np.ptp(cumulative, axis=0).max(initial=0)))
    return largest


def _histograms(
    positions: np.ndarray, limits: np.ndarray
) -> tuple[tuple[int, ...], ...]:
    found = []
    for axis, (first, last) in enumerate(limits):
        taps = np.round(positions[..., axis]).clip(first, last).astype(int) - first
        counts = np.bincount(taps.ravel(), minlength=last - first + 1)
        found.append(tuple(counts.tolist()))
    return tuple(found)


def _always(layer: LayerElements, spread: float) -> bool:
    return True


def _beyond_normal(layer: LayerElements, spread: float) -> bool:
    return layer.initial_spread is None or spread > 1.1 * layer.initial_spread


def _off_the_grid(layer: LayerElements, spread: float) -> bool:
    return bool((layer.positions != np.round(layer.positions)).any())


# initial_positions -> whether positions have left them.
_MOVED = {'normal': _beyond_normal, 'grid': _off_the_grid}
