"""Checks that class names fit the annotation files and the model's outputs.

mmdet and mmseg ignore most mistakes here: a class that no annotation has shifts the
labels of all classes after it, and the training goes on.
"""

import inspect
import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from mmengine.config import Config
from mmengine.fileio import list_from_file
from mmengine.registry import DATASETS, MODELS

from .._listing import listing
from .annotation_files import FILE_CHECKS, check_categories, local_path
from .config_tree import find_class, innermost_datasets, metrics, type_name
from .errors import ConfigError

# Names of ``classes`` in older releases, and common slips.
_OLD_NAMES = ('CLASSES', 'Classes', 'class', 'class_names', 'names', 'categories')

# Parts of a model, and types, whose num_classes counts something else: classes of the
# pretraining, objects against background, boundaries, classes of a semantic branch.
_OTHER_PARTS = {'backbone', 'neck', 'rpn_head', 'semantic_head', 'reid'}
_OTHER_TYPES = {'STDCHead', 'FusedSemanticHead'}

# Separates two keys whose sum is the number of classes.
_SUM = ' + '

# Parts of models that take class names as input, which may differ between data sets.
_TEXT_PARTS = ('language_model', 'text_encoder')


class _Classes(NamedTuple):
    """The classes of a data set: the key that names them, and their names."""

    key: str
    names: tuple[str, ...]
    things: int | None  # how many of a panoptic data set's are countable


def check_classes(cfg: Config, stages: Sequence[str]) -> list[str]:
    """Check the classes of a config, before anything is built.

    Args:
        cfg: the config, with a default_scope.
        stages: what is about to run, any of 'train', 'val' and 'test'.

    Returns:
        What to log: the categories that are left out.

    Raises:
        ConfigError: the classes are not names, do not fit an annotation file, differ
            between data sets, or are more or fewer than the model's outputs.
    """
    notices = []
    lists = []
    model = cfg.get('model') or {}
    takes_text = any(part in model for part in _TEXT_PARTS)
    for stage in stages:
        dataloader = cfg.get(f'{stage}_dataloader') or {}
        key = f'{stage}_dataloader.dataset'
        found = innermost_datasets(dataloader.get('dataset'), key)
        for name, dataset in found.items():
            kind = find_class(DATASETS, dataset.get('type'), cfg.default_scope)
            classes = _classes(dataset, name, kind)
            if classes is None:
                continue
            lists.append(classes)
            for base in _bases(kind):
                if base.__name__ in FILE_CHECKS:
                    check = FILE_CHECKS[base.__name__]
                    notices += check(dataset, kind, name, classes.key, classes.names)
                    if not takes_text:
                        _check_metrics(cfg, stage, classes)
                    break
    if lists and not takes_text:
        for other in lists[1:]:
            _check_equal(lists[0], other)
        _check_outputs(cfg, lists[0])
    return list(dict.fromkeys(notices))


def foresee_test(cfg: Config) -> list[str]:
    """Return what to log about a training config that testing will refuse."""
    try:
        check_classes(cfg, ['train', 'test'])
    except ConfigError as error:
        return [f'tools/test.py will refuse this config: {error}']
    return []


def _bases(kind: type | None) -> tuple[type, ...]:
    return getattr(kind, '__mro__', ())


def _classes(dataset: dict, key: str, kind: type | None) -> _Classes | None:
    """Return a data set's classes, or None if it finds them itself or has videos."""
    if any(base.__name__ == 'BaseVideoDataset' for base in _bases(kind)):
        return None  # trackers distinguish fewer classes than their videos name
    metainfo = dataset.get('metainfo') or {}
    if not isinstance(metainfo, dict):
        raise ConfigError(
            f'{key}.metainfo must be a dict such as dict(classes=(...)), got '
            f'{metainfo!r}'
        )
    key = f'{key}.metainfo.classes'
    for name in metainfo:
        if name in _OLD_NAMES and 'classes' not in metainfo:
            old = f'{key.rpartition(".")[0]}.{name}'
            raise ConfigError(f'{old}: nothing reads it; did you mean {key}?')
    default = getattr(kind, 'METAINFO', {})
    names = metainfo.get('classes', default.get('classes'))
    if names is None:
        return None
    if isinstance(names, str) and os.path.isfile(names):  # mmengine reads it
        names = list_from_file(names)
    names = _checked(names, key)
    colours = metainfo.get('palette')
    if isinstance(colours, (list, tuple)) and 0 < len(colours) < len(names):
        raise ConfigError(
            f'{key.replace("classes", "palette")} has {len(colours)} colours for '
            f'{len(names)} classes; give one per class, or leave it out'
        )
    things = metainfo.get('thing_classes', default.get('thing_classes'))
    return _Classes(key, names, None if things is None else len(things))


def _checked(names: Any, key: str) -> tuple[str, ...]:
    if isinstance(names, str):
        raise ConfigError(
            f'{key} must be a tuple of names, got the string {names!r}, each letter of '
            f'which would be a class; write ({names!r},)'
        )
    if not isinstance(names, (list, tuple)):
        raise ConfigError(
            f'{key} must be a tuple of names, in the order of their labels, got '
            f'{names!r}'
        )
    if not names:
        raise ConfigError(f'{key} must name at least one class, got none')
    for name in names:
        if not isinstance(name, str):
            raise ConfigError(f'{key} must be a tuple of names, got {name!r} in it')
        if names.count(name) > 1:
            raise ConfigError(f'{key} has {name!r} {names.count(name)} times')
    return tuple(names)


def _check_metrics(cfg: Config, stage: str, classes: _Classes) -> None:
    """Check the file of CocoMetric, which numbers labels as the data sets do."""
    for key, metric in metrics(cfg, stage).items():
        path = local_path(metric, 'ann_file')
        if path is not None and type_name(metric) == 'CocoMetric':
            origin = f'{key}.ann_file: {classes.key} are {listing(classes.names)}'
            check_categories(path, classes.key, classes.names, origin)


def _check_equal(first: _Classes, other: _Classes) -> None:
    if first.names == other.names:
        return
    if sorted(first.names) == sorted(other.names):
        difference = 'the same in another order'
    else:
        lacking = [name for name in first.names if name not in other.names]
        added = [name for name in other.names if name not in first.names]
        difference = ' and '.join(
            f'{words} {listing(names)}'
            for words, names in (('not', lacking), ('but', added))
            if names
        )
    raise ConfigError(
        f'{other.key} are other classes than {first.key}: {difference}; a label must '
        'mean the same class everywhere, so give both the same names in the same order'
    )


def _check_outputs(cfg: Config, classes: _Classes) -> None:
    """Compare each num_classes in the model with the number of classes."""
    count = len(classes.names)
    fitting = {count, classes.things}
    wrong = {}
    for key, number in _outputs(cfg.model, 'model', cfg.default_scope):
        if number not in fitting:
            wrong[key] = number
    if wrong:
        counts = ', '.join(f'{key} is {number}' for key, number in wrong.items())
        options = ' '.join(f'{key}={count}' for key in wrong if _SUM not in key)
        raise ConfigError(
            f'{counts}, but {classes.key} are {count} ({listing(classes.names)}); '
            + (f'pass --cfg-options {options}' if options else 'give as many')
            + ', or name the classes that the data have'
        )


def _outputs(node: Any, key: str, scope: str) -> Iterator[tuple[str, int]]:
    """Yield the keys of a model's numbers of classes, each with its number."""
    if isinstance(node, (list, tuple)):
        for index, part in enumerate(node):
            yield from _outputs(part, f'{key}.{index}', scope)
    if not isinstance(node, dict) or type_name(node) in _OTHER_TYPES:
        return
    number = node.get('num_classes')
    if number is None and type_name(node).endswith('Head'):
        number = _default_classes(find_class(MODELS, node.get('type'), scope))
    if isinstance(number, int):
        yield f'{key}.num_classes', number
    both = node.get('num_things_classes'), node.get('num_stuff_classes')
    if all(isinstance(part, int) for part in both):
        yield f'{key}.num_things_classes{_SUM}num_stuff_classes', sum(both)
    for name, part in node.items():
        if name not in _OTHER_PARTS:
            yield from _outputs(part, f'{key}.{name}', scope)


def _default_classes(kind: type | None) -> int | None:
    """Return the num_classes of a head whose config gives none."""
    for base in _bases(kind):
        parameter = inspect.signature(base.__init__).parameters.get('num_classes')
        if parameter is not None:
            return parameter.default
    return None
