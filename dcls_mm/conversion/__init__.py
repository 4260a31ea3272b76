"""Conversions of state_dicts between packages: pure functions, without files."""

from .convnext_weights import (
    from_convnext,
    from_convnext_dcls,
    to_convnext,
    to_convnext_dcls,
)
from .extent_weights import without_extent
from .legacy_weights import from_legacy, to_legacy
from .openmmlab_weights import from_mmdet2, from_mmseg0
from .published_weights import from_published, to_published

__all__ = [
    'from_convnext',
    'from_convnext_dcls',
    'from_legacy',
    'from_mmdet2',
    'from_mmseg0',
    'from_published',
    'to_convnext',
    'to_convnext_dcls',
    'to_legacy',
    'to_published',
    'without_extent',
]
