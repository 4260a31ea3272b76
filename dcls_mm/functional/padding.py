"""Padding of images in the modes of torch.nn.ConvNd, with repeatable gradients."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ._arguments import check_choice

# Padding mode of torch.nn.ConvNd -> its name in torch.nn.functional.pad.
PADDING_MODES = {
    'zeros': 'constant',
    'reflect': 'reflect',
    'replicate': 'replicate',
    'circular': 'circular',
}


def check_padding_mode(padding_mode: str) -> None:
    check_choice('padding_mode', padding_mode, PADDING_MODES)


def pad(x: Tensor, sides: Sequence[tuple[int, int]], padding_mode: str) -> Tensor:
    """Pad ``x`` by (before, after) pixels per axis in a mode of ``PADDING_MODES``.

    Negative numbers remove pixels.
    """
    added = [(max(before, 0), max(after, 0)) for before, after in sides]
    edge = None if x.device.type == 'cpu' else EDGES.get(padding_mode)
    if edge is None or (edge is _mirrored and not _can_be_mirrored(x, added)):
        padded = F.pad(x, _last_axis_first(added), PADDING_MODES[padding_mode])
    else:
        padded = _pad_by_pieces(x, added, edge)
    if added == sides:
        return padded
    removed = [(min(before, 0), min(after, 0)) for before, after in sides]
    return F.pad(padded, _last_axis_first(removed))


def _pad_by_pieces(
    x: Tensor, sides: list[tuple[int, int]], edge: Callable[..., Tensor]
) -> Tensor:
    """Pad one axis after the other, by concatenating.

    On CUDA torch adds up the gradient of its own padding atomically, in any order.
    """
    for axis, (before, after) in enumerate(sides, x.ndim - len(sides)):
        last = x.shape[axis] - 1
        pieces = [x]
        if before:
            pieces.insert(0, edge(x, axis, 0, before))
        if after:
            pieces.append(edge(x, axis, last, after))
        if len(pieces) > 1:
            x = torch.cat(pieces, axis)
    return x


def _mirrored(x: Tensor, axis: int, border: int, count: int) -> Tensor:
    """Return the ``count`` pixels next to the one at the border, in reverse."""
    start = border - count if border else 1
    return x.narrow(axis, start, count).flip(axis)


def _repeated(x: Tensor, axis: int, border: int, count: int) -> Tensor:
    """Return the pixel at the border ``count`` times."""
    shape = [-1] * x.ndim
    shape[axis] = count
    return x.narrow(axis, border, 1).expand(shape)


# Padding mode -> what an edge of an image gets: (x, axis, border's pixel, count).
EDGES = {'reflect': _mirrored, 'replicate': _repeated}


def _can_be_mirrored(x: Tensor, sides: list[tuple[int, int]]) -> bool:
    """Return whether the image is larger than its edges; if not, torch raises."""
    return all(max(pair) < n for pair, n in zip(sides, x.shape[-len(sides) :]))


def _last_axis_first(sides: list[tuple[int, int]]) -> list[int]:
    return [side for pair in reversed(sides) for side in pair]
