"""How the positions of a training stand, stage by stage, against where they began."""

import re
from collections.abc import Mapping
from statistics import mean
from typing import Any

import numpy as np
from torch import Tensor

from .elements import LayerElements
from .statistics import spread_of

# The key under which checkpoints keep the initial positions, in mmengine's message hub:
# when that was, and the positions by layer.
START = 'dcls_start_positions'

# A layer's name up to the first part that ends in a number: that of its stage.
_STAGE = re.compile(r'(?:[^.]*\.)*?[^.]*\d(?=\.|$)')


def stage_of(layer: str) -> str:
    """Return the name of a layer's stage, such as 'backbone.stages.1'.

    That is the layer's name up to the first part that ends in a number, or the whole
    name if none does.
    """
    match = _STAGE.match(layer)
    return layer if match is None else match[0]


def mean_distance(before: np.ndarray, after: np.ndarray) -> float:
    """Return the mean Euclidean distance of (..., axes) positions, in pixels."""
    return float(np.linalg.norm(after - before, axis=-1).mean())


def travelled(
    elements: Mapping[str, LayerElements], start: Mapping[str, np.ndarray]
) -> dict[str, float]:
    """Return the mean distance of each layer's elements from the start, in pixels.

    Layers without a start of the same shape are left out: elements that were added or
    removed have moved from nowhere.

    Args:
        elements: elements by layer from ``collect_elements``.
        start: positions by layer, (kernels, count, axes).
    """
    return {
        name: mean_distance(start[name], layer.positions)
        for name, layer in elements.items()
        if name in start and start[name].shape == layer.positions.shape
    }


def stage_figures(
    elements: Mapping[str, LayerElements], start: Mapping[str, np.ndarray]
) -> dict[str, float]:
    """Return the figures of each stage, under the names by which they are logged.

    These are ``positions/<stage>/`` and 'extent' (taps along the longest learned axis),
    'count' (elements per kernel), 'spread' (standard deviation in pixels) and 'travel'
    (see :func:`travelled`): means over the sets of positions in the stage.

    Args:
        elements, start: see :func:`travelled`.
    """
    travels = travelled(elements, start)
    found: dict[str, list[float]] = {}
    for name, layer in elements.items():
        figures = {
            'extent': max(layer.extent),
            'count': layer.positions.shape[1],
            'spread': spread_of(layer.positions),
        }
        if name in travels:
            figures['travel'] = travels[name]
        for figure, value in figures.items():
            key = f'positions/{stage_of(name)}/{figure}'
            found.setdefault(key, []).append(value)
    return {key: float(mean(values)) for key, values in found.items()}


def start_in(checkpoint: Mapping[str, Any]) -> dict[str, np.ndarray] | None:
    """Return the positions with which the training of a checkpoint began, by layer.

    Args:
        checkpoint: its content, from ``read_checkpoint``.

    Returns:
        Layer -> (kernels, count, axes), or None if the training kept none.
    """
    content: Any = checkpoint
    for key in ('message_hub', 'runtime_info', START):
        if not isinstance(content, dict) or key not in content:
            return None
        content = content[key]
    if type(content) is not tuple or len(content) != 2 or type(content[1]) is not dict:
        return None
    positions = content[1]
    if not all(type(value) is Tensor for value in positions.values()):
        return None
    return {name: value.numpy() for name, value in positions.items()}
