"""Pictures of the positions during training, by mmengine's visualizer.

The drawing code brings matplotlib, so it is imported only when the hook draws.
"""

from dataclasses import replace

from mmengine.dist import is_main_process

from ...checkpoint.matching import unwrapped
from ...checks.arguments import checked
from ...functional._arguments import as_int
from .position_hooks import PositionHook
from .start_positions import note_start, start_positions


class PositionsVisualizationHook(PositionHook):
    """A hook that logs where the positions are and how they moved, every few epochs.

    It goes through ``runner.visualizer`` to all its backends (local files,
    TensorBoard). The images are ``dcls_positions``, ``dcls_movement``, since the start
    of the training even if it was resumed, and ``dcls_kernels``, of the first layer of
    those that share positions. The number ``dcls/displacement/<layer>`` is the mean
    distance from the start in pixels, per layer whose elements are still as many.
    Images show layers with two axes; numbers cover all. Only the main process draws.

    Args:
        interval: epochs (or iterations) between two pictures, at least 1.
        by_epoch: whether ``interval`` counts epochs or iterations.
        columns: how many kernels per layer to draw.
    """

    priority = 'LOW'  # after everything that changes positions

    def __init__(
        self, interval: int = 1, by_epoch: bool = True, columns: int = 6
    ) -> None:
        super().__init__(by_epoch)
        name = type(self).__name__
        self.interval = checked(as_int, f'{name}.interval', interval, minimum=1)
        self.columns = checked(as_int, f'{name}.columns', columns, minimum=1)

    def before_train(self, runner) -> None:
        """Note the positions, unless a resumed training has its initial ones."""
        super().before_train(runner)
        note_start(runner)

    def after_train_epoch(self, runner) -> None:
        """Draw, if it is time."""
        if self.by_epoch and self.every_n_epochs(runner, self.interval):
            self._log(runner, runner.epoch + 1)

    def after_train_iter(
        self, runner, batch_idx: int, data_batch=None, outputs: dict | None = None
    ) -> None:
        """Draw, if it is time."""
        if not self.by_epoch and self.every_n_train_iters(runner, self.interval):
            self._log(runner, runner.iter + 1)

    def _log(self, runner, step: int) -> None:
        if not is_main_process():
            return
        from ... import visualization
        from ...analysis import collect_elements
        from ...analysis.progress import travelled

        model = unwrapped(runner.model)
        try:
            now = collect_elements(model)
        except ValueError as error:
            runner.logger.warning(f'{type(self).__name__}: draws nothing: {error}')
            return
        begin, start = start_positions(runner)
        moved = travelled(now, start)
        visualizer = runner.visualizer
        for name, distance in moved.items():
            visualizer.add_scalar(f'dcls/displacement/{name}', distance, step)
        if not any(len(layer.axes) == 2 for layer in now.values()):
            return
        pictures = {'dcls_positions': visualization.draw_positions(now)}
        after = {name: now[name] for name in moved if len(now[name].axes) == 2}
        if after:
            before = {
                name: replace(layer, positions=start[name])
                for name, layer in after.items()
            }
            steps = begin[not self.by_epoch], step
            unit = 'epoch' if self.by_epoch else 'iteration'
            pictures['dcls_movement'] = visualization.draw_movement(
                (before, after), steps, unit, self.columns
            )
        kernels = visualization.depthwise_kernels(model)
        kernels = {name: kernel for name, kernel in kernels.items() if name in now}
        if kernels:
            pictures['dcls_kernels'] = visualization.draw_kernels(kernels, self.columns)
        for name, picture in pictures.items():
            visualizer.add_image(name, picture, step)
