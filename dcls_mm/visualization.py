"""Pictures of kernels and of metrics, as (height, width, 3) uint8 RGB arrays."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Union

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import load_checkpoint

from .layers import ConstructedConvNd

Curve = list[tuple[float, float]]


def load_kernels(config: str, checkpoint: str) -> dict[str, torch.Tensor]:
    """Construct the depthwise kernels of a trained model.

    Args:
        config: The file that the model was trained with.
        checkpoint: Its weights: a path, or a URL that mmengine knows.

    Returns:
        Name of the layer -> kernel, (channels, 1, height, width), for each layer that
        makes its kernel, has two axes and a group a channel.
    """
    cfg = Config.fromfile(config)
    init_default_scope(cfg.default_scope)
    model = MODELS.build(cfg.model)
    load_checkpoint(model, checkpoint, map_location='cpu', strict=True)
    return {
        name: module.kernel().detach()
        for name, module in model.named_modules()
        if isinstance(module, ConstructedConvNd)
        and module.ndim == 2
        and module.groups == module.in_channels
    }


def draw_kernels(kernels: Mapping[str, torch.Tensor], columns: int = 8) -> np.ndarray:
    """Draw some channels of depthwise kernels, one row of panels a layer.

    Channels are taken at even distances. Each panel is scaled by its own largest
    absolute weight, so that the shapes of weak kernels can be seen too.

    Args:
        kernels: Name of the layer -> kernel, (channels, 1, height, width).
        columns: How many channels to draw of a layer, at most.

    Raises:
        ValueError: If there is no kernel, or one is not of that shape.
    """
    if not kernels:
        raise ValueError('kernels is empty: the model has no layer that constructs one')
    for name, kernel in kernels.items():
        if kernel.ndim != 4 or kernel.shape[1] != 1:
            raise ValueError(
                f'kernels[{name!r}] must have shape (channels, 1, height, width), '
                f'got {tuple(kernel.shape)}'
            )
    size = (max(1.2 * columns + 1.4, 6), max(1.35 * len(kernels) + 0.6, 3))
    figure = Figure(figsize=size, dpi=110, layout='constrained')
    axes = figure.subplots(len(kernels), columns, squeeze=False)
    for row, (name, kernel) in zip(axes, kernels.items()):
        for axis in row:
            axis.set_axis_off()
        channels = np.linspace(0, len(kernel), columns, endpoint=False, dtype=int)
        for axis, channel in zip(row, np.unique(channels)):
            panel = _draw_panel(axis, kernel[channel, 0].detach().cpu().float().numpy())
            axis.set_title(f'channel {channel}', fontsize=7, pad=2)
        label = name.replace('.', '\n', 1)  # long names would not fit beside a row
        row[0].set_ylabel(f'{label}\nrow (pixels)', fontsize=7)
    for axis in axes[-1]:
        axis.set_xlabel('column (pixels)', fontsize=7)
    figure.suptitle(
        "Learned kernels, by offset from the centre in pixels of the layer's input",
        fontsize=10,
    )
    bar = figure.colorbar(panel, ax=axes, fraction=0.02, pad=0.01)
    bar.set_label('weight / largest |weight| of the kernel', fontsize=8)
    bar.ax.tick_params(labelsize=7)
    return _render(figure)


def _draw_panel(axis, weights: np.ndarray):
    height, width = weights.shape
    top, left = height // 2, width // 2
    edges = (-left - 0.5, width - left - 0.5, height - top - 0.5, -top - 0.5)
    scale = max(np.abs(weights).max(), np.finfo(np.float32).tiny)
    axis.set_axis_on()
    axis.set_xticks([-left, 0, width - left - 1])
    axis.set_yticks([-top, 0, height - top - 1])
    axis.tick_params(labelsize=6, length=2, pad=1)
    # Blue to red by way of white: told apart with any colour vision.
    return axis.imshow(weights / scale, cmap='RdBu_r', vmin=-1, vmax=1, extent=edges)


def draw_curves(
    curves: Mapping[str, Sequence[tuple[float, float]]],
    title: str,
    x_label: str = 'epoch',
    y_label: str = 'metric',
) -> np.ndarray:
    """Draw curves over a common axis; the y axis starts at 0.

    Args:
        curves: Name -> points (x, y).
        title: Stands above the picture.
        x_label: What x counts.
        y_label: What y measures, with its unit.
    """
    figure = Figure(figsize=(6.4, 4.2), dpi=110, layout='constrained')
    axis = figure.subplots()
    for (name, points), marker in zip(curves.items(), 'os^Dvp*X'):
        axis.plot(*zip(*points), marker=marker, label=f'{name}, {points[-1][1]:.3g}')
    axis.set(title=title, xlabel=x_label, ylabel=y_label)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3)
    axis.legend(title='last value')
    return _render(figure)


def read_curves(work_dir: Union[str, Path], metrics: Sequence[str]) -> dict[str, Curve]:
    """Read metrics that a training logged, joining the parts of a resumed one.

    Args:
        work_dir: Where the training ran.
        metrics: Keys as logged, such as 'coco/bbox_mAP_50'.

    Returns:
        Metric -> points (step, value) by step. Where a resumed training repeated a
        step, the later value counts.

    Raises:
        FileNotFoundError: If no training logged any scalars there.
        ValueError: If one of the metrics was never logged.
    """
    logs = sorted(Path(work_dir).glob('*/vis_data/scalars.json'))
    if not logs:
        raise FileNotFoundError(f'{work_dir} has no */vis_data/scalars.json to read')
    found: dict[str, dict[float, float]] = {metric: {} for metric in metrics}
    for log in logs:
        for line in log.read_text().splitlines():
            record = json.loads(line)
            for metric in found.keys() & record.keys():
                found[metric][record['step']] = record[metric]
    missing = sorted(metric for metric, points in found.items() if not points)
    if missing:
        raise ValueError(f'{work_dir} has no value of {", ".join(missing)}')
    return {metric: sorted(points.items()) for metric, points in found.items()}


def _render(figure: Figure) -> np.ndarray:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
