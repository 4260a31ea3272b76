"""Training by ``tools/train.py``, for any mmdet or mmseg config.

``prepare_train`` turns options into a config and checks it, so that mistakes show
before anything is built. Once nobody else can write to the work directory,
``settle_resume`` chooses the checkpoint to resume from. ``train`` does both, and
trains.
"""

from typing import Any

from mmengine.config import Config
from mmengine.device import get_device

from ..backbones.readers import check_inputs
from ..checkpoint.mmengine_loaders import as_data
from ..checkpoint.resumable import (
    TEMPLATES,
    check_resumable,
    check_template,
    find_resumable,
)
from ..checks.class_checks import check_classes, foresee_test
from ..checks.config_checks import check_data, check_sections, check_workers
from ..checks.config_tree import type_name
from ..checks.errors import ConfigError, errors_about
from ..checks.unused_outputs import check_outputs
from ..engine.hooks.load_from_hook import LoadFromHook
from ..engine.hooks.positions_log_hook import log_positions
from ..engine.hooks.resume_match_hook import ResumeMatchHook
from ..engine.optimizers.optim_checks import guard_training
from .configs import load_config
from .runner import build_runner
from .work_dir import sole_training


def prepare_train(
    config: str,
    work_dir: str | None = None,
    amp: bool = False,
    auto_scale_lr: bool = False,
    cfg_options: dict[str, Any] | None = None,
    launcher: str = 'none',
) -> tuple[Config, list[str]]:
    """Turn the options of ``tools/train.py``, except ``--resume``, into a config.

    Args:
        config, work_dir, cfg_options, launcher: see ``load_config``.
        amp: train in mixed precision.
        auto_scale_lr: scale the learning rate to the batch size in use.

    Returns:
        The config, and what to log about it.

    Raises:
        ConfigError: an option doesn't fit the config, or data are missing.
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
    check_inputs(cfg)
    notices += check_classes(cfg, stages) + foresee_test(cfg)
    return cfg, notices + check_outputs(cfg)


def _set_precision(cfg: Config, amp: bool) -> list[str]:
    """Switch mixed precision on, or off if there is no GPU for it.

    mmengine's wrapper demands a GPU. Autocasting to bfloat16 without it would not help
    detectors: mmcv's nms and RoIAlign do not support bfloat16 on a CPU.
    """
    wrapper = cfg.optim_wrapper
    on_gpu = get_device() not in ('cpu', 'mps')
    kind = type_name(wrapper) or 'OptimWrapper'
    if amp:
        if kind not in ('OptimWrapper', 'AmpOptimWrapper'):
            raise ConfigError(
                '--amp: optim_wrapper.type must be OptimWrapper or AmpOptimWrapper, '
                f'got {kind}'
            )
        if not on_gpu:
            raise ConfigError('--amp: mixed precision needs a GPU, and none was found')
        wrapper.type = 'AmpOptimWrapper'
        wrapper.setdefault('loss_scale', 'dynamic')
    elif kind == 'AmpOptimWrapper' and not on_gpu:
        wrapper.type = 'OptimWrapper'
        for option in ('loss_scale', 'dtype', 'use_fsdp'):
            wrapper.pop(option, None)
        return ['optim_wrapper.type: no GPU for AmpOptimWrapper, trains in float32']
    return []


def settle_resume(cfg: Config, resume: str | None) -> list[str]:
    """Settle which checkpoint to resume from, so that mmengine need not guess.

    The checkpoint is read, checked and handed on to mmengine.

    Args:
        cfg: the config; its ``resume`` and ``load_from`` are set.
        resume: the checkpoint, or 'auto' for the last whole one in the work directory;
            None if the config decides.

    Returns:
        What to log about it.

    Raises:
        ConfigError: the config's ``filename_tmpl`` is invalid.
        CheckpointError: training can't resume from the checkpoint.
    """
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
        notices = [f'--resume: skips a checkpoint: {reason}' for reason in skipped]
        if resume is None:
            cfg.resume = False
            return [
                *notices,
                f'--resume: no checkpoint in {cfg.work_dir}, starts from scratch',
            ]
    cfg.resume = True
    cfg.load_from = resume
    return [*notices, f'--resume: resumes from {resume}']


@as_data()
def train(resume: str | None = None, **options: Any) -> None:
    """Train a model; see ``settle_resume`` and ``prepare_train`` for the options.

    Raises:
        ConfigError: also if another training is using the work directory, or nothing
            more can be written there.
    """
    cfg, notices = prepare_train(**options)
    with sole_training(cfg.work_dir, cfg.launcher) as warnings:
        # From here on nobody else writes checkpoints.
        notices += warnings + settle_resume(cfg, resume)
        runner = build_runner(cfg, notices, ['train', 'val'])
        guard_training(runner)
        log_positions(runner)
        if cfg.get('resume'):
            runner.register_hook(ResumeMatchHook(cfg.load_from))
        elif cfg.get('load_from'):
            runner.register_hook(LoadFromHook(cfg.load_from))
        runner.train()
