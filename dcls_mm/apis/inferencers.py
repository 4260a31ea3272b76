"""mmdet's and mmseg's inferencers, made to fit any config and to name classes right."""

from typing import Any

import torch
from mmengine.config import Config
from mmengine.infer import BaseInferencer

from ..checkpoint.matching import load_matching
from ..checkpoint.mmengine_loaders import as_data
from ..checks.class_names import class_names
from ..checks.config_tree import innermost_datasets, type_name
from ..checks.errors import ConfigError, first_line
from .configs import load_config
from .trained import read_trained

# Steps of a pipeline that the inferencers look for, by name.
_LOADERS = ('LoadImageFromFile', 'LoadAnnotations', 'LoadDepthAnnotation')

# What draws where the config does not say.
_VISUALIZERS = {'mmdet': 'DetLocalVisualizer', 'mmseg': 'SegLocalVisualizer'}


@as_data()
def build_inferencer(
    config: str,
    checkpoint: str,
    device: str | None = None,
    cfg_options: dict[str, Any] | None = None,
) -> BaseInferencer:
    """Makes mmdet's ``DetInferencer`` or mmseg's ``MMSegInferencer``.

    Names and colours of the classes are the checkpoint's, where it has none those of
    the config's test set; the inferencers would take COCO's or Cityscapes'.

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
    _prepare_for_inferencer(cfg)
    weights = read_trained(checkpoint)
    names = class_names(weights, cfg)
    if not names:
        raise ConfigError(
            'test_dataloader.dataset.metainfo.classes: neither the config nor the '
            'checkpoint names the classes that the model tells apart'
        )
    # Not at the top of the file, as a user has mmdet or mmseg, or both.
    if cfg.default_scope == 'mmdet':
        from mmdet.apis import DetInferencer as Stock
    else:
        from mmseg.apis import MMSegInferencer as Stock

    class Inferencer(Stock):
        """Loads the weights that were read; the stock ones go on where some lack."""

        def _load_weights_to_model(self, model, *_) -> None:
            load_matching(model, weights, checkpoint)
            model.dataset_meta = names

    inferencer = Inferencer(cfg, device=device)
    inferencer.show_progress = False
    return inferencer


def _check_device(device: str | None) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # the latter by a build for CPUs
        raise ConfigError(f'--device {device}: {first_line(error)}') from error


def _prepare_for_inferencer(cfg: Config) -> None:
    """Makes of a config one that inferencers can read.

    They need a visualizer, take the pipeline of the data set, which may stand inside
    others, and look for its steps by their names, also where those are classes.

    Raises:
        ConfigError: the config has no test set.
    """
    dataset = (cfg.get('test_dataloader') or {}).get('dataset')
    first = next(iter(innermost_datasets(dataset).values()), None)
    if first is None:
        raise ConfigError(
            'the config has no test_dataloader.dataset, whose pipeline prepares the '
            'images'
        )
    for step in first['pipeline']:
        if type_name(step) in _LOADERS:
            step['type'] = type_name(step)
    cfg.test_dataloader.dataset = first
    if not cfg.get('visualizer'):
        cfg.visualizer = {'type': _VISUALIZERS[cfg.default_scope], 'name': 'visualizer'}
