"""What the published `dcls` package does differently: its names, axes and widths."""

from collections.abc import Mapping
from typing import Any

from ..functional._arguments import check_choice
from ..functional.interpolation import (
    ALIASES,
    GAUSS_BASE_WIDTH,
    interpolation_name,
)

# The published names of the interpolations.
VERSIONS = ('v0', 'v1', 'max', 'gauss')
_VERSION_NAMES = {name: version for version, name in ALIASES.items()}

# Layers of the published package whose rows of P are not in the order of the axes.
PUBLISHED_AXES = {
    ('bilinear', 3): (0, 2, 1),
    ('triangle', 2): (1, 0),
    ('triangle', 3): (2, 1, 0),
    ('max', 2): (1, 0),
    ('max', 3): (2, 1, 0),
    ('gauss', 2): (1, 0),
    ('gauss', 3): (2, 1, 0),
}

# Pixels by which the published Dcls2_1d (later releases only) is too wide.
DCLS2_1D_EXTRA_WIDTH = {'gauss': 1.0 - GAUSS_BASE_WIDTH}


def published_interpolation(version: str) -> str:
    """Return the interpolation that is published as ``version``.

    Raises:
        ValueError: ``version`` is not a published name.
    """
    check_choice('version', version, VERSIONS)
    return interpolation_name(version)


def published_version(interpolation: str) -> str:
    """Invert :func:`published_interpolation`."""
    return _VERSION_NAMES.get(interpolation, interpolation)


def published_axes(interpolation: str, ndim: int) -> tuple[int, ...]:
    """Return the spatial axis of each row of the published package's P.

    Measured on `dcls` 0.1.1, for layers that learn along all ``ndim`` axes.
    """
    return PUBLISHED_AXES.get((interpolation, ndim), tuple(range(ndim)))


def published_shifts(interpolation: str, extent: tuple[int, ...]) -> tuple[int, ...]:
    """Return how many pixels the published package shifts each row of P off centre.

    It centres row i by the extent of axis i even where the row belongs to another axis,
    so that in a rectangular kernel an element at 0 is not at the centre. This applies
    to layers that learn along all axes.
    """
    axes = published_axes(interpolation, len(extent))
    return tuple(size // 2 - extent[axis] // 2 for size, axis in zip(extent, axes))


def is_published(notes: Mapping[str, Any]) -> bool:
    """Return whether a layer's metadata in a state_dict are the published package's.

    Its layers save torch's default version and no axes.
    """
    return notes.get('version') == 1 and notes.get('position_axes') is None
