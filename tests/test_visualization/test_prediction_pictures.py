"""Pictures side by side keep their order and their colours."""

import numpy as np
import pytest

from dcls_mm.visualization import draw_side_by_side


def test_order(find_colour):
    colours = {'left': '#ff0000', 'middle': '#00ff00', 'right': '#0000ff'}
    pictures = {
        name: np.full((40, 60, 3), [int(c[i : i + 2], 16) for i in (1, 3, 5)], np.uint8)
        for name, c in colours.items()
    }
    image = draw_side_by_side(pictures, 'a picture')
    places = [find_colour(image, colour) for colour in colours.values()]
    assert places[0][1] + 100 < places[1][1] < places[2][1] - 100
    assert np.ptp([row for row, _ in places]) < 1


@pytest.mark.parametrize('sizes', [[], [(4, 4, 3), (4, 5, 3)]])
def test_sizes_that_differ(sizes):
    pictures = {str(size): np.zeros(size, np.uint8) for size in sizes}
    with pytest.raises(ValueError, match='of one size'):
        draw_side_by_side(pictures, '')
