"""Pictures of learned positions: where the elements are, and how they moved."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from ..analysis.elements import LayerElements, at_border
from ..analysis.progress import mean_distance
from ._figure import COLOURS, DENSITY, NORMAL, SMALL, new_figure, render, row_label

# More points than this make no visible difference.
_SCATTERED = 5000
# Margin around the extent in pixels.
_MARGIN = 1.0


def draw_positions(elements: Mapping[str, LayerElements]) -> np.ndarray:
    """Draw where elements are, one row of panels for each set of positions.

    From left to right: the elements of all kernels as points, with those at the border
    marked; their density per pixel; their distribution along each axis.

    Args:
        elements: elements by layer from ``analysis.collect_elements``.

    Raises:
        ValueError: no layer has positions along two axes.
    """
    elements = _planar(elements)
    figure = new_figure(10, 2.9 * len(elements) + 0.7)
    axes = figure.subplots(len(elements), 3, squeeze=False)
    for row, (name, layer) in zip(axes, elements.items()):
        points = layer.positions.reshape(-1, 2)
        _draw_scatter(row[0], points, layer.limits)
        density = _draw_density(row[1], points, layer.limits)
        bar = figure.colorbar(density, ax=row[1], fraction=0.05, pad=0.02)
        bar.set_label('elements per kernel and pixel', fontsize=SMALL)
        bar.ax.tick_params(labelsize=SMALL)
        density.set_array(density.get_array() / len(layer.positions))
        density.autoscale()
        _draw_marginals(row[2], points, layer.limits)
        row[0].set_ylabel(row_label(name, 'row (pixels)'), fontsize=SMALL)
        kernels, count = layer.positions.shape[:2]
        row[0].set_title(f'{kernels} kernels of {count} elements', fontsize=SMALL)
        row[1].set_title('density', fontsize=SMALL)
        row[2].set_title('along each axis', fontsize=SMALL)
    figure.legend(
        handles=[
            _marker('blue', 'element'),
            _marker('vermillion', 'element within half a pixel of the border'),
            Line2D([], [], color='black', linestyle='--', label='limit of positions'),
        ],
        loc='outside lower center',
        ncols=3,
        fontsize=8,
    )
    figure.suptitle(
        "Learned positions, by offset from the centre in pixels of the layer's input",
        fontsize=NORMAL,
    )
    return render(figure)


def draw_histograms(elements: Mapping[str, LayerElements]) -> np.ndarray:
    """Draw the distribution of positions along each learned axis, one panel per layer.

    Unlike ``draw_positions``, this supports any number of axes.

    Raises:
        ValueError: there are no layers.
    """
    if not elements:
        raise ValueError('elements is empty: the model has no layer with positions')
    columns = min(3, len(elements))
    rows = -(-len(elements) // columns)
    figure = new_figure(max(3.6 * columns, 5), 2.6 * rows + 0.6)
    panels = figure.subplots(rows, columns, squeeze=False).flat
    # With the layers first, zip consumes only the panels that they fill.
    for (name, layer), panel in zip(elements.items(), panels):
        points = layer.positions.reshape(-1, len(layer.axes))
        _draw_marginals(panel, points, layer.limits, layer.axes)
        panel.set_title(name, fontsize=SMALL)
    for panel in panels:
        panel.set_axis_off()
    figure.suptitle('Learned positions along each axis', fontsize=NORMAL)
    return render(figure)


def draw_movement(
    tracks: Sequence[Mapping[str, LayerElements]],
    steps: Sequence[float],
    unit: str = 'epoch',
    columns: int = 5,
) -> np.ndarray:
    """Draw the path of each element of some kernels, one row of panels per layer.

    Args:
        tracks: elements of one model at several times.
        steps: these times, one per track.
        unit: unit of the times.
        columns: largest number of kernels to draw per layer, evenly spaced.

    Raises:
        ValueError: there are fewer than two times, the models differ, or no layer has
            positions along two axes.
    """
    _check_tracks(tracks, steps)
    last = _planar(tracks[-1])
    columns = min(columns, max(len(layer.positions) for layer in last.values()))
    figure = new_figure(max(2.1 * columns + 0.6, 6), 2.2 * len(last) + 0.9)
    axes = figure.subplots(len(last), columns, squeeze=False)
    for row, (name, layer) in zip(axes, last.items()):
        ways = np.stack([track[name].positions for track in tracks])
        chosen = np.linspace(0, ways.shape[1], columns, endpoint=False, dtype=int)
        chosen = np.unique(chosen)
        for axis in row[len(chosen) :]:
            axis.set_axis_off()
        for axis, kernel in zip(row, chosen):
            rows, cols = ways[:, kernel, :, 0], ways[:, kernel, :, 1]
            axis.plot(cols, rows, color=COLOURS['blue'], linewidth=0.8, alpha=0.7)
            axis.plot(
                cols[0], rows[0], 'o', markersize=2.5, mfc='white', mec=COLOURS['blue']
            )
            axis.plot(
                cols[-1], rows[-1], 'o', markersize=2.5, color=COLOURS['vermillion']
            )
            _frame(axis, layer.limits)
            axis.set_title(f'kernel {kernel}', fontsize=SMALL, pad=2)
        row[0].set_ylabel(row_label(name, 'row (pixels)'), fontsize=SMALL)
    for axis in axes[-1]:
        axis.set_xlabel('column (pixels)', fontsize=SMALL)
    figure.legend(
        handles=[
            _marker('blue', f'at {unit} {steps[0]}', hollow=True),
            Line2D([], [], color=COLOURS['blue'], label='between'),
            _marker('vermillion', f'at {unit} {steps[-1]}'),
            Line2D([], [], color='black', linestyle='--', label='limit of positions'),
        ],
        loc='outside lower center',
        ncols=4,
        fontsize=8,
    )
    figure.suptitle(
        f'How elements moved from {unit} {steps[0]} to {steps[-1]}, '
        'by offset from the centre in pixels',
        fontsize=NORMAL,
    )
    return render(figure)


def displacement(
    tracks: Sequence[Mapping[str, LayerElements]], steps: Sequence[float]
) -> dict[str, list[tuple[float, float]]]:
    """Compute the mean distance of the elements from where they were at first.

    Args:
        tracks, steps: as for ``draw_movement``, with any number of axes.

    Returns:
        Layer -> points (step, pixels), for ``draw_curves``.

    Raises:
        ValueError: there are fewer than two times, or the models differ.
    """
    _check_tracks(tracks, steps)
    return {
        name: [
            (step, mean_distance(first.positions, track[name].positions))
            for step, track in zip(steps, tracks)
        ]
        for name, first in tracks[0].items()
    }


def _planar(elements: Mapping[str, LayerElements]) -> dict[str, LayerElements]:
    """Select the layers with positions along two axes, which pictures need.

    Raises:
        ValueError: there are none.
    """
    found = {name: layer for name, layer in elements.items() if len(layer.axes) == 2}
    if not found:
        raise ValueError('the model has no layer with positions along two axes to draw')
    return found


def _check_tracks(
    tracks: Sequence[Mapping[str, LayerElements]], steps: Sequence[float]
) -> None:
    """Raise a ValueError unless these are two or more times of one model."""
    if len(tracks) < 2 or len(tracks) != len(steps):
        raise ValueError(
            'tracks must hold the elements at two or more times, and steps as many '
            f'numbers, got {len(tracks)} and {len(steps)}'
        )
    shapes = [
        {name: layer.positions.shape for name, layer in track.items()}
        for track in tracks
    ]
    if any(one != shapes[0] for one in shapes) or not shapes[0]:
        raise ValueError(
            'tracks must be of one model with DCLS layers; the layers, or the shapes '
            'of their positions, differ between the times'
        )


def _draw_scatter(axis, points: np.ndarray, limits) -> None:
    if len(points) > _SCATTERED:
        points = points[:: -(-len(points) // _SCATTERED)]
    border = at_border(points, limits)
    for some, colour in ((~border, 'blue'), (border, 'vermillion')):
        axis.scatter(
            points[some, 1],
            points[some, 0],
            s=3,
            alpha=0.35,
            linewidths=0,
            color=COLOURS[colour],
        )
    _frame(axis, limits)
    axis.set_xlabel('column (pixels)', fontsize=SMALL)


def _draw_density(axis, points: np.ndarray, limits):
    (top, bottom), (left, right) = limits
    edges = [np.arange(a, b + 2) - 0.5 for a, b in limits]
    inside = points.clip([top, left], [bottom, right])
    counts, _, _ = np.histogram2d(*inside.T, bins=edges)
    image = axis.imshow(
        counts,
        cmap=DENSITY,
        extent=(left - 0.5, right + 0.5, bottom + 0.5, top - 0.5),
    )
    _mark_taps(axis, limits)
    axis.set_xlabel('column (pixels)', fontsize=SMALL)
    axis.set_ylabel('row (pixels)', fontsize=SMALL)
    return image


def _draw_marginals(axis, points: np.ndarray, limits, axes=(0, 1)) -> None:
    names = ('row', 'column') if tuple(axes) == (0, 1) else [f'axis {i}' for i in axes]
    styles = zip(COLOURS.values(), ('-', '--', ':'))
    for along, (first, last), name, (colour, line) in zip(
        points.T, limits, names, styles
    ):
        counts, _ = np.histogram(
            along.clip(first, last), np.arange(first, last + 2) - 0.5
        )
        shares = 100 * counts / len(along)
        taps = np.arange(first, last + 1)
        axis.step(taps, shares, where='mid', color=colour, linestyle=line, label=name)
    axis.set_xlabel('offset from the centre (pixels)', fontsize=SMALL)
    axis.set_ylabel('elements (%)', fontsize=SMALL)
    axis.set_ylim(0, 1.25 * axis.dataLim.ymax)  # room for the legend above the lines
    axis.tick_params(labelsize=6, length=2, pad=1)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=SMALL, loc='upper right', ncols=3)


def _frame(axis, limits) -> None:
    """Draw the limits as a rectangle; rows count downwards, as in an image."""
    (top, bottom), (left, right) = limits
    axis.add_patch(
        Rectangle(
            (left, top),
            right - left,
            bottom - top,
            fill=False,
            linestyle='--',
            linewidth=0.8,
        )
    )
    axis.set_aspect('equal')
    axis.set_xlim(left - _MARGIN, right + _MARGIN)
    axis.set_ylim(bottom + _MARGIN, top - _MARGIN)
    _mark_taps(axis, limits)


def _mark_taps(axis, limits) -> None:
    """Put ticks at the first tap, the centre and the last tap of both axes."""
    for ticks, (first, last) in zip((axis.set_yticks, axis.set_xticks), limits):
        ticks(sorted({first, 0, last}))
    axis.tick_params(labelsize=6, length=2, pad=1)


def _marker(colour: str, label: str, hollow: bool = False) -> Line2D:
    return Line2D(
        [],
        [],
        color=COLOURS[colour],
        marker='o',
        markersize=4,
        markerfacecolor='white' if hollow else COLOURS[colour],
        linestyle='',
        label=label,
    )
