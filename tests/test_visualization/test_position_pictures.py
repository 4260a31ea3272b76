"""Pictures of positions show where elements are, and which way they went."""

from dataclasses import replace

import numpy as np
import pytest
from torch import nn

from dcls_mm.analysis import collect_elements
from dcls_mm.layers import DCLSConv1d, DCLSConv3d
from dcls_mm.visualization import (
    displacement,
    draw_histograms,
    draw_movement,
    draw_positions,
)

BLUE, VERMILLION = '#0072B2', '#D55E00'


def moved(elements, by):
    return {
        name: replace(layer, positions=layer.positions + np.float32(by))
        for name, layer in elements.items()
    }


def centre_of_change(one, other):
    rows, columns = np.nonzero((one != other).any(-1))
    return rows.mean(), columns.mean()


def test_scatter_and_density_lie_as_an_image_does(elements_at):
    """Row -5 is above row 5, column -2 left of column 6."""
    centre, one, other = (
        draw_positions(elements_at(place)) for place in ((0, 0), (-5, -2), (5, 6))
    )
    width = centre.shape[1]
    for part in (slice(0, width // 3), slice(width // 3, width * 19 // 32)):
        # Half of each change is the one at the centre, the same for both.
        first, second = (
            centre_of_change(centre[:, part], picture[:, part])
            for picture in (one, other)
        )
        assert second[0] > first[0] + 20 and second[1] > first[1] + 20


def test_density_tells_rows_from_columns(elements_at):
    """A row of elements is as wide as a column of them is high."""
    line = [(0.0, float(i)) for i in range(-6, 7)]
    row = draw_positions(elements_at(*line))
    column = draw_positions(elements_at(*(place[::-1] for place in line)))
    middle = slice(row.shape[1] * 6 // 16, row.shape[1] * 9 // 16)

    def shape(image):
        bright = image[60:-130, middle].astype(int)
        rows, columns = np.nonzero(bright[..., 0] - bright[..., 2] > 100)
        return np.ptp(rows), np.ptp(columns)

    height, width = shape(row)
    assert width > 5 * height and shape(column)[0] > 5 * shape(column)[1]


def test_border_is_marked(elements_at):
    """Only the legend has the colour unless a position is past 7.5; the limit is 8."""
    place = np.s_[60:-60, :300]
    for row, marked in ((7.4, False), (7.6, True), (-7.6, True)):
        panel = draw_positions(elements_at((row, 0.0)))[place].astype(int)
        reddish = (panel[..., 0] - panel[..., 2] > 30).any()
        assert reddish == marked, row


def test_movement_goes_from_start_to_end(elements_at, find_colour):
    start = elements_at((0.0, -6.0))
    there = draw_movement([start, moved(start, [0, 12])], [0, 1], columns=1)
    back = draw_movement([moved(start, [0, 12]), start], [0, 1], columns=1)
    panel = np.s_[30:-60]
    assert (
        find_colour(back[panel], VERMILLION)[1] + 50
        < find_colour(there[panel], VERMILLION)[1]
    )


def test_displacement_is_the_mean_distance(elements_at):
    start = elements_at((0.0, 0.0), (1.0, 1.0))
    tracks = [start, moved(start, [3, 4]), moved(start, [0, 1])]
    assert displacement(tracks, [2, 5, 7]) == {'layer': [(2, 0.0), (5, 5.0), (7, 1.0)]}


@pytest.mark.parametrize('layer, axes', [(DCLSConv1d, 1), (DCLSConv3d, 3)])
def test_any_number_of_axes(layer, axes):
    model = nn.Sequential(layer(1, 1, 3, dilated_kernel_size=9))
    elements = collect_elements(model)
    assert elements['0'].positions.shape == (1, 3**axes, axes)
    drawn = draw_histograms(elements)
    assert (drawn != draw_histograms(moved(elements, 3))).any()
    assert displacement([elements, moved(elements, 2)], [0, 1])['0'][1][
        1
    ] == pytest.approx(2 * axes**0.5, rel=1e-5)
    with pytest.raises(ValueError, match='no layer with positions along two axes'):
        draw_positions(elements)


def test_no_panel_is_left_empty(elements_at):
    """Four layers leave two of six panels, which stay white."""
    (layer,) = elements_at((0.0, 0.0)).values()
    picture = draw_histograms({str(i): layer for i in range(4)})
    height, width = picture.shape[:2]
    assert (picture[height // 2 + 20 :, width * 3 // 8 :] == 255).all()
    assert (picture[height // 2 + 20 :, : width * 3 // 8] != 255).any()


def test_tracks_that_do_not_fit(elements_at):
    one, other = elements_at((0.0, 0.0)), elements_at((0.0, 0.0), (1.0, 1.0))
    for tracks, steps, message in (
        ([one], [0], 'two or more times'),
        ([one, one], [0], 'got 2 and 1'),
        ([one, other], [0, 1], 'must be of one model'),
        ([{}, {}], [0, 1], 'must be of one model'),
    ):
        with pytest.raises(ValueError, match=message):
            draw_movement(tracks, steps)
    with pytest.raises(ValueError, match='elements is empty'):
        draw_histograms({})
