"""The runner of a prepared config."""

from collections.abc import Sequence

from mmengine.config import Config
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from ..checks.dataset_checks import check_datasets
from .launchers import join_processes


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
