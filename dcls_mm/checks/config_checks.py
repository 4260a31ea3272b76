"""Finds the mistakes in a config that mmengine would pass over or meet late."""

import difflib
import inspect
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from mmengine.config import Config
from mmengine.runner import Runner

from .config_tree import innermost_datasets, items, metrics
from .errors import ConfigError

# What a config may hold at the top: what Runner takes, and what mmengine and
# the tools look up by name.
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

# What each kind of run needs; mmengine takes all of a line, or none.
_SECTIONS = {
    'train': ('optim_wrapper', 'train_dataloader', 'train_cfg'),
    'val': ('val_dataloader', 'val_evaluator', 'val_cfg'),
    'test': ('test_dataloader', 'test_evaluator', 'test_cfg'),
}


def apply_overrides(cfg: Config, overrides: dict[str, Any]) -> None:
    """Merges ``--cfg-options`` into ``cfg``.

    mmengine accepts any key, also those that nobody will read: a misspelt
    section, or a variable of the config file that has been used up by then.

    Raises:
        ConfigError: such a key, one inside something that is no section, or
            an index past the end of a list.
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
        copies = ', '.join(_copies(cfg, first)) or 'what was made of it'
        return (
            f'{first} is a variable of the config file, whose value has been used by '
            f'now; set {copies}'
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
            return f'{where} is {section!r}, and has no {part} to set'
        elif part in section:
            section = section[part]
        else:  # A new key is fine, unless it looks like a slip for another.
            suggestion = _suggestion(part, section, 0.75)
            is_section = depth < len(rest)
            if is_section and suggestion:
                return f'{where} has no {part}{suggestion}'
            section = {}
    return None


def nearest(name: str, known: Iterable[str], cutoff: float) -> str | None:
    """The known name that is most like one that is not known, in any case of letters.

    Args:
        name: What is not known.
        known: The names that are.
        cutoff: How alike they must be, from 0 to 1.
    """
    folded = {other.casefold(): other for other in known}
    similar = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=cutoff)
    return folded[similar[0]] if similar else None


def _suggestion(name: str, known: Iterable[str], cutoff: float) -> str:
    similar = nearest(name, known, cutoff)
    return f'; did you mean {similar}?' if similar else ''


def _copies(cfg: Config, variable: str) -> list[str]:
    """The keys to which a variable of the config file seems to have gone."""
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
    """Checks that a config has what a run needs.

    Args:
        cfg: The config.
        kind: 'train' or 'test'.

    Raises:
        ConfigError: it lacks a section, or has only some of those that belong together.
    """
    for key in ('model', *_SECTIONS[kind]):
        if cfg.get(key) is None:
            raise ConfigError(f'the config has no {key}, it is not for {kind}ing')
    for keys in _SECTIONS.values():
        absent = [key for key in keys if cfg.get(key) is None]
        if 0 < len(absent) < len(keys):
            raise ConfigError(
                f'the config has no {" and no ".join(absent)}; it needs all of '
                f'{", ".join(keys)}, or none of them'
            )


def check_workers(cfg: Config, stages: Sequence[str]) -> list[str]:
    """Takes out what a dataloader can't have without worker processes.

    Args:
        cfg: The config.
        stages: What is about to run: 'train', 'val' and 'test' in any number.

    Returns:
        What to log about it.

    Raises:
        ConfigError: the number of workers is no number.
    """
    notices = []
    for key in (f'{stage}_dataloader' for stage in stages):
        dataloader = cfg.get(key) or {}
        workers = dataloader.get('num_workers', 0)
        if isinstance(workers, bool) or not isinstance(workers, int) or workers < 0:
            raise ConfigError(
                f'{key}.num_workers must be a number, 0 or more, got {workers!r}'
            )
        for option in ('persistent_workers', 'prefetch_factor'):
            if not workers and dataloader.get(option):
                del dataloader[option]
                notices.append(
                    f'{key}.{option} is left out, as num_workers is 0: there are no '
                    'processes besides this one'
                )
    return notices


def check_data(cfg: Config, stages: Sequence[str]) -> None:
    """Checks that the data are where the config says, before anything is built.

    Args:
        cfg: The config.
        stages: What is about to run: 'train', 'val' and 'test' in any number.

    Raises:
        ConfigError: a data root, annotation file or image folder on this
            machine does not exist; one line for each, naming its keys.
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
    """The paths that a data set or a metric reads, each with the key that says so."""
    root = reader.get('data_root') or ''
    if reader.get('backend_args') or '://' in root:
        return  # not on this machine, or not as files
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
