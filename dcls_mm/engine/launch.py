"""What ``tools/train.py`` and ``tools/test.py`` do, for any mmdet or mmseg config.

A ``prepare_*`` function turns options into a config and checks it, so that
mistakes show before anything is built; ``train`` and ``test`` then run it.
"""

import os
import re
import sys
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, Callable, Optional

from mmengine.config import Config, DictAction
from mmengine.device import get_device
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from ..layers.noted import StateDictError
from .checkpoint import CheckpointError, MissingCheckpointError, as_data
from .checkpoint_hooks import CheckpointMatchHook
from .class_checks import check_classes, foresee_test
from .config_checks import (
    ConfigError,
    apply_overrides,
    check_data,
    check_sections,
    check_workers,
    errors_about,
)
from .config_tree import find_scope, type_name
from .dataset_checks import check_datasets
from .finite_loss_hook import NonFiniteLossError
from .launchers import join_processes
from .load_from_hook import LoadFromHook
from .optim_checks import guard_training
from .resume import TEMPLATES, check_resumable, check_template, find_resumable
from .resume_match import ResumeMatchHook
from .scopes import SCOPES, use_tta, use_visualization
from .unused_outputs import check_outputs
from .work_dir import sole_training


def add_override_argument(parser: ArgumentParser) -> None:
    """Adds ``--cfg-options``, for whatever reads a config."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        type=_assignment,
        metavar='KEY=VALUE',
        help='override settings of the config, e.g. train_dataloader.batch_size=4',
    )


def add_common_arguments(parser: ArgumentParser) -> None:
    """Adds the arguments that training and testing share."""
    add_override_argument(parser)
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='what started the processes of a distributed job',
    )
    # As torch.distributed.launch passes it; the stock scripts take both spellings.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)


# Where a value, or an element of a list, is a dict as Python writes it.
_DICT = re.compile(r"""(?:^|[\[(,])\s*['"]?(?:dict\(|\{\s*['"])""")


def _assignment(text: str) -> str:
    """Checks an override, as ``DictAction`` ends in a traceback or makes other values.

    Raises:
        ArgumentTypeError: it is no KEY=VALUE, has a dict in it, or odd brackets.
    """
    key, equals, value = text.partition('=')
    if not (key and equals):
        raise ArgumentTypeError(f'expected KEY=VALUE, got {text!r}')
    if _DICT.search(value):
        raise ArgumentTypeError(
            f"{key}: a dict can't be given here, got {value!r}; write it into a config "
            f'whose _base_ is this one, or set keys of a section by {key}.NAME=VALUE'
        )
    try:
        DictAction._parse_iterable(value)
    except (AssertionError, RecursionError):
        raise ArgumentTypeError(
            f'{key}: expected a value, or a list such as [1,2] or (1,2), got {value!r}'
        ) from None
    return text


def load_config(
    config: str,
    work_dir: Optional[str] = None,
    cfg_options: Optional[dict[str, Any]] = None,
    launcher: str = 'none',
) -> Config:
    """Reads a config and merges the options that training and testing share.

    Args:
        config: The file.
        work_dir: Where logs and checkpoints go; by default what the config
            says, or else ``work_dirs/<name of the file>``.
        cfg_options: What to override, by dotted key.
        launcher: 'none', 'pytorch', 'slurm' or 'mpi'.

    Raises:
        ConfigError: no such file, one that can't be read, an unknown key, or a scope
            other than mmdet and mmseg.
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
        cfg.pop(key)  # None means left out; mmengine reads some keys so, not all
    if scope not in SCOPES:
        raise ConfigError(
            f'{config}: default_scope must be one of {", ".join(SCOPES)}, is {scope!r}'
            + ('' if scope else ', and no type in the config is a class of theirs')
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


def prepare_train(
    config: str,
    work_dir: Optional[str] = None,
    resume: Optional[str] = None,
    amp: bool = False,
    auto_scale_lr: bool = False,
    cfg_options: Optional[dict[str, Any]] = None,
    launcher: str = 'none',
) -> tuple[Config, list[str]]:
    """Turns the options of ``tools/train.py`` into a config.

    Args:
        config: See ``load_config``, as for work_dir, cfg_options and launcher.
        resume: The checkpoint to go on from, or 'auto' for the last whole one
            in the work directory.
        amp: Train in mixed precision.
        auto_scale_lr: Scale the learning rate to the batch size in use.

    Returns:
        The config, and what to log about it.

    Raises:
        ConfigError: the config can't serve an option, or data are missing.
        CheckpointError: the checkpoint can't be resumed from.
    """
    cfg = load_config(config, work_dir, cfg_options, launcher)
    check_sections(cfg, 'train')
    stages = ['train', 'val'] if 'val_cfg' in cfg else ['train']
    notices = check_workers(cfg, stages) + _set_precision(cfg, amp)
    if auto_scale_lr:
        if not (cfg.get('auto_scale_lr') or {}).get('base_batch_size'):
            raise ConfigError(
                '--auto-scale-lr: the config has no auto_scale_lr.base_batch_size, '
                'the batch size for which its learning rate was chosen'
            )
        cfg.auto_scale_lr.enable = True
    check_data(cfg, stages)
    notices += check_classes(cfg, stages) + foresee_test(cfg)
    notices += check_outputs(cfg)
    return cfg, notices + _set_resume(cfg, resume)


def _set_precision(cfg: Config, amp: bool) -> list[str]:
    """Switches mixed precision on, or off where there is no GPU for it.

    mmengine's wrapper demands a GPU. Autocasting to bfloat16 without it would
    not help detectors: mmcv's nms and RoIAlign take no bfloat16 on a CPU.
    """
    wrapper = cfg.optim_wrapper
    on_gpu = get_device() not in ('cpu', 'mps')
    kind = type_name(wrapper) or 'OptimWrapper'
    if amp:
        if kind not in ('OptimWrapper', 'AmpOptimWrapper'):
            raise ConfigError(
                '--amp: optim_wrapper.type must be OptimWrapper or AmpOptimWrapper, '
                f'is {kind}'
            )
        if not on_gpu:
            raise ConfigError('--amp: mixed precision needs a GPU, and none is found')
        wrapper.type = 'AmpOptimWrapper'
        wrapper.setdefault('loss_scale', 'dynamic')
    elif kind == 'AmpOptimWrapper' and not on_gpu:
        wrapper.type = 'OptimWrapper'
        for option in ('loss_scale', 'dtype', 'use_fsdp'):
            wrapper.pop(option, None)
        return ['optim_wrapper.type: no GPU for AmpOptimWrapper, trains in float32']
    return []


def _set_resume(cfg: Config, resume: Optional[str]) -> list[str]:
    """Settles which checkpoint to go on from, so that mmengine need not guess."""
    if resume is None and cfg.get('resume'):
        resume = cfg.get('load_from') or 'auto'
    if resume is None:
        return []
    if resume != 'auto':
        check_resumable(resume)
        notices = []
    else:
        hook = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
        template = hook.get('filename_tmpl')
        if template is not None:
            with errors_about('default_hooks.checkpoint.filename_tmpl'):
                check_template(template)
        resume, skipped = find_resumable(
            cfg.work_dir,
            TEMPLATES if template is None else [template],
            hook.get('out_dir'),
        )
        notices = [f'--resume: passes over: {reason}' for reason in skipped]
        if resume is None:
            cfg.resume = False
            return [*notices, f'--resume: no checkpoint in {cfg.work_dir}, starts anew']
    cfg.resume = True
    cfg.load_from = resume
    return [*notices, f'--resume: goes on from {resume}']


def prepare_test(
    config: str,
    checkpoint: str,
    work_dir: Optional[str] = None,
    out: Optional[str] = None,
    show: bool = False,
    show_dir: Optional[str] = None,
    wait_time: float = 2.0,
    tta: bool = False,
    cfg_options: Optional[dict[str, Any]] = None,
    launcher: str = 'none',
) -> tuple[Config, list[str]]:
    """Turns the options of ``tools/test.py`` into a config.

    Args:
        config: See ``load_config``, as for work_dir, cfg_options and launcher.
        checkpoint: The weights: a path, or a URL that mmengine knows.
        out: Where predictions go: for mmdet a file, ending in .pkl; for mmseg
            a folder.
        show: Show each prediction in a window, for ``wait_time`` seconds.
        show_dir: The folder into which pictures of the predictions go.
        wait_time: See ``show``.
        tta: Test with augmentation.

    Returns:
        The config, and what to log about it.

    Raises:
        ConfigError: the config can't serve an option, or data are missing.
        MissingCheckpointError: there is no such checkpoint.
    """
    if '://' not in checkpoint and not os.path.isfile(checkpoint):
        raise MissingCheckpointError(
            f'checkpoint {checkpoint} does not exist (looked in {os.getcwd()})'
        )
    cfg = load_config(config, work_dir, cfg_options, launcher)
    check_sections(cfg, 'test')
    cfg.load_from = checkpoint
    cfg.resume = False
    check_data(cfg, ['test'])
    notices = check_workers(cfg, ['test']) + check_classes(cfg, ['test'])
    if show or show_dir:
        use_visualization(cfg, show, show_dir, wait_time)
    if out:
        SCOPES[cfg.default_scope].save_predictions(cfg, out)
    return cfg, notices + (use_tta(cfg) if tta else [])


@as_data()
def train(**options: Any) -> None:
    """Trains; the options are those of ``prepare_train``.

    Raises:
        ConfigError: also where another training is at work in the work directory, or
            nothing more can be written there.
    """
    resume = options.pop('resume', None)
    cfg, notices = prepare_train(**options)
    with sole_training(cfg.work_dir, cfg.launcher) as warnings:
        notices += warnings
        if resume is not None:  # only now does nobody else write checkpoints
            notices += _set_resume(cfg, resume)
        runner = build_runner(cfg, notices, ['train', 'val'])
        guard_training(runner)
        if cfg.get('resume'):
            runner.register_hook(ResumeMatchHook(cfg.load_from))
        elif cfg.get('load_from'):
            runner.register_hook(LoadFromHook(cfg.load_from))
        runner.train()


@as_data()
def test(**options: Any) -> None:
    """Tests; the options are those of ``prepare_test``."""
    cfg, notices = prepare_test(**options)
    runner = build_runner(cfg, notices, ['test'])
    runner.register_hook(CheckpointMatchHook(cfg.load_from))
    runner.test()


def build_runner(cfg: Config, notices: list[str], stages: Sequence[str]) -> Runner:
    """Builds what runs a prepared config, and logs the notices about it.

    Args:
        cfg: The config.
        notices: What to log.
        stages: What is about to run: 'train', 'val' and 'test' in any number.
    """
    notices = notices + join_processes(cfg)
    runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    check_datasets(runner, cfg, stages)
    for notice in notices:
        runner.logger.warning(notice)
    return runner


def run(function: Callable[..., None], options: dict[str, Any]) -> None:
    """Calls ``train`` or ``test`` as a command.

    A mistake in the config, the options or a checkpoint, a layer that refuses a file of
    ``init_cfg``, and a loss that is not finite, end the process with status 1 and a
    sentence; any other error keeps its traceback.

    Args:
        function: ``train`` or ``test``.
        options: Its options, and ``local_rank`` where the launcher passes it.
    """
    os.environ.setdefault('LOCAL_RANK', str(options.pop('local_rank', 0)))
    try:
        with as_data():
            function(**options)
    except (ConfigError, CheckpointError, NonFiniteLossError) as error:
        sys.exit(f'error: {error}')
    except StateDictError as error:  # mmengine loads these, and logs which
        sys.exit(f'error: {error.reason}')
    except KeyboardInterrupt:
        sys.stderr.write('interrupted\n')
        sys.exit(130)
