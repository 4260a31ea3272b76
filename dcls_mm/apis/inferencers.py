"""mmdet's and mmseg's inferencers, for any config and with the right class names."""

from typing import Any

import torch
from mmengine.config import Config
from mmengine.infer import BaseInferencer

from ..checkpoint.matching import load_matching
from ..checkpoint.mmengine_loaders import as_data
from ..checks.config_tree import innermost_datasets, type_name
from ..checks.errors import ConfigError, errors_about
from .class_names import class_names
from .configs import load_config
from .trained import read_trained

# Pipeline steps that the inferencers look up by name.
_LOADERS = ('LoadImageFromFile', 'LoadAnnotations', 'LoadDepthAnnotation')

# The visualizers to use if the config has none.
_VISUALIZERS = {
    'mmdet': 'DetLocalVisualizer',
    'mmrotate': 'RotLocalVisualizer',
    'mmseg': 'SegLocalVisualizer',
}


@as_data()
def build_inferencer(
    config: str,
    checkpoint: str,
    device: str | None = None,
    cfg_options: dict[str, Any] | None = None,
) -> BaseInferencer:
    """Build mmdet's ``DetInferencer`` or mmseg's ``MMSegInferencer``.

    See :func:`.class_names` for where the classes come from.

    Args:
        config: the file; its default_scope decides which inferencer.
        checkpoint: the weights: a path, or a URL that mmengine knows.
        device: a torch device; by default the GPU if there is one.
        cfg_options: overrides of the config, by dotted key.

    Raises:
        ConfigError: the config or the device can't be used.
        CheckpointError: the checkpoint can't be read, or belongs to another model.
    """
    # CPU builds of torch raise an AssertionError.
    with errors_about(f'--device {device}', (RuntimeError, AssertionError)):
        torch.empty(0, device=device)
    cfg = load_config(config, cfg_options=cfg_options)
    _prepare_for_inferencer(cfg)
    weights = read_trained(checkpoint)
    names = class_names(weights, cfg)
    if not names:
        raise ConfigError(
            'test_dataloader.dataset.metainfo.classes: neither the config nor the '
            "checkpoint names the model's classes"
        )
    # Not at the top of the file, as only one of mmdet and mmseg may be installed.
    if finds_objects(cfg.default_scope):
        from mmdet.apis import DetInferencer as Stock
    else:
        from mmseg.apis import MMSegInferencer as Stock

    class Inferencer(Stock):
        """An inferencer that insists on all weights; stock ones accept missing keys."""

        def _load_weights_to_model(self, model, *_) -> None:
            load_matching(model, weights, checkpoint)
            model.dataset_meta = names

    inferencer = Inferencer(cfg, device=device, scope=cfg.default_scope)
    inferencer.show_progress = False
    return inferencer


def finds_objects(scope: str) -> bool:
    """Return whether models of a scope find objects, rather than label pixels."""
    return scope in ('mmdet', 'mmrotate')


def _prepare_for_inferencer(cfg: Config) -> None:
    """Change a config into one that inferencers can read.

    They need a visualizer, expect the pipeline in the outermost data set, and look up
    its steps by name, even if the config has classes.

    Raises:
        ConfigError: the config has no test set.
    """
    dataset = (cfg.get('test_dataloader') or {}).get('dataset')
    first = next(iter(innermost_datasets(dataset).values()), None)
    if first is None:
        raise ConfigError(
            'the config has no test_dataloader.dataset, whose pipeline would prepare '
            'the images'
        )
    for step in first['pipeline']:
        if type_name(step) in _LOADERS:
            step['type'] = type_name(step)
    cfg.test_dataloader.dataset = first
    if not cfg.get('visualizer'):
        cfg.visualizer = {'type': _VISUALIZERS[cfg.default_scope], 'name': 'visualizer'}
