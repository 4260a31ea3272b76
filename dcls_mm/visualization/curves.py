"""Curves of the metrics and of the positions that a training run logged."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ._figure import NORMAL, line_styles, new_figure, render

# What is logged of the positions of each stage -> what it measures.
POSITION_FIGURES = {
    'extent': 'extent (pixels)',
    'count': 'elements per kernel',
    'spread': 'spread (pixels)',
    'travel': 'travel from the start (pixels)',
}

Curve = list[tuple[float, float]]


def draw_curves(
    curves: Mapping[str, Sequence[tuple[float, float]]],
    title: str,
    x_label: str = 'epoch',
    y_label: str = 'metric',
) -> np.ndarray:
    """Draw curves in common axes; the y axis starts at 0.

    Args:
        curves: name -> points (x, y).
        title: title of the picture.
        x_label: what x counts.
        y_label: what y measures, with its unit.
    """
    figure = new_figure(6.4, 4.2 + 0.1 * len(curves))
    axis = figure.subplots()
    for (name, points), style in zip(curves.items(), line_styles()):
        axis.plot(*zip(*points), **style, label=f'{name}, {points[-1][1]:.3g}')
    axis.set(title=title, xlabel=x_label, ylabel=y_label)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3)
    # Inside the axes, the legend would cover curves.
    figure.legend(title='last value', loc='outside lower center', ncols=2, fontsize=8)
    return render(figure)


def draw_position_curves(
    curves: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]],
) -> np.ndarray:
    """Draw how the positions of each stage developed, one panel per figure.

    Args:
        curves: figure -> stage -> points, from :func:`read_position_curves`.
    """
    stages = list(dict.fromkeys(name for lines in curves.values() for name in lines))
    styles = dict(zip(stages, line_styles()))
    figure = new_figure(9.6, 6.4 + 0.1 * len(stages))
    for axis, (name, label) in zip(
        figure.subplots(2, 2).flat, POSITION_FIGURES.items()
    ):
        for stage, points in curves.get(name, {}).items():
            axis.plot(*zip(*points), **styles[stage], markersize=3, label=stage)
        axis.set(xlabel='iteration', ylabel=label)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    lines = [Line2D([], [], **styles[stage], label=stage) for stage in stages]
    figure.legend(handles=lines, loc='outside lower center', ncols=2, fontsize=8)
    figure.suptitle('Learned positions during the training', fontsize=NORMAL)
    return render(figure)


def read_position_curves(work_dir: str | Path) -> dict[str, dict[str, Curve]]:
    """Read what ``PositionsLogHook`` logged, joining the parts of a resumed training.

    Args:
        work_dir: where the training ran.

    Returns:
        Figure ('extent', 'count', 'spread', 'travel') -> stage -> points (iteration,
        value), by iteration; see :func:`read_curves`.

    Raises:
        FileNotFoundError: no training run logged scalars there.
        ValueError: nothing was logged about positions, or a log is damaged.
    """
    found: dict[str, dict[str, dict[float, float]]] = {
        figure: {} for figure in POSITION_FIGURES
    }
    for record in _all_records(work_dir):
        for key, value in record.items():
            kind, _, stage_and_figure = key.partition('/')
            stage, _, figure = stage_and_figure.rpartition('/')
            if kind == 'positions' and stage and figure in found:
                found[figure].setdefault(stage, {})[record['step']] = value
    if not any(found.values()):
        raise ValueError(
            f'{work_dir} has no figures of positions: train with tools/train.py, or '
            "with dict(type='PositionsLogHook') in custom_hooks"
        )
    return {
        figure: {stage: sorted(points.items()) for stage, points in lines.items()}
        for figure, lines in found.items()
    }


def read_curves(work_dir: str | Path, metrics: Sequence[str]) -> dict[str, Curve]:
    """Read metrics that a training run logged, joining the parts of a resumed one.

    A last line that was cut off, as by a kill or a full disk, is ignored.

    Args:
        work_dir: where the training ran.
        metrics: keys as logged, such as 'coco/bbox_mAP_50'.

    Returns:
        Metric -> points (step, value) by step. If a resumed run repeated a step, the
        later value counts.

    Raises:
        FileNotFoundError: no training run logged scalars there.
        ValueError: a metric was never logged, or a log is damaged.
    """
    found: dict[str, dict[float, float]] = {metric: {} for metric in metrics}
    for record in _all_records(work_dir):
        for metric in found.keys() & record.keys():
            found[metric][record['step']] = record[metric]
    missing = sorted(metric for metric, points in found.items() if not points)
    if missing:
        raise ValueError(f'{work_dir} has no value of {", ".join(missing)}')
    return {metric: sorted(points.items()) for metric, points in found.items()}


def _all_records(work_dir: str | Path) -> Iterator[dict]:
    """Yield the lines of all logs of a training, in the order of its parts."""
    logs = sorted(Path(work_dir).glob('*/vis_data/scalars.json'))
    if not logs:
        raise FileNotFoundError(f'{work_dir} has no */vis_data/scalars.json to read')
    for log in logs:
        yield from _records(log)


def _records(log: Path) -> Iterator[dict]:
    """Yield the lines of a log as {key: value}; only the last one may be incomplete."""
    lines = log.read_bytes().splitlines()
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except ValueError as error:
            if number == len(lines):
                return
            raise ValueError(f'{log}, line {number}: damaged ({error})') from error
        if not isinstance(record, dict):
            raise ValueError(f'{log}, line {number}: must be a record, got {record!r}')
        yield record
