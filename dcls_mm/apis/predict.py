"""Predictions for images, drawn, by mmdet's and mmseg's own inferencers."""

import io
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from mmengine.fileio import dump
from mmengine.infer import BaseInferencer
from mmengine.utils import track_iter_progress

from ..checks.arguments import check_positive
from ..checks.errors import ConfigError, first_line
from .inferencers import build_inferencer, finds_objects
from .outputs import check_folder, write_file, write_picture

_IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')


class Prediction(NamedTuple):
    """An inferencer's result for an image.

    Attributes:
        file: the image.
        found: mmdet's dict of lists, or mmseg's label map, (height, width).
        picture: the image with the result drawn on it, (height, width, 3) in RGB.
    """

    file: str
    found: Any
    picture: np.ndarray


def predict(
    config: str,
    checkpoint: str,
    images: str,
    out: str,
    score_threshold: float = 0.3,
    batch_size: int = 1,
    device: str | None = None,
    cfg_options: dict[str, Any] | None = None,
) -> int:
    """Predict what is in images, and draw it.

    Args:
        config, checkpoint, device, cfg_options: see ``build_inferencer``.
        images: an image, or a folder of images without its subfolders.
        out: the folder for the pictures, in ``vis``, and the predictions: for mmdet a
            JSON file per image in ``preds`` (boxes, scores, labels, masks as COCO's run
            lengths), for mmseg a label map or depths in ``pred`` (a .png or .npy file).
            They are named after the images; if two images differ only in the suffix,
            the predictions keep it (``a.jpg.json``).
        score_threshold: the lowest score of an object to draw; detectors only.
        batch_size: how many images to predict at once.

    Returns:
        The number of images.

    Raises:
        ConfigError: the config or an option can't be used, there are no images, ``out``
            can't be written to, or some images could not be read, raised after the
            others are done.
        CheckpointError: see ``build_inferencer``.
    """
    check_positive(batch_size=batch_size)
    check_score(score_threshold)
    files = list_images(images)
    names = output_names(files)
    check_folder(out)
    inferencer = build_inferencer(config, checkpoint, device, cfg_options)
    objects = finds_objects(inferencer.scope)
    unread: dict[str, str] = {}
    batches = [files[i : i + batch_size] for i in range(0, len(files), batch_size)]
    for batch in track_iter_progress(batches):
        for result in predictions(inferencer, batch, score_threshold, unread):
            write = _write_objects if objects else _write_label_map
            write(Path(out), names[result.file], result.found)
            write_picture(Path(out, 'vis', Path(result.file).name), result.picture)
    check_all_read(unread, len(files))
    return len(files)


def predictions(
    inferencer: BaseInferencer,
    files: Sequence[str],
    score_threshold: float,
    unread: dict[str, str],
) -> Iterator[Prediction]:
    """Predict for a batch of images.

    Args:
        inferencer: made by ``build_inferencer``.
        files: the images.
        score_threshold: the lowest score of an object to draw; detectors only.
        unread: changed: files that can't be read are skipped, and added with the
            reason.

    Raises:
        ConfigError: the model can't be run on images of this size.
    """
    inputs = {}
    for file in files:
        try:
            inputs[file] = inferencer.pipeline(file)
        except Exception as error:  # decoders may raise anything
            unread[file] = first_line(error)
    if not inputs:
        return
    batch = inferencer.collate_fn(list(inputs.values()))
    try:
        samples = inferencer.forward(batch)
    except (RuntimeError, ValueError) as error:
        sizes = (f'{file} ({_size(data)})' for file, data in inputs.items())
        raise ConfigError(
            f'the model cannot be run on {", ".join(sizes)}: {error}'
        ) from error
    options = {'return_vis': True}
    objects = finds_objects(inferencer.scope)
    if objects:
        options['pred_score_thr'] = score_threshold
    for file, sample in zip(inputs, samples):
        (picture,) = inferencer.visualize([file], [sample], **options)
        found = inferencer.postprocess([sample], None)['predictions']
        found = found[0] if objects else found
        yield Prediction(file, found, picture)


def check_all_read(unread: dict[str, str], count: int) -> None:
    """Raise a ConfigError if some of ``count`` images could not be read."""
    if unread:
        lines = '\n'.join(f'  {file}: {reason}' for file, reason in unread.items())
        raise ConfigError(
            f'{len(unread)} of {count} images could not be read and were skipped:\n'
            f'{lines}'
        )


def _size(data: dict) -> str:
    return '{}x{} pixels'.format(*data['inputs'].shape[-2:])


def _write_objects(out: Path, name: str, found: dict) -> None:
    panoptic = found.pop('panoptic_seg', None)
    if panoptic is not None:
        file = out / 'preds' / f'{name}_panoptic_seg.png'
        found['panoptic_seg_path'] = write_picture(file, panoptic)
    text = dump(found, file_format='json')
    write_file(out / 'preds' / f'{name}.json', text.encode())


def _write_label_map(out: Path, name: str, found: np.ndarray) -> None:
    if np.issubdtype(found.dtype, np.floating):  # depths, as mmseg writes them
        buffer = io.BytesIO()
        np.save(buffer, found)
        write_file(out / 'pred' / f'{name}.npy', buffer.getvalue())
        return
    # A PNG holds 8 or 16 bits per pixel.
    kind = np.uint8 if found.max(initial=0) < 256 else np.uint16
    write_picture(out / 'pred' / f'{name}.png', found.astype(kind))


def output_names(files: Sequence[str]) -> dict[str, str]:
    """Map each image to the name of its predictions, without the predictions' suffix.

    That is the image's name without suffix, unless two images would then share a name.
    """
    count = Counter(Path(file).stem.lower() for file in files)
    unique = max(count.values(), default=1) == 1
    return {file: Path(file).stem if unique else Path(file).name for file in files}


def check_score(score_threshold: float) -> None:
    """Raise a ConfigError unless ``score_threshold`` is a number."""
    if not np.isfinite(score_threshold):
        raise ConfigError(
            f'--score-threshold must be a finite number, got {score_threshold}'
        )


def list_images(images: str) -> list[str]:
    """Return an image, or the sorted images of a folder, as a list of files.

    Raises:
        ConfigError: there are none, or the first bytes of a single file are not those
            of an image.
    """
    if os.path.isfile(images):
        if not cv2.haveImageReader(images):
            raise ConfigError(f'{images} is not an image that OpenCV can read')
        return [images]
    if not os.path.isdir(images):
        raise ConfigError(f'{images} does not exist (looked in {os.getcwd()})')
    files = sorted(
        os.path.join(images, name)
        for name in os.listdir(images)
        if name.lower().endswith(_IMAGE_SUFFIXES)
    )
    if not files:
        raise ConfigError(
            f'{images} has no images: no file ends in {", ".join(_IMAGE_SUFFIXES)}'
        )
    return files
