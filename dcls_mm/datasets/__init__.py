from .shapes import SHAPES, Scene, draw_scene, has_scenes, write_scenes

__all__ = ['SHAPES', 'Scene', 'draw_scene', 'has_scenes', 'write_scenes']
