"""Testing by ``tools/test.py``, for any mmdet or mmseg config; see :mod:`.train`."""

import os
from typing import Any

from mmengine.config import Config

from ..backbones.readers import check_inputs
from ..checkpoint import MissingCheckpointError
from ..checkpoint.mmengine_loaders import as_data
from ..checks.class_checks import check_classes
from ..checks.config_checks import check_data, check_sections, check_workers
from ..engine.hooks.checkpoint_match_hook import CheckpointMatchHook
from .configs import load_config
from .runner import build_runner
from .scopes import SCOPES, use_tta, use_visualization


def prepare_test(
    config: str,
    checkpoint: str,
    work_dir: str | None = None,
    out: str | None = None,
    show: bool = False,
    show_dir: str | None = None,
    wait_time: float = 2.0,
    tta: bool = False,
    cfg_options: dict[str, Any] | None = None,
    launcher: str = 'none',
) -> tuple[Config, list[str]]:
    """Turn the options of ``tools/test.py`` into a config.

    Args:
        config, work_dir, cfg_options, launcher: see ``load_config``.
        checkpoint: the weights: a path, or a URL that mmengine knows.
        out: where to write predictions: for mmdet a .pkl file, for mmseg a folder.
        show: show each prediction in a window, for ``wait_time`` seconds.
        show_dir: the folder for pictures of the predictions.
        wait_time: see ``show``.
        tta: test with augmentation.

    Returns:
        The config, and what to log about it.

    Raises:
        ConfigError: an option doesn't fit the config, or data are missing.
        MissingCheckpointError: the checkpoint does not exist.
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
    check_inputs(cfg)
    notices = check_workers(cfg, ['test']) + check_classes(cfg, ['test'])
    if show or show_dir:
        use_visualization(cfg, show, show_dir, wait_time)
    if out:
        SCOPES[cfg.default_scope].save_predictions(cfg, out)
    return cfg, notices + (use_tta(cfg) if tta else [])


@as_data()
def test(**options: Any) -> None:
    """Test a model; the options are those of ``prepare_test``."""
    cfg, notices = prepare_test(**options)
    runner = build_runner(cfg, notices, ['test'])
    runner.register_hook(CheckpointMatchHook(cfg.load_from))
    runner.test()
