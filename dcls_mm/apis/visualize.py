"""Pictures of what a model learned: kernels, positions and their movement."""

import os
import re
from typing import Any

from torch import nn

from .. import analysis, visualization
from ..checkpoint.matching import load_matching
from ..checkpoint.resumable import TEMPLATES
from ..checks.arguments import check_positive
from ..checks.errors import ConfigError, errors_about
from .outputs import check_folder, check_picture, write_picture
from .trained import load_trained, read_trained

# The most panels side by side; matplotlib takes minutes to lay out hundreds.
MOST_COLUMNS = 32


def plot_kernels(
    config: str,
    checkpoint: str,
    out: str,
    columns: int = 8,
    cfg_options: dict[str, Any] | None = None,
) -> str:
    """Draw the constructed depthwise kernels of a model.

    Args:
        config: the model's config file.
        checkpoint: the weights: a path, or a URL that mmengine knows.
        out: the PNG file to write.
        columns: how many channels per layer to draw.
        cfg_options: overrides of the config, by dotted key.

    Returns:
        What was written.

    Raises:
        ConfigError: the config or an option can't be used, or there is nothing to draw.
        CheckpointError: the checkpoint can't be read, or belongs to another model.
    """
    _check_columns(columns)
    check_picture(out)
    model = load_trained(config, checkpoint, cfg_options).model
    with errors_about(checkpoint):
        kernels = visualization.depthwise_kernels(model)
        picture = visualization.draw_kernels(kernels, columns)
    return write_picture(out, picture)


def plot_positions(
    config: str,
    checkpoint: str,
    out: str,
    cfg_options: dict[str, Any] | None = None,
) -> str:
    """Draw where the elements of a model lie; see ``plot_kernels``."""
    check_picture(out)
    model = load_trained(config, checkpoint, cfg_options).model
    elements = model_elements(model, checkpoint)
    with errors_about(checkpoint):
        picture = visualization.draw_positions(elements)
    return write_picture(out, picture)


def plot_movement(
    config: str,
    work_dir: str,
    out: str,
    columns: int = 5,
    cfg_options: dict[str, Any] | None = None,
) -> str:
    """Draw how elements moved between the checkpoints of a training.

    Args:
        config, cfg_options: see ``plot_kernels``.
        work_dir: the folder with its checkpoints, ``epoch_*.pth`` or ``iter_*.pth``.
        out: the folder for movement.png, the paths of the elements of some kernels, and
            displacement.png, the mean distance per layer.
        columns: how many kernels per layer to draw.

    Raises:
        ConfigError: see ``plot_kernels``; or there are fewer than two checkpoints.
        CheckpointError: one can't be read, or belongs to another model.
    """
    _check_columns(columns)
    folder = check_folder(out)
    unit, files = _training_checkpoints(work_dir)
    steps = list(files)
    model = load_trained(config, files[steps[0]], cfg_options).model
    tracks = [model_elements(model, files[steps[0]])]
    for step in steps[1:]:
        load_matching(model, read_trained(files[step]), files[step])
        tracks.append(model_elements(model, files[step]))
    with errors_about(work_dir):
        ways = visualization.draw_movement(tracks, steps, unit, columns)
    curves = visualization.draw_curves(
        visualization.displacement(tracks, steps),
        f'Displacement of the elements since {unit} {steps[0]}',
        unit,
        'mean distance (pixels)',
    )
    write_picture(folder / 'movement.png', ways)
    write_picture(folder / 'displacement.png', curves)
    return f'{folder}: movement.png, displacement.png'


def plot_position_curves(work_dir: str, out: str) -> str:
    """Draw extent, count, spread and travel of the positions over a training.

    Args:
        work_dir: the folder of the training, with its logs.
        out: the PNG file to write.

    Raises:
        ConfigError: the logs can't be read, or have nothing about positions.
    """
    check_picture(out)
    with errors_about('WORK_DIR', (FileNotFoundError, ValueError)):
        curves = visualization.read_position_curves(work_dir)
    return write_picture(out, visualization.draw_position_curves(curves))


def _check_columns(columns: int) -> None:
    check_positive(columns=columns)
    if columns > MOST_COLUMNS:
        raise ConfigError(f'--columns must be at most {MOST_COLUMNS}, got {columns}')


def model_elements(
    model: nn.Module, checkpoint: str
) -> dict[str, analysis.LayerElements]:
    """Return the elements of a model, or raise a ConfigError if it has none."""
    with errors_about(checkpoint):
        elements = analysis.collect_elements(model)
    if not elements:
        raise ConfigError(
            f'{checkpoint}: the model has no DCLS layers, so there are no positions'
        )
    return elements


def _training_checkpoints(work_dir: str) -> tuple[str, dict[int, str]]:
    """Return 'epoch' or 'iteration', and the checkpoints by number, in order."""
    if not os.path.isdir(work_dir):
        raise ConfigError(f'{work_dir} is not a folder (looked in {os.getcwd()})')
    for unit, template in zip(('epoch', 'iteration'), TEMPLATES):
        pattern = re.escape(template).replace(r'\{\}', r'(\d+)')
        found = {
            int(match[1]): os.path.join(work_dir, name)
            for name in os.listdir(work_dir)
            if (match := re.fullmatch(pattern, name))
        }
        if len(found) > 1:
            return unit, dict(sorted(found.items()))
    raise ConfigError(
        f'{work_dir} must have at least two checkpoints, {" or ".join(TEMPLATES)}; '
        'train with default_hooks.checkpoint.max_keep_ckpts=-1 to keep all'
    )
