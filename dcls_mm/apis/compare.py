"""One or two models side by side: their receptive fields and their predictions."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS
from mmengine.utils import track_iter_progress
from torch import Tensor, nn

from .. import visualization
from ..checks.arguments import check_positive
from ..checks.channels import input_channels
from ..checks.config_checks import check_data
from ..checks.config_tree import innermost_datasets, type_name
from ..checks.errors import ConfigError, errors_about
from .configs import load_config
from .inferencers import build_inferencer
from .outputs import check_folder, check_picture, label, write_picture
from .predict import check_all_read, check_score, list_images, predictions
from .trained import load_trained

# The steps that read and pack an image and its ground truth; others change the image.
_TRUTH_STEPS = re.compile(r'Load\w*|Pack\w*')


def plot_receptive_field(
    config: str,
    checkpoint: str,
    out: str,
    against: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
    images: str | None = None,
    count: int = 10,
    shape: Sequence[int] = (1024, 1024),
    level: int = -1,
    shares: Sequence[float] = visualization.SHARES,
    cfg_options: dict[str, Any] | None = None,
) -> str:
    """Draw and measure the effective receptive field of one or two backbones.

    Args:
        config: the model's config file. A model without a ``backbone`` is used whole.
        checkpoint: the weights: a path, or a URL that mmengine knows.
        out: the PNG file to write.
        against: config and checkpoint of a second model.
        names: labels of the models; by default their configs and checkpoints.
        images: an image or a folder of images, which are resized to ``shape`` and
            normalised as the model does; by default noise, N(0, 1) per pixel.
        count: the largest number of images to use.
        shape: height and width in pixels.
        level: the index of the backbone's output.
        shares: fractions of the contribution whose squares are drawn and measured.
        cfg_options: overrides of both configs, by dotted key.

    Returns:
        A table of the squares' sides.

    Raises:
        ConfigError: a config or an option can't be used.
        CheckpointError: a checkpoint can't be read, or belongs to another model.
    """
    check_positive(count=count, shape=min(shape))
    if any(not 0 < share < 1 for share in shares):
        raise ConfigError(
            f'--shares must lie between 0 and 1, got {" ".join(map(str, shares))}'
        )
    check_picture(out)
    files = None if images is None else list_images(images)[:count]
    fields = {}
    for name, (one, weights) in models_of(config, checkpoint, against, names).items():
        model = load_trained(one, weights, cfg_options).model
        backbone = getattr(model, 'backbone', model)
        source = f'{weights}, --shape {shape[0]} {shape[1]}, --level {level}'
        with errors_about(source):
            channels = input_channels(backbone, tuple(shape))
        if files is None:
            prepared = visualization.noise_images(count, tuple(shape), channels)
        else:
            prepared = _prepared(model, files, shape, channels)
        with errors_about(source):
            fields[name] = visualization.receptive_field(backbone, prepared, level)
    picture = visualization.draw_receptive_fields(fields, shares)
    return f'{write_picture(out, picture)}\n{_sides(fields, shares)}'


def plot_predictions(
    config: str,
    checkpoint: str,
    out: str,
    against: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
    images: str | None = None,
    count: int = 10,
    score_threshold: float = 0.3,
    device: str | None = None,
    cfg_options: dict[str, Any] | None = None,
) -> str:
    """Draw the predictions of one or two models side by side.

    Args:
        config, checkpoint, against, names: see ``plot_receptive_field``.
        out: the folder for the pictures, one per image.
        images: an image, or a folder of images; by default those of the first config's
            test_dataloader, with the ground truth on the left.
        count: the largest number of images to use.
        score_threshold: the lowest score of an object to draw; mmdet only.
        device: a torch device; by default the GPU if there is one.
        cfg_options: overrides of both configs, by dotted key.

    Returns:
        What was written.

    Raises:
        ConfigError: a config or an option can't be used; one model detects and the
            other segments; or some images could not be read, raised after the others
            are done.
        CheckpointError: see ``plot_receptive_field``.
    """
    check_positive(count=count)
    check_score(score_threshold)
    folder = check_folder(out)
    inferencers = {
        name: build_inferencer(one, weights, device, cfg_options)
        for name, (one, weights) in models_of(
            config, checkpoint, against, names
        ).items()
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
    unread: dict[str, str] = {}
    for number, (file, pictures) in enumerate(track_iter_progress(pairs)):
        for name, inferencer in inferencers.items():
            for result in predictions(inferencer, [file], score_threshold, unread):
                pictures[name] = result.picture
        if file not in unread:
            picture = visualization.draw_side_by_side(pictures, Path(file).name)
            write_picture(folder / f'{number:04d}_{Path(file).stem}.png', picture)
    check_all_read(unread, len(pairs))
    return f'{folder}: {len(pairs)} pictures'


def models_of(
    config: str,
    checkpoint: str,
    against: Sequence[str] | None,
    names: Sequence[str] | None,
) -> dict[str, tuple[str, str]]:
    """Map the names of one or two models to their configs and checkpoints."""
    models = [(config, checkpoint)] + ([tuple(against)] if against else [])
    if names is None:
        names = [label(*model) for model in models]
        if len({*names}) < len(models):
            names = [weights for _, weights in models]
    if len({*names}) != len(models) or len(names) != len(models):
        raise ConfigError(
            f'--names must give {len(models)} different names, one per model, got '
            f'{", ".join(names)}'
        )
    return dict(zip(names, models))


def _prepared(
    model: nn.Module, files: Sequence[str], shape: Sequence[int], channels: int
) -> Iterator[Tensor]:
    """Yield the images, resized and normalised as the model does."""
    if not hasattr(model, 'data_preprocessor'):
        raise ConfigError(
            f'--images: a {type(model).__name__} has no data_preprocessor to prepare '
            'them; leave out --images to use noise'
        )
    flag = {1: 'grayscale', 3: 'color'}.get(channels, 'unchanged')
    for file in files:
        image = mmcv.imread(file, flag)
        if image is None:
            raise ConfigError(f'--images: {file} is not an image that OpenCV can read')
        image = np.atleast_3d(mmcv.imresize(image, tuple(shape)[::-1]))
        if image.shape[2] != channels:
            raise ConfigError(
                f'--images: the model takes {channels} channels, and {file} has '
                f'{image.shape[2]}; leave out --images to use noise'
            )
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
    """Yield the test set's files, each with a picture of its ground truth, if any."""
    if not cfg.get('test_dataloader'):
        raise ConfigError('the config has no test_dataloader; name images by --images')
    check_data(cfg, ['test'])
    for settings in innermost_datasets(cfg.test_dataloader.dataset).values():
        for sample in _samples_with_truth(settings, visualizer, count):
            yield sample
            count -= 1
        if not count:
            return


def _samples_with_truth(
    settings: dict, visualizer: Any, count: int
) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Yield the same for one data set."""
    settings['pipeline'] = [
        step for step in settings['pipeline'] if _TRUTH_STEPS.fullmatch(type_name(step))
    ]
    has_truth = any('Annotations' in type_name(step) for step in settings['pipeline'])
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
