"""Pictures of what in an image speaks for a class, by Grad-CAM."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
import torch
import torch.nn.functional as F
from mmengine.infer import BaseInferencer
from mmengine.utils import track_iter_progress
from torch import Tensor, nn

from .. import visualization
from .._listing import listing
from ..checks.arguments import check_positive
from ..checks.errors import ConfigError, errors_about
from .compare import models_of
from .inferencers import build_inferencer
from .outputs import check_folder, write_picture
from .predict import check_score, list_images


def plot_grad_cam(
    config: str,
    checkpoint: str,
    images: str,
    out: str,
    against: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
    label: str | None = None,
    point: Sequence[int] | None = None,
    level: int = -1,
    count: int = 10,
    score_threshold: float = 0.3,
    device: str | None = None,
    cfg_options: dict[str, Any] | None = None,
) -> str:
    """Draw Grad-CAM of one or two models beside each image.

    What is explained is, of a segmentor, the sum of a class's logits over the pixels
    where it is predicted, or its logit at a point; of a two-stage detector,
    the sum of the log-odds of its detections. mmdet's one-stage heads detach their
    scores, so that there is nothing to differentiate.

    Args:
        config, checkpoint, against, names, device, cfg_options: see
            :func:`.plot_predictions`.
        images: an image, or a folder of images.
        out: the folder for the pictures, one per image.
        label: name of the class; by default the one predicted most, in detectors the
            one of the highest score.
        point: (row, column) in the image; segmentors only.
        level: the index of the backbone's output.
        count: the largest number of images to use.
        score_threshold: the lowest score of a detection that counts.

    Returns:
        What was written, and which images have nothing to explain.

    Raises:
        ConfigError: a config or an option can't be used, or no gradients of the scores
            reach the backbone.
        CheckpointError: see :func:`.plot_predictions`.
    """
    check_positive(count=count)
    check_score(score_threshold)
    folder = check_folder(out)
    files = list_images(images)[:count]
    chosen = models_of(config, checkpoint, against, names)
    models = {
        name: build_inferencer(one, weights, device, cfg_options)
        for name, (one, weights) in chosen.items()
    }
    for inferencer in models.values():
        _check_model(inferencer, label, point)
    notes = []
    for number, file in enumerate(track_iter_progress(files)):
        image = mmcv.imread(file, channel_order='rgb')
        if image is None:
            raise ConfigError(f'--images: {file} is not an image that OpenCV can read')
        _check_point(point, image, file)
        pictures = {'image': image}
        for name, inferencer in models.items():
            batch = inferencer.collate_fn([inferencer.pipeline(file)])
            batch = inferencer.model.data_preprocessor(batch, False)
            score = _scorer(inferencer, batch, image, label, point, score_threshold)
            try:
                with errors_about(f'{name}, --level {level}'):
                    values = visualization.grad_cam(
                        inferencer.model.backbone, score, level
                    )
            except ConfigError as error:
                if not isinstance(error.__cause__, visualization.NothingToExplain):
                    raise
                notes.append(f'{file}: {error}')
                pictures[name] = image
            else:
                values = _on_the_image(values, batch)
                pictures[name] = visualization.overlay_map(image, values)
        picture = visualization.draw_side_by_side(pictures, Path(file).name)
        write_picture(folder / f'{number:04d}_{Path(file).stem}.png', picture)
    return '\n'.join([f'{folder}: {len(files)} pictures', *notes])


def _check_model(
    inferencer: BaseInferencer, label: str | None, point: Sequence[int] | None
) -> None:
    """Raise a ConfigError unless the options fit a model."""
    model = inferencer.model
    if not isinstance(getattr(model, 'backbone', None), nn.Module):
        raise ConfigError(
            f'a {type(model).__name__} has no backbone, whose output Grad-CAM explains'
        )
    classes = list(model.dataset_meta['classes'])
    if label is not None and label not in classes:
        raise ConfigError(
            f'--label must be a class of the model, {listing(classes, 5)}; got {label}'
        )
    if point is not None and inferencer.scope != 'mmseg':
        raise ConfigError('--point is for segmentors, and the model is a detector')


def _check_point(point: Sequence[int] | None, image: np.ndarray, file: str) -> None:
    height, width = image.shape[:2]
    if point is not None and not (0 <= point[0] < height and 0 <= point[1] < width):
        raise ConfigError(
            f'--point must be a row and a column of the image; {file} has '
            f'{height}x{width} pixels, got {point[0]} {point[1]}'
        )


def _scorer(
    inferencer: BaseInferencer,
    batch: dict,
    image: np.ndarray,
    label: str | None,
    point: Sequence[int] | None,
    score_threshold: float,
) -> Callable[[], Tensor]:
    """Return a function that runs a model on a batch and returns what to explain."""
    model = inferencer.model
    index = None if label is None else model.dataset_meta['classes'].index(label)
    inputs, samples = batch['inputs'], batch['data_samples']

    def of_detections() -> Tensor:
        found = model(inputs, samples, mode='predict')[0].pred_instances
        return visualization.detection_score(
            found.scores, found.labels, index, score_threshold
        )

    def of_pixels() -> Tensor:
        logits = model(inputs, samples, mode='tensor')
        where = None if point is None else _place(point, image, batch, logits)
        return visualization.logit_score(logits, index, where)

    return of_pixels if inferencer.scope == 'mmseg' else of_detections


def _place(
    point: Sequence[int], image: np.ndarray, batch: dict, logits: Tensor
) -> Tensor:
    """Return where a point of an image is in the logits, as booleans."""
    sizes = zip(point, image.shape, _content(batch), batch['inputs'].shape[2:])
    places = [(at + 0.5) * used / size / padded for at, size, used, padded in sizes]
    where = torch.zeros(logits.shape[2:], dtype=torch.bool, device=logits.device)
    where[tuple(int(at * n) for at, n in zip(places, where.shape))] = True
    return where


def _content(batch: dict) -> tuple[int, int]:
    """Return the (height, width) that the image has in a batch, without padding."""
    meta = batch['data_samples'][0].metainfo
    if 'scale_factor' not in meta or 'ori_shape' not in meta:
        return meta['img_shape'][:2]
    (height, width), (across, down) = meta['ori_shape'][:2], meta['scale_factor'][:2]
    return round(height * down), round(width * across)


def _on_the_image(values: np.ndarray, batch: dict) -> np.ndarray:
    """Enlarge a map of a whole batch, and cut off what is padding."""
    size = tuple(batch['inputs'].shape[2:])
    height, width = _content(batch)
    large = F.interpolate(torch.from_numpy(values)[None, None], size, mode='bilinear')
    return large[0, 0, :height, :width].numpy()
