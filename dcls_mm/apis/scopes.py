"""The differences between testing with mmdet, mmrotate and mmseg.

Each has a test script of its own, with the same option names; the table ``SCOPES`` says
what an option does to a config of each.
"""

import os
from collections.abc import Callable
from copy import copy, deepcopy
from typing import NamedTuple

from mmengine.config import Config

from ..checks.config_tree import innermost_datasets, metrics, type_name
from ..checks.errors import ConfigError

# mmdet's configs come without test-time augmentation. This is a plain one: the image
# and its mirror image.
_BOX_TTA_MODEL = {
    'type': 'DetTTAModel',
    'tta_cfg': {'nms': {'type': 'nms', 'iou_threshold': 0.5}, 'max_per_img': 100},
}
_BOX_TTA_FLIPS = [
    {'type': 'RandomFlip', 'prob': 1.0},
    {'type': 'RandomFlip', 'prob': 0.0},
]
_BOX_TTA_META = (
    'img_id',
    'img_path',
    'ori_shape',
    'img_shape',
    'scale_factor',
    'flip',
    'flip_direction',
)

# The sections from which mmengine builds the training loop.
_TRAINING = ('train_dataloader', 'train_cfg', 'optim_wrapper', 'param_scheduler')


def _default_box_tta(cfg: Config) -> list[str]:
    heads = {
        'model.mask_head': cfg.model.get('mask_head'),
        'model.roi_head.mask_head': (cfg.model.get('roi_head') or {}).get('mask_head'),
    }
    for key, head in heads.items():
        if head:
            raise ConfigError(
                f'--tta: mmdet merges boxes but not masks, and the config has a {key}; '
                f'for boxes alone pass --cfg-options {key}=None '
                'test_evaluator.metric=bbox'
            )
    notices = []
    if 'tta_model' not in cfg:
        cfg.tta_model = _BOX_TTA_MODEL
        notices.append(f'--tta: the config has no tta_model; uses {_BOX_TTA_MODEL}')
    if 'tta_pipeline' not in cfg:
        for dataset in innermost_datasets(cfg.test_dataloader.dataset).values():
            *transforms, pack = deepcopy(dataset['pipeline'])
            pack['meta_keys'] = _BOX_TTA_META
            flips = {'type': 'TestTimeAug', 'transforms': [_BOX_TTA_FLIPS, [pack]]}
            dataset['pipeline'] = [*transforms, flips]
        notices.append(
            '--tta: the config has no tta_pipeline; adds the mirror image of each image'
        )
    return notices


def _no_default_tta(cfg: Config) -> list[str]:
    missing = [key for key in ('tta_model', 'tta_pipeline') if key not in cfg]
    if missing:
        raise ConfigError(
            f'--tta: the config has no {" and no ".join(missing)}; see '
            "mmseg's _base_ files and mmrotate's RTMDet, which have both"
        )
    return []


def _dump_detections(cfg: Config, out: str) -> None:
    if not out.endswith(('.pkl', '.pickle')):
        raise ConfigError(
            f'--out {out}: detections go into one file, whose name must end in .pkl'
        )
    if type_name(cfg.test_evaluator) == 'MultiDatasetsEvaluator':
        raise ConfigError(
            '--out: a test_evaluator of type MultiDatasetsEvaluator would pass no '
            'detections to the file; test one data set'
        )
    dump = {'type': 'DumpDetResults', 'out_file_path': out}
    both = [*metrics(cfg, 'test').values(), dump]
    if 'metrics' in cfg.test_evaluator:
        cfg.test_evaluator.metrics = both
    else:
        cfg.test_evaluator = both


def _write_label_maps(cfg: Config, out: str) -> None:
    if os.path.splitext(out)[1] or os.path.isfile(out):
        raise ConfigError(
            f'--out {out}: must be the name of a folder, as label maps are one file '
            'per image'
        )
    for metric in metrics(cfg, 'test').values():
        metric.output_dir = out
    _refuse_one_name(cfg, '--out', with_suffix=False)


def _draw_detections(cfg: Config, show_dir: str) -> None:
    # An absolute path, since mmdet would put it below work_dir/<time>.
    cfg.default_hooks.visualization.test_out_dir = os.path.abspath(show_dir)
    _refuse_one_name(cfg, '--show-dir', with_suffix=True)


def _refuse_one_name(cfg: Config, option: str, with_suffix: bool) -> None:
    hook = dict(type='DistinctNamesHook', option=option, with_suffix=with_suffix)
    cfg.custom_hooks = [*cfg.get('custom_hooks', []), hook]


def _draw_label_maps(cfg: Config, show_dir: str) -> None:
    if cfg.default_hooks.visualization.get('show'):
        raise ConfigError(
            '--show-dir: mmseg does not save what it shows; leave out --show'
        )
    if not cfg.get('visualizer'):
        raise ConfigError('--show-dir: the config has no visualizer')
    cfg.default_hooks.visualization.interval = 1  # by default every 50th batch
    cfg.visualizer.save_dir = show_dir
    cfg.visualizer.vis_backends = [{'type': 'LocalVisBackend'}]
    _refuse_one_name(cfg, '--show-dir', with_suffix=True)


class Scope(NamedTuple):
    """The effects of test options on a config of one scope; they raise ConfigError."""

    package: str  # its name for pip
    default_tta: Callable[[Config], list[str]]  # returns what to log
    save_predictions: Callable[[Config, str], None]
    save_images: Callable[[Config, str], None]


SCOPES: dict[str, Scope] = {
    'mmdet': Scope('mmdet', _default_box_tta, _dump_detections, _draw_detections),
    'mmrotate': Scope(
        'onedl-mmrotate', _no_default_tta, _dump_detections, _draw_detections
    ),
    'mmseg': Scope(
        'mmsegmentation', _no_default_tta, _write_label_maps, _draw_label_maps
    ),
}


def use_tta(cfg: Config) -> list[str]:
    """Make ``cfg`` test with augmentation, and return what to log about it."""
    notices = SCOPES[cfg.default_scope].default_tta(cfg)
    model = copy(cfg.tta_model)  # unlike ** it lets the config dump classes by name
    model['module'] = cfg.model
    cfg.model = model
    if 'tta_pipeline' in cfg:
        for dataset in innermost_datasets(cfg.test_dataloader.dataset).values():
            dataset['pipeline'] = cfg.tta_pipeline
    return notices


def use_visualization(cfg: Config, show: bool, show_dir: str, wait_time: float) -> None:
    """Make ``cfg`` draw the predictions, in windows or in ``show_dir``."""
    hook = (cfg.get('default_hooks') or {}).get('visualization')
    if not hook:
        raise ConfigError(
            '--show and --show-dir need default_hooks.visualization in the config, '
            "such as dict(type='DetVisualizationHook')"
        )
    hook.draw = True
    for key in _TRAINING:  # mmseg's hook asks for the iteration, which builds the loop
        cfg.pop(key, None)
    if show:
        import matplotlib  # slow, and needed only here

        if matplotlib.get_backend().lower() == 'agg':
            raise ConfigError('--show: found no display; use --show-dir')
        hook.show = True
        hook.wait_time = wait_time
    if show_dir:
        SCOPES[cfg.default_scope].save_images(cfg, show_dir)
