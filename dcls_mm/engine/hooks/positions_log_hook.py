"""Figures of the positions during training, among the scalars that mmengine logs."""

from mmengine.dist import is_main_process
from mmengine.hooks import LoggerHook
from mmengine.runner import Runner
from torch.distributed.fsdp import FullyShardedDataParallel

from ...checkpoint.matching import unwrapped
from ...checks.arguments import checked
from ...functional._arguments import as_int
from ...layers.positions import LearnedPositions
from .position_hooks import PositionHook
from .start_positions import note_start, start_positions


class PositionsLogHook(PositionHook):
    """A hook that logs extent, count, spread and travel of the positions by stage.

    They go through ``runner.visualizer`` to all its backends, such as the file
    scalars.json, as ``positions/<stage>/extent`` (taps along the longest learned axis),
    ``/count`` (elements per kernel), ``/spread`` (standard deviation in pixels) and
    ``/travel`` (mean distance in pixels from the start of the training, even if it was
    resumed). Travel ends where elements are added or removed.
    ``tools/analysis_tools/visualize.py curves`` draws them. ``tools/train.py`` adds
    the hook to the training of any model with DCLS layers.

    Args:
        interval: iterations between two records, at least 1; by default that of
            mmengine's LoggerHook.
    """

    priority = 'LOW'  # after everything that changes positions

    def __init__(self, interval: int | None = None) -> None:
        super().__init__(by_epoch=False)
        if interval is not None:
            checked(as_int, 'PositionsLogHook.interval', interval, minimum=1)
        self.interval = interval

    def before_train(self, runner) -> None:
        """Note the positions, unless a resumed training has its initial ones."""
        super().before_train(runner)
        note_start(runner)
        if self.interval is None:
            loggers = [hook for hook in runner.hooks if isinstance(hook, LoggerHook)]
            self.interval = loggers[0].interval if loggers else 10  # mmengine's default

    def after_train_iter(
        self, runner, batch_idx: int, data_batch=None, outputs: dict | None = None
    ) -> None:
        """Log, if it is time or the last iteration."""
        last = self.is_last_train_iter(runner)
        if not last and not self.every_n_train_iters(runner, self.interval):
            return
        if not is_main_process():
            return
        from ...analysis import collect_elements
        from ...analysis.progress import stage_figures

        _, start = start_positions(runner)
        try:
            figures = stage_figures(collect_elements(unwrapped(runner.model)), start)
        except ValueError as error:
            runner.logger.warning(f'{type(self).__name__}: logs nothing: {error}')
            return
        runner.visualizer.add_scalars(figures, step=runner.iter + 1)


def log_positions(runner) -> None:
    """Add the hook to a training of positions, unless its config names one.

    Where a strategy builds the model later, or FSDP shards it, nothing is logged.
    """
    named = any(isinstance(hook, PositionsLogHook) for hook in runner.hooks)
    if named or not isinstance(runner, Runner):
        return
    modules = list(runner.model.modules())
    sharded = any(isinstance(module, FullyShardedDataParallel) for module in modules)
    if not sharded and any(isinstance(module, LearnedPositions) for module in modules):
        runner.register_hook(PositionsLogHook())
