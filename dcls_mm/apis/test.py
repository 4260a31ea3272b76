"""What ``tools/test.py`` does, for any mmdet or mmseg config; see :mod:`.train`."""

import os
from typing import Any

from mmengine.config import Config

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
def test(**options: Any) -> None:
    """Tests; the options are those of ``prepare_test``."""
    cfg, notices = prepare_test(**options)
    runner = build_runner(cfg, notices, ['test'])
    runner.register_hook(CheckpointMatchHook(cfg.load_from))
    runner.test()
