"""Scenes to train on when no data set is at hand, and corrupted images."""

from typing import TYPE_CHECKING

from .._lazy import lazy_names

if TYPE_CHECKING:
    from .corruption import CorruptImage
    from .shapes import SHAPES, Scene, draw_scene, has_scenes, write_scenes
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            'corruption': ['CorruptImage'],
            'shapes': ['SHAPES', 'Scene', 'draw_scene', 'has_scenes', 'write_scenes'],
        },
    )

__all__ = [
    'SHAPES',
    'CorruptImage',
    'Scene',
    'draw_scene',
    'has_scenes',
    'write_scenes',
]
