"""Checks for mistakes in a config that mmengine would ignore or find late."""

import difflib
import inspect
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from mmengine.config import Config
from mmengine.runner import Runner

from .config_tree import innermost_datasets, items, metrics
from .errors import ConfigError

# The top-level keys of a config: the arguments of Runner, and what mmengine and the
# tools look up by name.
_TOP_LEVEL = {
    *inspect.signature(Runner).parameters,
    'activation_checkpointing',
    'compile',
    'efficient_conv_bn_eval',
    'find_unused_parameters',
    'model_wrapper_cfg',
    'runner_type',
    'sync_bn',
    'tta_model',
    'tta_pipeline',
}

# What each kind of run needs; mmengine wants all keys of a line or none.
_SECTIONS = {
    'train': ('optim_wrapper', 'train_dataloader', 'train_cfg'),
    'val': ('val_dataloader', 'val_evaluator', 'val_cfg'),
    'test': ('test_dataloader', 'test_evaluator', 'test_cfg'),
}


def apply_overrides(cfg: Config, overrides: dict[str, Any]) -> None:
    """Merge ``--cfg-options`` into ``cfg``.

    mmengine accepts any key, even if nothing reads it: a misspelt section, or a
    variable of the config file whose value has already been used.

    Raises:
        ConfigError: a key that nothing reads, a key inside something that is not a
            section, or an index past the end of a list.
    """
    for key in overrides:
        problem = _override_problem(cfg, key)
        if problem:
            raise ConfigError(f'--cfg-options {key}: {problem}')
    cfg.merge_from_dict(overrides)


def _override_problem(cfg: Config, key: str) -> str | None:
    first, *rest = parts = key.split('.')
    if first not in _TOP_LEVEL:
        if first not in cfg:
            return f'no config has a {first}' + _suggestion(first, _TOP_LEVEL, 0.6)
        copies = ', '.join(_copies(cfg, first)) or 'what was made from it'
        return (
            f'{first} is a variable of the config file, and its value has already been '
            f'used; set {copies}'
        )
    section = cfg.get(first, {})
    for depth, part in enumerate(rest, 1):
        where = '.'.join(parts[:depth])
        if isinstance(section, (list, tuple)):
            if not part.isdigit() or int(part) >= len(section):
                return f'{where} is a list of {len(section)}, without a {part}'
            section = section[int(part)]
        elif part.isdigit() and section == {}:
            return (
                f'the config has no {where}, so there is no {part} in it; write the '
                'list into a config whose _base_ is this one'
            )
        elif not isinstance(section, dict):
            return f'{where} is {section!r}, which has no {part} to set'
        elif part in section:
            section = section[part]
        else:  # a new key is fine, unless it looks like a slip for another
            suggestion = _suggestion(part, section, 0.75)
            is_section = depth < len(rest)
            if is_section and suggestion:
                return f'{where} has no {part}{suggestion}'
            section = {}
    return None


def nearest(name: str, known: Iterable[str], cutoff: float) -> str | None:
    """Return the known name that is most similar to an unknown one, ignoring case.

    Args:
        name: the unknown name.
        known: the known names.
        cutoff: the least similarity, from 0 to 1.
    """
    folded = {other.casefold(): other for other in known}
    similar = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=cutoff)
    return folded[similar[0]] if similar else None


def _suggestion(name: str, known: Iterable[str], cutoff: float) -> str:
    similar = nearest(name, known, cutoff)
    return f'; did you mean {similar}?' if similar else ''


def _copies(cfg: Config, variable: str) -> list[str]:
    """Return the keys that seem to have got the value of a config file's variable."""
    value = cfg[variable]
    comparable = bool(value) and isinstance(value, (str, dict, list, tuple))
    return [
        key
        for section in cfg
        if section in _TOP_LEVEL
        for key, item in items(cfg[section], section)
        if key.endswith(f'.{variable}') or (comparable and item == value)
    ]


def check_sections(cfg: Config, kind: str) -> None:
    """Check that a config has what a run needs.

    Args:
        cfg: the config.
        kind: 'train' or 'test'.

    Raises:
        ConfigError: a section is missing, or only some of those that belong together
            are there.
    """
    for key in ('model', *_SECTIONS[kind]):
        if cfg.get(key) is None:
            raise ConfigError(f'the config has no {key}, so it is not for {kind}ing')
    for keys in _SECTIONS.values():
        absent = [key for key in keys if cfg.get(key) is None]
        if 0 < len(absent) < len(keys):
            raise ConfigError(
                f'the config has no {" and no ".join(absent)}; it needs all of '
                f'{", ".join(keys)}, or none of them'
            )


def check_workers(cfg: Config, stages: Sequence[str]) -> list[str]:
    """Remove the settings that a dataloader can't have without worker processes.

    Args:
        cfg: the config.
        stages: what is about to run, any of 'train', 'val' and 'test'.

    Returns:
        What to log about it.

    Raises:
        ConfigError: the number of workers is not a number of at least 0.
    """
    notices = []
    for key in (f'{stage}_dataloader' for stage in stages):
        dataloader = cfg.get(key) or {}
        workers = dataloader.get('num_workers', 0)
        if isinstance(workers, bool) or not isinstance(workers, int) or workers < 0:
            raise ConfigError(
                f'{key}.num_workers must be an integer of at least 0, got {workers!r}'
            )
        for option in ('persistent_workers', 'prefetch_factor'):
            if not workers and dataloader.get(option):
                del dataloader[option]
                notices.append(
                    f'{key}.{option} is ignored, as num_workers is 0: there are no '
                    'worker processes'
                )
    return notices


def check_data(cfg: Config, stages: Sequence[str]) -> None:
    """Check that the data are where the config says, before anything is built.

    Args:
        cfg: the config.
        stages: what is about to run, any of 'train', 'val' and 'test'.

    Raises:
        ConfigError: a local data root, annotation file or image folder does not exist;
            the message has a line for each, naming its keys.
    """
    missing: dict[str, list[str]] = {}
    for stage in stages:
        key = f'{stage}_dataloader'
        readers = {**innermost_datasets(cfg.get(key), key), **metrics(cfg, stage)}
        for name, reader in readers.items():
            for option, path in _needed(reader):
                if not os.path.exists(path):
                    missing.setdefault(path, []).append(f'{name}.{option}')
    if missing:
        raise ConfigError(
            '\n'.join(
                f'{names[0]}: {path!r} does not exist (looked in {os.getcwd()}); put '
                'the data there, or pass --cfg-options '
                + ' '.join(f'{name}=...' for name in names)
                for path, names in missing.items()
            )
        )


def _needed(reader: dict) -> Iterator[tuple[str, str]]:
    """Yield the paths that a data set or a metric reads, each after its key."""
    root = reader.get('data_root') or ''
    if reader.get('backend_args') or '://' in root:
        return  # not local, or not files
    if root and not os.path.exists(root):
        yield 'data_root', root
        return
    prefixes = reader.get('data_prefix')
    paths = {'ann_file': reader.get('ann_file')}
    if isinstance(prefixes, dict):
        paths.update({f'data_prefix.{name}': path for name, path in prefixes.items()})
    for option, path in paths.items():
        if isinstance(path, str) and path and '://' not in path:
            yield option, os.path.join(root, path)
