"""Pictures of one image side by side: ground truth and several models' predictions."""

from collections.abc import Mapping

import numpy as np

from ._figure import NORMAL, SMALL, new_figure, render, set_title

# Limits of a panel's width in inches.
_NARROWEST, _WIDEST = 4.0, 10.0


def draw_side_by_side(pictures: Mapping[str, np.ndarray], title: str) -> np.ndarray:
    """Put pictures of one image side by side, each under its name.

    Args:
        pictures: name -> (height, width, 3) uint8 RGB.
        title: title above the pictures.

    Raises:
        ValueError: there are no pictures, or they differ in size.
    """
    sizes = {picture.shape[:2] for picture in pictures.values()}
    if len(sizes) != 1:
        raise ValueError(
            f'pictures must be one or more of one size, got {sorted(sizes) or "none"}'
        )
    height, width = sizes.pop()
    panel = min(max(width / 110, _NARROWEST), _WIDEST)
    figure = new_figure(panel * len(pictures), panel * height / width + 1.0)
    axes = figure.subplots(1, len(pictures), squeeze=False)[0]
    for axis, (name, picture) in zip(axes, pictures.items()):
        axis.imshow(picture)
        set_title(axis, name, panel)
        axis.set_xlabel('column (pixels)', fontsize=8)
        axis.tick_params(labelsize=SMALL)
    axes[0].set_ylabel('row (pixels)', fontsize=8)
    figure.suptitle(title, fontsize=NORMAL)
    return render(figure)
