"""Pictures of constructed kernels."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from ..layers import ConstructedConvNd
from ._figure import NORMAL, SMALL, new_figure, render, row_label


def depthwise_kernels(model: nn.Module) -> dict[str, torch.Tensor]:
    """Construct the depthwise kernels of a model.

    Returns:
        Name of the layer -> kernel, (channels, 1, height, width), for each layer that
        makes its kernel, the same for every image, and has two axes and one group per
        channel.
    """
    return {
        name: module.kernel().detach()
        for name, module in model.named_modules()
        if isinstance(module, ConstructedConvNd)
        and not module.kernel_depends_on_input
        and module.ndim == 2
        and module.groups == module.in_channels
    }


def draw_kernels(kernels: Mapping[str, torch.Tensor], columns: int = 8) -> np.ndarray:
    """Draw some channels of depthwise kernels, one row of panels per layer.

    The channels are evenly spaced. Each panel is scaled by its own largest absolute
    weight, so that the shapes of weak kernels are visible too.

    Args:
        kernels: name of the layer -> kernel, (channels, 1, height, width).
        columns: largest number of channels to draw per layer.

    Raises:
        ValueError: there is no kernel, or one has another shape.
    """
    if not kernels:
        raise ValueError('kernels is empty: the model has no layer that constructs one')
    for name, kernel in kernels.items():
        if kernel.ndim != 4 or kernel.shape[1] != 1:
            raise ValueError(
                f'kernels[{name!r}] must have shape (channels, 1, height, width), '
                f'got {tuple(kernel.shape)}'
            )
    columns = min(columns, max(map(len, kernels.values())))
    figure = new_figure(max(1.2 * columns + 1.4, 6), max(1.35 * len(kernels) + 0.6, 3))
    axes = figure.subplots(len(kernels), columns, squeeze=False)
    for row, (name, kernel) in zip(axes, kernels.items()):
        for axis in row:
            axis.set_axis_off()
        channels = np.linspace(0, len(kernel), columns, endpoint=False, dtype=int)
        for axis, channel in zip(row, np.unique(channels)):
            panel = _draw_panel(axis, kernel[channel, 0].detach().cpu().float().numpy())
            axis.set_title(f'channel {channel}', fontsize=SMALL, pad=2)
        row[0].set_ylabel(row_label(name, 'row (pixels)'), fontsize=SMALL)
    for axis in axes[-1]:
        axis.set_xlabel('column (pixels)', fontsize=SMALL)
    figure.suptitle(
        "Learned kernels, by offset from the centre in pixels of the layer's input",
        fontsize=NORMAL,
    )
    bar = figure.colorbar(panel, ax=axes, fraction=0.02, pad=0.01)
    bar.set_label('weight / largest |weight| of the kernel', fontsize=8)
    bar.ax.tick_params(labelsize=SMALL)
    return render(figure)


def _draw_panel(axis, weights: np.ndarray):
    height, width = weights.shape
    top, left = height // 2, width // 2
    edges = (-left - 0.5, width - left - 0.5, height - top - 0.5, -top - 0.5)
    scale = max(np.abs(weights).max(), np.finfo(np.float32).tiny)
    axis.set_axis_on()
    axis.set_xticks([-left, 0, width - left - 1])
    axis.set_yticks([-top, 0, height - top - 1])
    axis.tick_params(labelsize=6, length=2, pad=1)
    # Blue to white to red is distinguishable with any colour vision.
    return axis.imshow(weights / scale, cmap='RdBu_r', vmin=-1, vmax=1, extent=edges)
