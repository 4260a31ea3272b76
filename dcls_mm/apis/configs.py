"""A config as a command reads it: checked, with the command line's overrides."""

import os
from importlib.util import find_spec
from typing import Any

from mmengine.config import Config

from ..checks.config_checks import apply_overrides
from ..checks.config_tree import find_scope
from ..checks.errors import ConfigError
from .scopes import SCOPES


def load_config(
    config: str,
    work_dir: str | None = None,
    cfg_options: dict[str, Any] | None = None,
    launcher: str = 'none',
) -> Config:
    """Read a config and merge the options that training and testing share.

    Args:
        config: the file.
        work_dir: the folder for logs and checkpoints; by default the config's, or else
            ``work_dirs/<name of the file>``.
        cfg_options: overrides, by dotted key.
        launcher: 'none', 'pytorch', 'slurm' or 'mpi'.

    Raises:
        ConfigError: the file does not exist or can't be read, a key is unknown, or the
            scope is none of ``SCOPES``, or not installed.
    """
    if not os.path.isfile(config):
        raise ConfigError(f'config {config} does not exist (looked in {os.getcwd()})')
    try:
        cfg = Config.fromfile(config)
        scope = cfg.get('default_scope') or find_scope(cfg, SCOPES)
    except Exception as error:  # a config is a program
        reason = error if error.__cause__ is None else error.__cause__
        raise ConfigError(
            f'{config}: cannot be read, {type(reason).__name__}: {reason}'
        ) from error
    apply_overrides(cfg, cfg_options or {})
    for key in [key for key in cfg if cfg[key] is None]:
        cfg.pop(key)  # None means left out; mmengine reads only some keys that way
    if scope not in SCOPES:
        raise ConfigError(
            f'{config}: default_scope must be one of {", ".join(SCOPES)}, got {scope!r}'
            + ('' if scope else ', and no type in the config is one of their classes')
        )
    if find_spec(scope) is None:
        raise ConfigError(
            f'{config}: default_scope is {scope!r}, which is not installed; '
            f'pip install {SCOPES[scope].package}'
        )
    cfg.default_scope = scope
    cfg.launcher = launcher
    if work_dir is not None:
        cfg.work_dir = str(work_dir)
    elif not cfg.get('work_dir'):
        name = os.path.splitext(os.path.basename(config))[0]
        cfg.work_dir = os.path.join('work_dirs', name)
    return cfg
