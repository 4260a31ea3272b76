"""What ``tools/analysis_tools/{visualize,tuning_report}.py`` do: files of pictures."""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Optional

import mmcv
import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS
from mmengine.runner import CheckpointLoader
from mmengine.utils import track_iter_progress
from torch import Tensor, nn

from .. import tuning, visualization
from .checkpoint_hooks import load_matching
from .config_checks import ConfigError, check_data
from .inference import build_inferencer, list_images
from .launch import load_config
from .models import load_model
from .outputs import check_folder, check_picture, write_file, write_picture
from .resume import TEMPLATES
from .scopes import innermost_dataset

# What reads an image and its truth, and what packs them; the rest changes the image.
_TRUTH_STEPS = re.compile(r'Load\w*|Pack\w*')


def plot_kernels(
    config: str,
    checkpoint: str,
    out: str,
    columns: int = 8,
    cfg_options: Optional[dict[str, Any]] = None,
) -> str:
    """Draws the constructed depthwise kernels of a model.

    Args:
        config: The file of the model.
        checkpoint: The weights: a path, or a URL that mmengine knows.
        out: The PNG file to write.
        columns: How many channels of a layer to draw.
        cfg_options: What to override in the config, by dotted key.

    Returns:
        What was written.

    Raises:
        ConfigError: the config or an option can't be used, or there is nothing to draw.
        CheckpointError: the checkpoint can't be read, or is of another model.
    """
    _check_positive(columns=columns)
    check_picture(out)
    model = _load(config, checkpoint, cfg_options)
    kernels = visualization.depthwise_kernels(model)
    draw = partial(visualization.draw_kernels, kernels, columns)
    return write_picture(out, _explained(checkpoint, draw))


def plot_positions(
    config: str,
    checkpoint: str,
    out: str,
    cfg_options: Optional[dict[str, Any]] = None,
) -> str:
    """Draws where the elements of a model lie; see ``plot_kernels``."""
    check_picture(out)
    elements = _elements(_load(config, checkpoint, cfg_options), checkpoint)
    draw = partial(visualization.draw_positions, elements)
    return write_picture(out, _explained(checkpoint, draw))


def plot_movement(
    config: str,
    work_dir: str,
    out: str,
    columns: int = 5,
    cfg_options: Optional[dict[str, Any]] = None,
) -> str:
    """Draws how elements moved between the checkpoints of a training.

    Args:
        config: See ``plot_kernels``, as for cfg_options.
        work_dir: The folder with its checkpoints, epoch_*.pth or iter_*.pth.
        out: The folder that gets movement.png, the ways of the elements of some
            kernels, and displacement.png, the mean distance by layer.
        columns: How many kernels of a layer to draw.

    Raises:
        ConfigError: see ``plot_kernels``; or there are not two checkpoints.
        CheckpointError: one can't be read, or is of another model.
    """
    _check_positive(columns=columns)
    folder = check_folder(out)
    unit, files = _training_checkpoints(work_dir)
    steps = list(files)
    model = _load(config, files[steps[0]], cfg_options)
    tracks = [_elements(model, files[steps[0]])]
    for step in steps[1:]:
        load_matching(model, _read(files[step]), files[step])
        tracks.append(_elements(model, files[step]))
    draw = partial(visualization.draw_movement, tracks, steps, unit, columns)
    ways = _explained(work_dir, draw)
    curves = visualization.draw_curves(
        visualization.displacement(tracks, steps),
        f'Displacement of the elements since {unit} {steps[0]}',
        unit,
        'mean distance (pixels)',
    )
    write_picture(folder / 'movement.png', ways)
    write_picture(folder / 'displacement.png', curves)
    return f'{folder}: movement.png, displacement.png'


def plot_receptive_field(
    config: str,
    checkpoint: str,
    out: str,
    against: Optional[Sequence[str]] = None,
    names: Optional[Sequence[str]] = None,
    images: Optional[str] = None,
    count: int = 10,
    shape: Sequence[int] = (1024, 1024),
    level: int = -1,
    shares: Sequence[float] = visualization.SHARES,
    cfg_options: Optional[dict[str, Any]] = None,
) -> str:
    """Draws the effective receptive field of one or two backbones, and measures it.

    Args:
        config: See ``plot_kernels``, as for checkpoint and out. A model without a
            ``backbone`` is taken for one itself.
        against: Config and checkpoint of the model beside it.
        names: What to call them; by default their configs and checkpoints.
        images: An image or a folder of them, which are resized to ``shape`` and
            prepared as the model has it; by default noise, N(0, 1) a pixel.
        count: How many images to take, at most.
        shape: Height and width in pixels.
        level: Which of the backbone's outputs.
        shares: Of the contribution, whose squares are drawn and measured.
        cfg_options: What to override in both configs, by dotted key.

    Returns:
        A table of the squares' sides.

    Raises:
        ConfigError, CheckpointError: see ``plot_kernels``.
    """
    _check_positive(count=count, shape=min(shape))
    if any(not 0 < share < 1 for share in shares):
        raise ConfigError(
            f'--shares must lie between 0 and 1, got {" ".join(map(str, shares))}'
        )
    check_picture(out)
    files = None if images is None else list_images(images)[:count]
    fields = {}
    for name, (one, weights) in _models(config, checkpoint, against, names).items():
        model = _load(one, weights, cfg_options)
        backbone = getattr(model, 'backbone', model)
        if files is None:
            prepared = visualization.noise_images(count, tuple(shape))
        else:
            prepared = _prepared(model, files, shape)
        measure = partial(visualization.receptive_field, backbone, prepared, level)
        fields[name] = _explained(weights, measure)
    picture = visualization.draw_receptive_fields(fields, shares)
    return f'{write_picture(out, picture)}\n{_sides(fields, shares)}'


def plot_predictions(
    config: str,
    checkpoint: str,
    out: str,
    against: Optional[Sequence[str]] = None,
    names: Optional[Sequence[str]] = None,
    images: Optional[str] = None,
    count: int = 10,
    score_threshold: float = 0.3,
    device: Optional[str] = None,
    cfg_options: Optional[dict[str, Any]] = None,
) -> str:
    """Draws the predictions of one or two models side by side.

    Args:
        config: See ``plot_kernels``, as for checkpoint.
        out: The folder that gets a picture an image.
        against, names: See ``plot_receptive_field``.
        images: An image, or a folder of them. By default those of the first config's
            test_dataloader, with what is true on the left.
        count: How many images to take, at most.
        score_threshold: The least score of an object that is drawn; mmdet only.
        device: As torch names it; by default the GPU where there is one.
        cfg_options: What to override in both configs, by dotted key.

    Returns:
        What was written.

    Raises:
        ConfigError: see ``plot_kernels``; or one model detects, the other segments.
        CheckpointError: see ``plot_kernels``.
    """
    _check_positive(count=count)
    folder = check_folder(out)
    inferencers = {
        name: build_inferencer(one, weights, device, cfg_options)
        for name, (one, weights) in _models(config, checkpoint, against, names).items()
    }
    scopes = {inferencer.scope for inferencer in inferencers.values()}
    if len(scopes) > 1:
        raise ConfigError('--against: one model detects and the other segments')
    if images is None:
        first = next(iter(inferencers.values()))
        cfg = load_config(config, cfg_options=cfg_options)
        pairs = list(_with_truth(cfg, first.visualizer, count))
    else:
        pairs = [(file, {}) for file in list_images(images)[:count]]
    options = {'return_vis': True}
    if scopes == {'mmdet'}:
        options['pred_score_thr'] = score_threshold
    for number, (file, pictures) in enumerate(track_iter_progress(pairs)):
        for name, inferencer in inferencers.items():
            drawn = inferencer(file, **options)['visualization']
            # mmseg gives the picture, mmdet a list of one.
            pictures[name] = drawn[0] if isinstance(drawn, list) else drawn
        picture = visualization.draw_side_by_side(pictures, Path(file).name)
        write_picture(folder / f'{number:04d}_{Path(file).stem}.png', picture)
    return f'{folder}: {len(pairs)} pictures'


def report_tuning(
    config: str,
    checkpoint: str,
    out: Optional[str] = None,
    json: bool = False,
    cfg_options: Optional[dict[str, Any]] = None,
) -> str:
    """Reports on the positions of a model, with advice on what to change.

    Args:
        config: See ``plot_kernels``, as for checkpoint and cfg_options.
        out: The folder that gets report.md, report.json and pictures, if any.
        json: Return JSON instead of a table.

    Returns:
        The report.

    Raises:
        ConfigError, CheckpointError: see ``plot_kernels``.
    """
    folder = None if out is None else check_folder(out)
    elements = _elements(_load(config, checkpoint, cfg_options), checkpoint)
    statistics = tuning.compute_statistics(elements)
    advice = tuning.advise(statistics)
    if folder is not None:
        pictures = {'histograms.png': visualization.draw_histograms(elements)}
        if any(len(layer.axes) == 2 for layer in elements.values()):
            pictures['positions.png'] = visualization.draw_positions(elements)
        for name, picture in pictures.items():
            write_picture(folder / name, picture)
        title = f'Positions of {_label(config, checkpoint)}'
        page = tuning.as_markdown(statistics, advice, title, list(pictures))
        write_file(folder / 'report.json', tuning.as_json(statistics, advice).encode())
        write_file(folder / 'report.md', page.encode())
    form = tuning.as_json if json else tuning.as_text
    return form(statistics, advice)


def _load(
    config: str, checkpoint: str, cfg_options: Optional[dict[str, Any]]
) -> nn.Module:
    cfg = load_config(config, cfg_options=cfg_options)
    return load_model(cfg, _read(checkpoint), checkpoint)


def _read(checkpoint: str) -> dict:
    return CheckpointLoader.load_checkpoint(checkpoint, 'cpu', logger='silent')


def _elements(model: nn.Module, checkpoint: str) -> dict[str, tuning.LayerElements]:
    elements = _explained(checkpoint, partial(tuning.collect_elements, model))
    if not elements:
        raise ConfigError(
            f'{checkpoint}: the model has no DCLS layers, so there are no positions'
        )
    return elements


def _explained(checkpoint: str, function: Callable[[], Any]) -> Any:
    """What ``function`` gives, its ValueError as one about the checkpoint."""
    try:
        return function()
    except ValueError as error:
        raise ConfigError(f'{checkpoint}: {error}') from error


def _training_checkpoints(work_dir: str) -> tuple[str, dict[int, str]]:
    """'epoch' or 'iteration', and the checkpoints by its number, in order."""
    if not os.path.isdir(work_dir):
        raise ConfigError(f'{work_dir} is no folder (looked in {os.getcwd()})')
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
        f'{work_dir} must hold two checkpoints at least, {" or ".join(TEMPLATES)}; '
        'train with default_hooks.checkpoint.max_keep_ckpts=-1 to keep all'
    )


def _models(
    config: str,
    checkpoint: str,
    against: Optional[Sequence[str]],
    names: Optional[Sequence[str]],
) -> dict[str, tuple[str, str]]:
    """Name -> config and checkpoint, of one or two models."""
    models = [(config, checkpoint)] + ([tuple(against)] if against else [])
    if names is None:
        names = [_label(*model) for model in models]
        if len({*names}) < len(models):
            names = [weights for _, weights in models]
    if len({*names}) != len(models) or len(names) != len(models):
        raise ConfigError(
            f'--names must give {len(models)} different names, one a model, got '
            f'{", ".join(names)}'
        )
    return dict(zip(names, models))


def _label(config: str, checkpoint: str) -> str:
    return f'{Path(config).stem}, {Path(checkpoint).name}'


def _prepared(
    model: nn.Module, files: Sequence[str], shape: Sequence[int]
) -> Iterator[Tensor]:
    """Images resized, and normalised as the model does."""
    for file in files:
        image = mmcv.imresize(mmcv.imread(file), tuple(shape)[::-1])
        tensor = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
        batch = {'inputs': [tensor], 'data_samples': None}
        yield model.data_preprocessor(batch, False)['inputs'][0]


def _sides(
    fields: Mapping[str, visualization.ReceptiveField], shares: Sequence[float]
) -> str:
    lines = ['sides in pixels of the squares that hold a share of the contribution:']
    for name, field in fields.items():
        sides = (f'{share:.0%} {field.side(share):.0f}' for share in shares)
        height, width = field.contribution.shape
        lines.append(f'  {name} ({height}x{width}): {", ".join(sides)}')
    return '\n'.join(lines)


def _with_truth(
    cfg: Config, visualizer: Any, count: int
) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """The files of the test set, each with a picture of the truth if there is any."""
    if not cfg.get('test_dataloader'):
        raise ConfigError('the config has no test_dataloader; name images by --images')
    check_data(cfg, ['test'])
    settings = innermost_dataset(cfg.test_dataloader.dataset)
    settings.pipeline = [
        step for step in settings.pipeline if _TRUTH_STEPS.fullmatch(step['type'])
    ]
    has_truth = any('Annotations' in step['type'] for step in settings.pipeline)
    dataset = DATASETS.build(settings)
    for index in range(min(count, len(dataset))):
        sample = dataset[index]['data_samples']
        pictures = {}
        if has_truth:
            image = mmcv.imread(sample.img_path, channel_order='rgb')
            if 'gt_instances' in sample:  # mmdet draws plain tensors only
                boxes = sample.gt_instances.bboxes
                sample.gt_instances.bboxes = getattr(boxes, 'tensor', boxes)
            visualizer.dataset_meta = dataset.metainfo
            visualizer.add_datasample(
                Path(sample.img_path).name, image, sample, draw_pred=False
            )
            pictures['ground truth'] = visualizer.get_image()
        yield sample.img_path, pictures


def _check_positive(**options: int) -> None:
    for name, value in options.items():
        if value < 1:
            raise ConfigError(f'--{name} must be at least 1, got {value}')
