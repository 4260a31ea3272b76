"""Several pictures in one."""

from collections.abc import Sequence

import cv2
import numpy as np


def draw_contact_sheet(
    rows: Sequence[Sequence[np.ndarray]], width: int = 1800
) -> np.ndarray:
    """Arrange pictures in rows of the same width.

    Args:
        rows: pictures from left to right, (height, width, 3) uint8 RGB. Those of a row
            are resized to the same height, keeping their proportions.
        width: width of the sheet in pixels.

    Raises:
        ValueError: there is no row, or one has no picture.
    """
    if not rows or not all(rows):
        raise ValueError('rows must be one or more, with at least one picture in each')
    return np.vstack([_row(row, width) for row in rows])


def _row(pictures: Sequence[np.ndarray], width: int) -> np.ndarray:
    ratios = [picture.shape[1] / picture.shape[0] for picture in pictures]
    height = max(1, round(width / sum(ratios)))
    edges = np.rint(np.cumsum([0, *ratios]) * width / sum(ratios)).astype(int)
    resized = [
        cv2.resize(picture, (int(part), height), interpolation=cv2.INTER_AREA)
        for picture, part in zip(pictures, np.diff(edges))
    ]
    return np.hstack(resized)
