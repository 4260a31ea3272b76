"""Pictures of the positions during training, by mmengine's visualizer.

The drawing code brings matplotlib, so it is imported only when the hook draws.
"""

from dataclasses import replace

import torch
from mmengine.dist import is_main_process

from ...checkpoint.matching import unwrapped
from ...checks.arguments import checked
from ...functional._arguments import as_int
from .position_hooks import PositionHook

# The key under which checkpoints keep the initial positions.
_START = 'dcls_start_positions'


class PositionsVisualizationHook(PositionHook):
    """A hook that logs where the positions are and how they moved, every few epochs.

    It goes through ``runner.visualizer`` to all its backends (local files,
    TensorBoard). The images are ``dcls_positions``, ``dcls_movement``, since the start
    of the training even if it was resumed, and ``dcls_kernels``, of the first layer of
    those that share positions. The number ``dcls/displacement/<layer>`` is the mean
    distance from the start in pixels, per layer. Images show layers with two axes;
    numbers cover all. Only the main process draws.

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
        from ...analysis import collect_elements

        super().before_train(runner)
        elements = collect_elements(unwrapped(runner.model))
        start = {
            name: torch.from_numpy(layer.positions) for name, layer in elements.items()
        }
        if runner.iter == 0 or runner.message_hub.get_info(_START) is None:
            runner.message_hub.update_info(_START, (self._now(runner), start))

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

        model = unwrapped(runner.model)
        try:
            now = collect_elements(model)
        except ValueError as error:
            runner.logger.warning(f'{type(self).__name__}: draws nothing: {error}')
            return
        begin, positions = runner.message_hub.get_info(_START)
        # Elements whose number has changed, as by AdaptKernelsHook, move from now on.
        for name, layer in now.items():
            if positions[name].shape != layer.positions.shape:
                positions[name] = torch.from_numpy(layer.positions)
        tracks = (
            {
                name: replace(layer, positions=positions[name].numpy())
                for name, layer in now.items()
            },
            now,
        )
        steps = begin, step
        visualizer = runner.visualizer
        for name, points in visualization.displacement(tracks, steps).items():
            visualizer.add_scalar(f'dcls/displacement/{name}', points[-1][1], step)
        if not any(len(layer.axes) == 2 for layer in now.values()):
            return
        unit = 'epoch' if self.by_epoch else 'iteration'
        pictures = {
            'dcls_positions': visualization.draw_positions(now),
            'dcls_movement': visualization.draw_movement(
                tracks, steps, unit, self.columns
            ),
        }
        kernels = visualization.depthwise_kernels(model)
        kernels = {name: kernel for name, kernel in kernels.items() if name in now}
        if kernels:
            pictures['dcls_kernels'] = visualization.draw_kernels(kernels, self.columns)
        for name, picture in pictures.items():
            visualizer.add_image(name, picture, step)
