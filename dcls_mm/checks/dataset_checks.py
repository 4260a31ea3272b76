"""Checks that a data set, once built, has what its training or test needs.

mmengine builds a data set with its dataloader and uses it at once, so the checks run in
between: :func:`check_datasets` wraps a runner's ``build_dataloader``.
"""

import contextlib
import functools
import logging
import os
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import mmcv
import numpy as np
from mmengine.config import Config
from mmengine.fileio import get
from mmengine.logging import print_log
from mmengine.registry import DATASETS
from mmengine.runner import Runner

from .._listing import listing
from .config_tree import innermost_datasets
from .errors import ConfigError, errors_about

# How many images have their files checked, and how many have their objects checked.
_FILES = 16
_IMAGES = 1000


class _Built(NamedTuple):
    """A data set as built, without its wrappers, and its key in the config."""

    key: str
    dataset: Any

    @property
    def samples(self) -> list[int]:
        """The indices of a few images, spread over the data set."""
        count = len(self.dataset)
        return sorted({*np.linspace(0, count - 1, min(count, _FILES), dtype=int)})


def check_datasets(runner: Runner, cfg: Config, stages: Sequence[str]) -> None:
    """Make a runner check each data set that it builds, before it is used.

    The checks look at a few images of each, and at as many of a detector's training set
    as it takes to find an object.

    Args:
        runner: changed in place: its ``build_dataloader`` then raises a ConfigError for
            a data set that is empty, has missing files, or has labels beyond the
            model's outputs; and logs what is odd.
        cfg: its config, for the keys in messages.
        stages: what is about to run, any of 'train', 'val' and 'test'.
    """
    build = runner.build_dataloader

    @functools.wraps(build)
    def build_and_check(dataloader, *args, **kwargs):
        if not isinstance(dataloader, dict):
            return build(dataloader, *args, **kwargs)
        key = _key(cfg, dataloader, stages)
        try:
            built = build(dataloader, *args, **kwargs)
        except ValueError:  # mmengine fails to stack the images of an empty data set
            _check_not_empty(dataloader, key)
            raise
        for name, part in innermost_built(built.dataset, f'{key}.dataset').items():
            _check(_Built(name, part))
        return built

    runner.build_dataloader = build_and_check


def _key(cfg: Config, dataloader: dict, stages: Sequence[str]) -> str:
    """Return a dataloader's key; one that a tool changed is for the last stage."""
    keys = [f'{stage}_dataloader' for stage in stages]
    return next((key for key in keys if cfg.get(key) == dataloader), keys[-1])


def innermost_built(dataset: Any, key: str = 'dataset') -> dict[str, Any]:
    """Return the data sets inside all wrappers, by their keys in the config.

    :func:`.config_tree.innermost_datasets` does the same before they are built.
    """
    if hasattr(dataset, 'datasets'):
        parts = {f'{key}.datasets.{i}': part for i, part in enumerate(dataset.datasets)}
    elif hasattr(getattr(dataset, 'dataset', None), 'metainfo'):
        parts = {f'{key}.dataset': dataset.dataset}
    else:
        return {key: dataset}
    found = {}
    for name, part in parts.items():
        found.update(innermost_built(part, name))
    return found


def _check_not_empty(dataloader: dict, key: str) -> None:
    """Raise a ConfigError if one of a dataloader's data sets is empty."""
    settings = innermost_datasets(dataloader['dataset'], f'{key}.dataset')
    for name, one in settings.items():
        reason = None
        with contextlib.suppress(TypeError, KeyError, ValueError):  # of another kind
            dataset = DATASETS.build({**one, 'lazy_init': True, 'pipeline': []})
            reason = _why_empty(dataset)
        if reason:
            raise ConfigError(f'{name} is empty: {reason}')


def _why_empty(dataset: Any) -> str | None:
    """Return the reason why a data set of mmengine's kind is empty, if it is."""
    dataset.data_list = images = dataset.load_data_list()
    if dataset.filter_data():
        return None
    if images:
        return (
            f'filter_cfg={dataset.filter_cfg} leaves none of its {len(images)} images; '
            'are there objects of its classes?'
        )
    if dataset.ann_file or not hasattr(dataset, 'img_suffix'):
        return f'{dataset.ann_file} lists no images'
    folder = dataset.data_prefix.get('img_path') or ''
    names = [name for _, _, names in os.walk(folder) for name in names]
    suffixes = Counter(os.path.splitext(name)[1] for name in names)
    found = ', '.join(f'{count} {name!r}' for name, count in suffixes.most_common(3))
    return (
        f'no file in {folder!r} ends in img_suffix={dataset.img_suffix!r}; '
        f'there are {found or "no files"}'
    )


def _check(built: _Built) -> None:
    key, dataset = built
    try:
        count = len(dataset)
    except TypeError:  # an iterable data set
        return
    is_known = hasattr(dataset, 'load_data_list')  # of mmengine's kind
    if count == 0:
        reason = _why_empty(dataset) if is_known else None
        raise ConfigError(f'{key} is empty' + (f': {reason}' if reason else ''))
    if not is_known:
        return
    if getattr(dataset, 'backend_args', None) is None:
        _check_files(built)
    if _loader(dataset, 'with_seg') is not None and hasattr(dataset, 'img_suffix'):
        _check_labels(built)
    elif _loader(dataset, 'with_bbox') is not None and not dataset.test_mode:
        _check_objects(built)


# The paths in an entry of a data set, and the settings from which they come.
_PATHS = {
    'img_path': 'data_prefix or img_suffix',
    'seg_map_path': 'data_prefix or seg_map_suffix',
}


def _check_files(built: _Built) -> None:
    key, dataset = built
    for index in built.samples:
        info = dataset.get_data_info(index)
        for name, source in _PATHS.items():
            path = info.get(name)
            wanted = name == 'img_path' or _loader(dataset, 'with_seg') is not None
            if not wanted or not isinstance(path, str) or '://' in path:
                continue
            if not os.path.isfile(path):
                raise ConfigError(
                    f'{key}: {path!r} does not exist; is the {source} right? '
                    f'{_neighbours(path, info["img_path"])}'
                )


def _neighbours(path: str, image: str) -> str:
    """Describe what exists instead of a file: for the same image, or at all."""
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        return f'{folder!r} is not a folder'
    names = sorted(os.listdir(folder))
    stem = os.path.splitext(os.path.basename(image))[0]
    alike = [name for name in names if name.startswith(stem)]
    return f'{folder!r} has {listing(alike or names, 3) or "no files"}'


def _loader(dataset: Any, option: str) -> Any | None:
    """Return the step of a pipeline that loads annotations, if it loads this kind.

    Only those of mmcv, mmdet and mmseg count: how to call others is not known here.
    """
    for step in getattr(getattr(dataset, 'pipeline', None), 'transforms', ()):
        kind = type(step)
        is_stock = kind.__module__.partition('.')[0] in ('mmcv', 'mmdet', 'mmseg')
        if kind.__name__ == 'LoadAnnotations' and is_stock:
            return step if getattr(step, option, False) else None
    return None


def _check_labels(built: _Built) -> None:
    """Check a few label images of a segmentor's data set."""
    key, dataset = built
    load = _loader(dataset, 'with_seg')
    ignored = getattr(dataset, 'ignore_index', 255)
    classes = len(dataset.metainfo.get('classes') or ())
    backend = getattr(load, 'imdecode_backend', 'pillow')
    seen: set[int] = set()
    for index in built.samples:
        info = dataset.get_data_info(index)
        path = info.get('seg_map_path')
        if path is None:
            raise ConfigError(
                f'{key}: its pipeline loads label images, but their folder, '
                'data_prefix.seg_map_path, is not given'
            )
        content = get(path, backend_args=dataset.backend_args)
        # Decoders may raise anything.
        with errors_about(f"{key}: the label image {path} can't be read", Exception):
            stored = mmcv.imfrombytes(content, 'unchanged', backend=backend).squeeze()
        if stored.ndim != 2:
            raise ConfigError(
                f'{key}: the label image {path} must have one channel, with a class '
                f'number in each pixel; it has {stored.shape[-1]}'
            )
        if stored.max() > 255:
            raise ConfigError(
                f'{key}: the label image {path} has the label {stored.max()}; mmseg '
                'reads 8 bits, 0 to 255'
            )
        labels = {*np.unique(load(info)['gt_seg_map']).tolist()} - {ignored}
        beyond = [label for label in labels if label >= classes]
        if classes and beyond:
            raise ConfigError(
                f'{key}: {path} has the labels {_numbers(beyond)} '
                f'(in the file {_numbers(np.unique(stored))}), but there are '
                f'{classes} classes, 0 to {classes - 1}: are metainfo.classes, '
                f'model.decode_head.num_classes and '
                f'reduce_zero_label={_is_reduced(dataset)} right?'
            )
        seen |= labels
    _note_missing(built, seen, classes)


def _is_reduced(dataset: Any) -> bool:
    return bool(getattr(dataset, 'reduce_zero_label', False))


def _numbers(values: Sequence[int]) -> str:
    return listing([str(value) for value in values])


def _note_missing(built: _Built, seen: set[int], classes: int) -> None:
    """Log what is odd about the labels of a few images."""
    key, dataset = built
    where = f'{len(built.samples)} label images that were checked'
    notice = None
    if not seen:
        notice = f'{key}: all pixels of the {where} are ignored'
    elif classes > 1 and len(seen) == 1:
        notice = f'{key}: the {where} have only the label {seen.pop()}'
    elif _is_reduced(dataset) and seen == {*range(classes - 1)}:
        notice = (
            f'{key}: the {where} have every class but the last; reduce_zero_label=True '
            'subtracts 1 from each label and ignores 0, which is for files that count '
            'classes from 1'
        )
    if notice:
        print_log(notice, 'current', logging.WARNING)


def _check_objects(built: _Built) -> None:
    """Check that a detector's training set has an object."""
    key, dataset = built
    count = len(dataset)
    looked_at = range(0, count, max(1, count // _IMAGES))
    for index in looked_at:
        instances = dataset.get_data_info(index).get('instances')
        if instances is None or any(not part.get('ignore_flag') for part in instances):
            return
    words = f'{key}: none of {len(looked_at)} images has an object of its classes'
    if len(looked_at) == count:
        raise ConfigError(f'{words}; are metainfo.classes and the annotations right?')
    print_log(f'{words}, of {count}', 'current', logging.WARNING)
