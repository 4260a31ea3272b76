"""What the classes are called that a model tells apart, and their colours."""

from copy import deepcopy
from typing import Any

import numpy as np
from mmengine.config import Config, ConfigDict
from mmengine.registry import DATASETS, init_default_scope

from ..checks.config_tree import innermost_datasets


def class_names(checkpoint: dict, cfg: Config) -> dict[str, Any]:
    """The classes that a model tells apart, and their colours.

    They are the checkpoint's, and where it has none those of the config's test set;
    mmdet and mmseg would take COCO's or Cityscapes'.

    Args:
        checkpoint: As read from a file; its meta has a 'dataset_meta' as mmengine has
            it, 'CLASSES' and 'PALETTE' as mmdet 2 and mmseg 0 did, or neither.
        cfg: Of the model.

    Returns:
        'classes', and as 'palette' a colour each; empty where neither names any.
    """
    of_config = _metainfo(cfg)
    meta = checkpoint.get('meta') or {}
    given = meta.get('dataset_meta') or meta
    of_file = {key.lower(): value for key, value in given.items()}
    classes = of_file.get('classes') or of_config.get('classes')
    if not classes:
        return {}
    if isinstance(classes, str):  # of one class, and a slip for ('disc',)
        classes = (classes,)
    palette = of_file.get('palette')
    if not palette and list(classes) == list(of_config.get('classes') or ()):
        palette = of_config.get('palette')
    if not palette or isinstance(palette, str):  # mmdet has names of ways to draw lots
        palette = np.random.RandomState(0).randint(0, 255, (len(classes), 3)).tolist()
    # mmdet draws in tuples only.
    return {'classes': classes, 'palette': [tuple(colour) for colour in palette]}


def _metainfo(cfg: Config) -> dict[str, Any]:
    """What the first test set tells of its classes; its files are not read."""
    datasets = innermost_datasets((cfg.get('test_dataloader') or {}).get('dataset'))
    if not datasets:
        return {}
    init_default_scope(cfg.default_scope)
    first = deepcopy(next(iter(datasets.values())))
    return DATASETS.build(ConfigDict(first, lazy_init=True)).metainfo
