"""What all pictures share: colours, fonts and rendering to arrays."""

from itertools import cycle
from textwrap import fill

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Okabe and Ito's colours, which are distinguishable with any colour vision, without
# black and without yellow, which is hard to see on white.
COLOURS = {
    'blue': '#0072B2',
    'vermillion': '#D55E00',
    'green': '#009E73',
    'purple': '#CC79A7',
    'orange': '#E69F00',
    'sky': '#56B4E9',
}
DENSITY = 'cividis'  # perceptually uniform for any colour vision

SMALL, NORMAL = 7, 10  # font sizes in points


def line_styles():
    """Yield a colour and a marker for one line after another, endlessly."""
    markers = 'os^Dvp*X'
    return (
        {'color': c, 'marker': m}
        for c, m in zip(cycle(COLOURS.values()), cycle(markers))
    )


def new_figure(width: float, height: float) -> Figure:
    """Make an empty figure of a size in inches, at 110 pixels per inch."""
    return Figure(figsize=(width, height), dpi=110, layout='constrained')


def row_label(name: str, quantity: str) -> str:
    """Label a row of panels, breaking names that would not fit on one line."""
    return '{}\n{}'.format(name.replace('.', '\n', 1), quantity)


def set_title(axis, name: str, width: float) -> None:
    """Put a name above a panel of a width in inches, on as many lines as it needs."""
    axis.set_title(fill(name, int(12 * width)), fontsize=9)


def render(figure: Figure) -> np.ndarray:
    """Render a figure to a (height, width, 3) uint8 RGB array."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
