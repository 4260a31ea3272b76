"""The names and colours of the classes that a model predicts."""

from copy import deepcopy
from typing import Any

import numpy as np
from mmengine.config import Config, ConfigDict
from mmengine.registry import DATASETS, init_default_scope

from ..checks.config_tree import innermost_datasets


def class_names(checkpoint: dict, cfg: Config) -> dict[str, Any]:
    """Return the classes that a model predicts, and their colours.

    They come from the checkpoint, or else from the config's test set; mmdet and mmseg
    would fall back to COCO's or Cityscapes'.

    Args:
        checkpoint: as read from a file; its meta has 'dataset_meta' as in mmengine,
            'CLASSES' and 'PALETTE' as in mmdet 2 and mmseg 0, or neither.
        cfg: the model's config.

    Returns:
        'classes', and 'palette' with a colour per class; empty if neither source names
        any.
    """
    of_config = _metainfo(cfg)
    meta = checkpoint.get('meta') or {}
    given = meta.get('dataset_meta') or meta
    of_file = {key.lower(): value for key, value in given.items()}
    classes = of_file.get('classes') or of_config.get('classes')
    if not classes:
        return {}
    if isinstance(classes, str):  # one class, a slip for ('disc',)
        classes = (classes,)
    palette = of_file.get('palette')
    if not palette and list(classes) == list(of_config.get('classes') or ()):
        palette = of_config.get('palette')
    if not palette or isinstance(palette, str):  # mmdet takes 'random', for example
        palette = np.random.RandomState(0).randint(0, 255, (len(classes), 3)).tolist()
    # mmdet accepts only tuples as colours.
    return {'classes': classes, 'palette': [tuple(colour) for colour in palette]}


def _metainfo(cfg: Config) -> dict[str, Any]:
    """Return the metainfo of the first test set, without reading its files."""
    datasets = innermost_datasets((cfg.get('test_dataloader') or {}).get('dataset'))
    if not datasets:
        return {}
    init_default_scope(cfg.default_scope)
    first = deepcopy(next(iter(datasets.values())))
    return DATASETS.build(ConfigDict(first, lazy_init=True)).metainfo
