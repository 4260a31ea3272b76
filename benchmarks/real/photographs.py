"""Photographs of a folder laid out as COCO 2017 is, and what they show."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

SPLITS = ('train', 'val')


class Photograph(NamedTuple):
    """An image file with its annotated objects.

    Attributes:
        path: the file.
        split: 'train' or 'val'.
        objects: the category of each, and its box (left, top, right, bottom) as shares
            of the photograph's width and height.
    """

    path: Path
    split: str
    objects: list[tuple[str, tuple[float, ...]]]

    @property
    def shows(self) -> str:
        return ', '.join(sorted({name for name, _ in self.objects})) or 'none'


def find_photographs(folder: Path) -> list[Photograph]:
    """List the photographs of both splits; none if one has no annotations."""
    found: list[Photograph] = []
    for split in SPLITS:
        file = annotation_file(folder, split)
        if not file.is_file():
            return []
        content = json.loads(file.read_text())
        names = {item['id']: item['name'] for item in content['categories']}
        for image in sorted(content['images'], key=lambda image: image['id']):
            objects = [
                (names[item['category_id']], _shares(item['bbox'], image))
                for item in content['annotations']
                if item['image_id'] == image['id']
            ]
            path = folder / f'{split}2017' / image['file_name']
            found.append(Photograph(path, split, objects))
    return found


def _shares(box: list[float], image: dict) -> tuple[float, ...]:
    left, top, width, height = box
    corners = left, top, left + width, top + height
    return tuple(at / image[key] for at, key in zip(corners, 2 * ('width', 'height')))


def annotation_file(folder: Path, split: str) -> Path:
    return folder / 'annotations' / f'instances_{split}2017.json'


def class_names(folder: Path) -> list[str]:
    """Return the names of all categories, in the order of their ids."""
    content = json.loads(annotation_file(folder, SPLITS[0]).read_text())
    categories = content['categories']
    return [item['name'] for item in sorted(categories, key=lambda item: item['id'])]


def central_square(photograph: Photograph, size: int, part: float = 0.875) -> Tensor:
    """Return the centre of a photograph, (3, size, size), RGB from 0 to 255.

    Args:
        photograph: the photograph to read.
        size: pixels per side.
        part: the side of the square, of the photograph's shorter side.
    """
    with Image.open(photograph.path) as image:
        side = part * min(image.size)
        left, top = ((length - side) / 2 for length in image.size)
        return _resized(image, size, (left, top, left + side, top + side))


def random_square(
    photograph: Photograph, size: int, generator: torch.Generator
) -> Tensor:
    """Return some square of a photograph, (3, size, size), possibly mirrored.

    Its side is half to all of the photograph's shorter one.
    """
    part, across, down, mirror = torch.rand(4, generator=generator).tolist()
    with Image.open(photograph.path) as image:
        side = (0.5 + part / 2) * min(image.size)
        left, top = across * (image.width - side), down * (image.height - side)
        square = _resized(image, size, (left, top, left + side, top + side))
    return square.flip(2) if mirror < 0.5 else square


def squeezed(photograph: Photograph, size: int) -> Tensor:
    """Return a whole photograph, (3, size, size), whatever its aspect."""
    with Image.open(photograph.path) as image:
        return _resized(image, size, (0, 0, *image.size))


def _resized(image: Image.Image, size: int, box: tuple[float, ...]) -> Tensor:
    made = image.convert('RGB').resize((size, size), Image.Resampling.BICUBIC, box)
    return torch.from_numpy(np.array(made)).permute(2, 0, 1).float()
