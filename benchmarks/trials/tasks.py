"""The tasks of the trials: data, network, length, and the config of a training."""

import re
from pathlib import Path
from typing import Any, NamedTuple

from trials.arms import FRESH, TRAINED, Arm
from trials.lite0 import CHANNELS, depthwise_convs

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'


class Data(NamedTuple):
    """A data set with its heads and its length.

    Attributes:
        config: config file under configs/, with plain ConvNeXt-atto.
        metrics: keys of what validation reports, the first decides.
        units: iterations, or epochs, of a full training.
        interval: of the validations, in units.
        warmup: iterations.
        by_epoch: whether units are epochs.
    """

    config: str
    metrics: tuple[str, ...]
    units: int
    interval: int
    warmup: int
    by_epoch: bool


DATA = {
    'camvid': Data(
        'upernet/convnext-atto_upernet_1xb4-1k_camvid-256x256.py',
        ('mIoU',),
        600,
        100,
        50,
        False,
    ),
    'nuclei': Data(
        'cascade_mask_rcnn/cascade-mask-rcnn_convnext-atto_fpn_1xb4-15e_nuclei.py',
        ('coco/bbox_mAP', 'coco/segm_mAP'),
        9,
        3,
        40,
        True,
    ),
}
ARMS = {'atto': FRESH, 'lite0': TRAINED}


def settings(data: str, network: str, arm: Arm, seed: int, part: int) -> dict[str, Any]:
    """Return the keys that turn a task's config into a training of an arm.

    Args:
        data, network: keys of ``DATA`` and ``ARMS``.
        arm: how to convolve.
        seed: of the training.
        part: the training has this part of the full length, with its schedule.
    """
    task = DATA[data]
    units = task.units // part
    unit = 'epochs' if task.by_epoch else 'iters'
    keys: dict[str, Any] = {
        'randomness.seed': seed,
        f'train_cfg.max_{unit}': units,
        'train_cfg.val_interval': min(task.interval, units),
        'param_scheduler.0.end': task.warmup // part,
        'param_scheduler.1.end': units,
        'default_hooks.checkpoint.interval': units,
        'default_hooks.checkpoint.save_optimizer': False,
        'custom_hooks': list(arm.hooks),
    }
    if task.by_epoch:
        keys['param_scheduler.1.T_max'] = units
    else:
        keys['param_scheduler.1.begin'] = task.warmup // part
    if arm.is_dcls:
        keys['optim_wrapper.paramwise_cfg'] = dict(position_lr_mult=arm.position_rate)
        keys['custom_hooks'].append(dict(type='ClampPositionsHook'))
    return keys | (_lite0(data, arm) if network == 'lite0' else _atto(arm))


def _atto(arm: Arm) -> dict[str, Any]:
    if arm.layer is None:
        return {}
    layer = arm.layer
    if isinstance(layer, dict):
        layer = dict(layer, _delete_=True)
    return {'model.backbone.depthwise_cfg': layer}


def _lite0(data: str, arm: Arm) -> dict[str, Any]:
    backbone: dict[str, Any] = dict(type='Lite0Backbone')
    if arm.layer is not None:
        backbone = dict(
            type='ReplacedConvBackbone',
            backbone=backbone,
            layer=arm.layer,
            name='|'.join(map(re.escape, depthwise_convs(stride_one=True))),
        )
    keys = {
        'model.backbone': dict(backbone, _delete_=True),
        'model.data_preprocessor.mean': [127.0] * 3,
        'model.data_preprocessor.std': [128.0] * 3,
        'optim_wrapper.optimizer.lr': 5e-4,
    }
    if data == 'camvid':
        return keys | {
            'model.decode_head.in_channels': list(CHANNELS),
            'model.auxiliary_head.in_channels': CHANNELS[2],
        }
    return keys | {'model.neck.in_channels': list(CHANNELS)}
