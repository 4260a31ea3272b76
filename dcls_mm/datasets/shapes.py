"""Scenes of textured shapes to train and evaluate on when no data set is at hand.

Shapes are vivid and the background is pale, so it is easy to learn where a shape is.
All shapes have the same colours and textures, so only its outline tells which shape it
is, and that takes a receptive field as large as the shape.
"""

import json
from collections.abc import Callable, Iterator
from colorsys import hsv_to_rgb
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from .._files import write_whole
from ..functional._arguments import as_bool, as_int

SIZE = 160  # default side of a scene in pixels
RADIUS = (0.09, 0.24)  # of a shape, as a fraction of the scene's side
OBJECTS = (2, 6)  # least and most shapes in a scene
PALE, VIVID = (0.0, 0.3), (0.6, 1.0)  # saturation of the background and of shapes
BRIGHTNESS = (0.4, 1.0)
CONTRAST = 60.0  # least distance between mean colours of a shape and what it covers
VISIBLE = 0.6  # least fraction of a shape that later shapes leave uncovered


def _circle(radius: float) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    return radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _polygon(corners: int, *radii: float) -> np.ndarray:
    """Make a regular polygon; its corners cycle through the radii."""
    angle = 2 * np.pi * np.arange(corners) / corners
    unit = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return np.resize(radii, corners)[:, None] * unit


# Outlines in units of the radius. A second outline is a hole.
OUTLINES: dict[str, list[np.ndarray]] = {
    'disc': [_circle(0.9)],
    'triangle': [_polygon(3, 1.1)],
    'square': [_polygon(4, 1.1)],
    'star': [_polygon(10, 1.2, 0.5)],
    'ring': [_circle(1.0), _circle(0.55)],
}
SHAPES: tuple[str, ...] = tuple(OUTLINES)


def _wave(rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
    period = rng.uniform(6, 20)  # pixels of a scene of the usual size
    return np.sin(2 * np.pi * (x / period + rng.random()))


# How far each pixel is from a texture's first colour to its second, from 0 to 1. u and
# v are the pixels' coordinates in a randomly rotated frame.
TEXTURES: dict[str, Callable[..., np.ndarray]] = {
    'plain': lambda rng, u, v: np.zeros(u.shape),
    'gradient': lambda rng, u, v: (u - u.min()) / np.ptp(u),
    'stripes': lambda rng, u, v: _wave(rng, u) > 0,
    'checks': lambda rng, u, v: _wave(rng, u) * _wave(rng, v) > 0,
    'clouds': lambda rng, u, v: cv2.resize(rng.random((8, 8)), u.shape),
}


class Scene(NamedTuple):
    """A drawn scene.

    Attributes:
        image: (size, size, 3) uint8, BGR.
        masks: (objects, size, size) bool, the visible part of each shape.
        labels: (objects,) int, indices into ``SHAPES``.
    """

    image: np.ndarray
    masks: np.ndarray
    labels: np.ndarray

    def label_map(self) -> np.ndarray:
        """Return (size, size) uint8: 0 for background, else 1 + index in ``SHAPES``."""
        numbers = (self.labels + 1)[:, None, None]
        return (self.masks * numbers).sum(axis=0).astype(np.uint8)


def draw_scene(rng: np.random.Generator, size: int = SIZE) -> Scene:
    """Draw shapes of random class, size, angle and texture on a textured background.

    Later shapes partly cover earlier ones. The same state of ``rng`` gives the same
    scene, and at another size much the same scene with more or fewer pixels.

    Args:
        rng: source of all randomness.
        size: side of the scene in pixels, at least 32.

    Raises:
        ValueError: ``size`` is too small to tell outlines apart.
    """
    if size < 32:
        raise ValueError(f'size must be at least 32 pixels, got {size}')
    image = _draw_texture(rng, size, PALE)
    masks: list[np.ndarray] = []
    areas: list[int] = []
    labels: list[int] = []
    for _ in range(rng.integers(OBJECTS[0], OBJECTS[1] + 1)):
        label = rng.integers(len(SHAPES))
        mask = _place(rng, size, OUTLINES[SHAPES[label]], masks, areas)
        if mask is None:
            continue
        image[mask] = _draw_contrasting_texture(rng, size, image[mask])[mask]
        masks = [other & ~mask for other in masks] + [mask]
        areas.append(mask.sum())
        labels.append(label)
    image = np.clip(image + rng.normal(0, 6, image.shape), 0, 255).astype(np.uint8)
    return Scene(image, np.stack(masks), np.array(labels))


def _draw_texture(
    rng: np.random.Generator, size: int, saturation: tuple[float, float]
) -> np.ndarray:
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[:size, :size] * (SIZE / size)
    u = x * np.cos(angle) + y * np.sin(angle)
    v = y * np.cos(angle) - x * np.sin(angle)
    blend = TEXTURES[rng.choice(list(TEXTURES))](rng, u, v)[..., None]
    first, second = (_draw_colour(rng, saturation) for _ in range(2))
    return first + blend * (second - first)


def _draw_colour(
    rng: np.random.Generator, saturation: tuple[float, float]
) -> np.ndarray:
    hsv = rng.random(), rng.uniform(*saturation), rng.uniform(*BRIGHTNESS)
    return 255 * np.array(hsv_to_rgb(*hsv))


def _draw_contrasting_texture(
    rng: np.random.Generator, size: int, covered: np.ndarray
) -> np.ndarray:
    mean = covered.mean(axis=0)
    while True:
        texture = _draw_texture(rng, size, VIVID)
        if np.linalg.norm(texture.mean(axis=(0, 1)) - mean) > CONTRAST:
            return texture


def _place(
    rng: np.random.Generator,
    size: int,
    outlines: list[np.ndarray],
    masks: list[np.ndarray],
    areas: list[int],
) -> np.ndarray | None:
    """Find a mask that leaves enough of the others visible; None in a crowded scene."""
    for _ in range(20):
        radius = size * rng.uniform(*RADIUS)
        centre = rng.uniform(radius, size - radius, 2)
        angle = rng.uniform(0, 2 * np.pi)
        cos, sin = radius * np.cos(angle), radius * np.sin(angle)
        turn = np.array([[cos, sin], [-sin, cos]])
        corners = [np.rint(o @ turn + centre).astype(np.int32) for o in outlines]
        # When both are filled together, the second outline leaves a hole in the first.
        mask = cv2.fillPoly(np.zeros((size, size), np.uint8), corners, 1) > 0
        left = [(other & ~mask).sum() / area for other, area in zip(masks, areas)]
        if min(left, default=1.0) >= VISIBLE:
            return mask
    return None


def write_scenes(
    root: str,
    split: str,
    count: int,
    seed: int,
    size: int = SIZE,
    oriented: bool = False,
) -> Iterator[int]:
    """Draw scenes into COCO instance format and ADE-style label maps.

    This writes ``images/{split}/*.jpg``, ``labels/{split}/*.png`` (see
    :meth:`Scene.label_map`) and, last, ``annotations/{split}.json``, whose ``info``
    records the arguments. Scene ``i`` depends only on ``seed``, ``size`` and ``i``.

    Args:
        root: directory of the data set; created if missing.
        split: name of the part, such as 'train'.
        count: number of scenes.
        seed: seed of the scenes; different seeds give different scenes.
        size: side of the scenes in pixels.
        oriented: write ``annfiles/{split}/*.txt`` too, DOTA's form of oriented boxes:
            the smallest ones around the visible parts.

    Yields:
        The number of scenes done, so that a caller can show progress.

    Raises:
        ValueError: ``count``, ``seed`` or ``size`` is too small, or ``split`` is a
            path.
        FileExistsError: scenes have been written there before.
    """
    as_int('count', count, minimum=1)
    as_int('seed', seed, minimum=0)
    if not split or Path(split).name != split:
        raise ValueError(f'split must be the name of a folder, got {split!r}')
    if _annotation_file(root, split).exists():
        raise FileExistsError(
            f'{root} already has scenes of {split}: remove it to draw others'
        )
    kinds = ('images', 'labels', *['annfiles'] * as_bool('oriented', oriented))
    folders = {name: Path(root, name, split) for name in kinds}
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in range(count):
        scene = draw_scene(np.random.default_rng([seed, index]), size)
        name = f'{index:06d}'
        _write_image(folders['images'] / f'{name}.jpg', scene.image)
        _write_image(folders['labels'] / f'{name}.png', scene.label_map())
        if oriented:
            text = oriented_boxes(scene)
            write_whole(folders['annfiles'] / f'{name}.txt', text.encode())
        images.append(dict(id=index, file_name=f'{name}.jpg', height=size, width=size))
        for mask, label in zip(scene.masks, scene.labels):
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=index,
                    category_id=int(label) + 1,
                    iscrowd=0,
                    bbox=_bounding_box(mask),
                    area=int(mask.sum()),
                    segmentation=run_lengths(mask),
                )
            )
        yield index + 1
    content = dict(
        info=_info(count, seed, size, oriented),
        images=images,
        annotations=annotations,
        categories=[dict(id=i + 1, name=name) for i, name in enumerate(SHAPES)],
    )
    write_whole(_annotation_file(root, split), json.dumps(content).encode())


def has_scenes(
    root: str,
    split: str,
    count: int,
    seed: int,
    size: int = SIZE,
    oriented: bool = False,
) -> bool:
    """Return whether :func:`write_scenes` has finished with these arguments before."""
    path = _annotation_file(root, split)
    if not path.is_file():
        return False
    return json.loads(path.read_text())['info'] == _info(count, seed, size, oriented)


def oriented_boxes(scene: Scene) -> str:
    """Describe a scene's shapes as DOTA does, in a line each.

    A line has the four corners x1 y1 ... x4 y4 in pixels, the class, and how difficult
    the shape is, always 0.
    """
    lines = []
    for mask, label in zip(scene.masks, scene.labels):
        pixels = np.flip(np.argwhere(mask), axis=1).astype(np.float32)  # x, y
        corners = cv2.boxPoints(cv2.minAreaRect(pixels)).ravel()
        places = ' '.join(f'{value:.1f}' for value in corners)
        lines.append(f'{places} {SHAPES[label]} 0\n')
    return ''.join(lines)


def run_lengths(mask: np.ndarray) -> dict[str, list[int]]:
    """Encode a mask as COCO's uncompressed run lengths: by columns, zeros first."""
    pixels = np.concatenate([[False], mask.T.ravel()]).astype(np.int8)
    edges = np.flatnonzero(np.diff(pixels))
    counts = np.diff(np.concatenate([[0], edges, [mask.size]]))
    return dict(counts=counts.tolist(), size=list(mask.shape))


def _bounding_box(mask: np.ndarray) -> list[int]:
    """Return [x, y, width, height] in pixels."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    x, y = columns[0], rows[0]
    return [int(v) for v in (x, y, columns[-1] - x + 1, rows[-1] - y + 1)]


def _annotation_file(root: str, split: str) -> Path:
    return Path(root, 'annotations', f'{split}.json')


def _info(count: int, seed: int, size: int, oriented: bool) -> dict[str, Any]:
    info = dict(description='textured shapes', count=count, seed=seed, size=size)
    return dict(info, oriented=True) if oriented else info


def _write_image(path: Path, image: np.ndarray) -> None:
    if not cv2.imwrite(str(path), image):
        raise OSError(f'could not write {path}: is the disk full or read-only?')
