"""The runner of a prepared config."""

from collections.abc import Sequence

from mmengine.config import Config
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from ..checks.dataset_checks import check_datasets
from .launchers import join_processes


def build_runner(cfg: Config, notices: list[str], stages: Sequence[str]) -> Runner:
    """Build the runner of a prepared config, and log the notices about it.

    Args:
        cfg: the config.
        notices: what to log.
        stages: what is about to run, any of 'train', 'val' and 'test'.
    """
    notices = notices + join_processes(cfg)
    runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    check_datasets(runner, cfg, stages)
    for notice in notices:
        runner.logger.warning(notice)
    return runner
