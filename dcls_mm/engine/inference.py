"""Predictions for images, drawn, by mmdet's and mmseg's own inferencers."""

import os
from pathlib import Path
from typing import Any, Optional

import cv2
import torch
from mmengine.infer import BaseInferencer
from mmengine.utils import track_iter_progress

from .checkpoint import as_data
from .checkpoint_hooks import load_matching
from .config_checks import ConfigError, check_positive
from .launch import load_config
from .models import read_checkpoint
from .outputs import check_folder

_IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')


@as_data()
def build_inferencer(
    config: str,
    checkpoint: str,
    device: Optional[str] = None,
    cfg_options: Optional[dict[str, Any]] = None,
) -> BaseInferencer:
    """Makes mmdet's ``DetInferencer`` or mmseg's ``MMSegInferencer``.

    Args:
        config: The file; its default_scope decides.
        checkpoint: The weights: a path, or a URL that mmengine knows.
        device: As torch names it; by default the GPU where there is one.
        cfg_options: What to override in the config, by dotted key.

    Raises:
        ConfigError: the config or the device can't be used.
        CheckpointError: the checkpoint can't be read, or is of another model.
    """
    _check_device(device)
    cfg = load_config(config, cfg_options=cfg_options)
    weights = read_checkpoint(checkpoint)
    # Not at the top of the file, as a user has mmdet or mmseg, or both.
    if cfg.default_scope == 'mmdet':
        from mmdet.apis import DetInferencer as Inferencer
    else:
        from mmseg.apis import MMSegInferencer as Inferencer
    inferencer = Inferencer(cfg, weights=checkpoint, device=device)
    # They go on with random weights where a checkpoint lacks some.
    load_matching(inferencer.model, weights, checkpoint)
    inferencer.show_progress = False
    return inferencer


def predict(
    config: str,
    checkpoint: str,
    images: str,
    out: str,
    score_threshold: float = 0.3,
    batch_size: int = 1,
    device: Optional[str] = None,
    cfg_options: Optional[dict[str, Any]] = None,
) -> int:
    """Predicts what is in images, and draws it.

    Args:
        config: See ``build_inferencer``, as for checkpoint, device and cfg_options.
        images: One image, or a folder of them; its subfolders are left out.
        out: The folder that gets the pictures, in ``vis``, and the predictions:
            in ``preds`` a JSON file an image (mmdet: boxes, scores, labels, masks
            as COCO's run lengths), or in ``pred`` its label map (mmseg).
        score_threshold: The least score of an object that is drawn; mmdet only.
        batch_size: How many images to predict at once.

    Returns:
        The number of images.

    Raises:
        ConfigError: the config or an option can't be used, there are no images, or
            ``out`` is no folder that can be written to.
        CheckpointError: See ``build_inferencer``.
    """
    check_positive(batch_size=batch_size)
    files = list_images(images)
    check_folder(out)
    inferencer = build_inferencer(config, checkpoint, device, cfg_options)
    if inferencer.scope == 'mmdet':
        options = {'pred_score_thr': score_threshold, 'no_save_pred': False}
    else:
        options = {}
    # A batch a call, as the inferencers keep all predictions of a call.
    batches = [files[i : i + batch_size] for i in range(0, len(files), batch_size)]
    for batch in track_iter_progress(batches):
        inferencer(batch, batch_size=batch_size, out_dir=out, **options)
    if inferencer.scope == 'mmseg':
        for number, file in enumerate(files):  # mmseg counts, instead of naming
            label_map = Path(out, 'pred', f'{number:08d}_pred.png')
            label_map.replace(label_map.with_name(f'{Path(file).stem}.png'))
    return len(files)


def _check_device(device: Optional[str]) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # the latter by a build for CPUs
        reason = str(error).splitlines()[0]
        raise ConfigError(f'--device {device}: {reason}') from error


def list_images(images: str) -> list[str]:
    """The files of an image or of a folder of images, in order.

    Raises:
        ConfigError: there are none, or one is no image by its first bytes.
    """
    if os.path.isfile(images):
        files = [images]
    elif os.path.isdir(images):
        files = sorted(
            os.path.join(images, name)
            for name in os.listdir(images)
            if name.lower().endswith(_IMAGE_SUFFIXES)
        )
    else:
        raise ConfigError(f'{images} does not exist (looked in {os.getcwd()})')
    if not files:
        raise ConfigError(
            f'{images} holds no images: no file ends in {", ".join(_IMAGE_SUFFIXES)}'
        )
    for file in files:
        if not cv2.haveImageReader(file):
            raise ConfigError(f'{file} is no image that OpenCV can read')
    return files
