"""The end of a training whose loss is no number any more."""

import math
import os
from typing import Any

import torch
from mmengine.dist import all_reduce
from mmengine.hooks import Hook

from ...checks.arguments import checked
from ...functional._arguments import as_bool


class NonFiniteLossError(RuntimeError):
    """A training's loss became infinite or NaN: the iteration, and where to go back."""


class FiniteLossHook(Hook):
    """Ends the training at the first loss that is infinite or NaN.

    From there on nothing is learned, while checkpoints that are good go and broken ones
    come. A checkpoint counts as good once the loss of the iteration after it, which its
    weights gave, is finite. Of several processes all end, if one has such a loss.

    Losses are looked at as they are logged, so before mixed precision's loss_scale: the
    gradients that a dynamic one makes infinite, and skips, are none of this hook's. A
    forward pass that overflows in half precision is.

    Args:
        stop: whether to end the training, or to log a warning and go on.
    """

    priority = 'HIGH'  # before checkpoints are written

    def __init__(self, stop: bool = True) -> None:
        self.stop = checked(as_bool, 'FiniteLossHook.stop', stop)

    def before_train(self, runner) -> None:
        """Notes the checkpoint from which the training goes on."""
        self._written_before = runner.message_hub.get_info('last_ckpt')
        self._newest = runner._load_from if runner._resume else None
        self._good = None

    def after_train_iter(
        self, runner, batch_idx: int, data_batch=None, outputs: dict | None = None
    ) -> None:
        """Looks at the losses.

        Raises:
            NonFiniteLossError: one is infinite or NaN, here or in another process.
        """
        written = runner.message_hub.get_info('last_ckpt')
        if written is not self._written_before:  # one of a file may be anything
            self._newest = written
        broken = _not_finite(outputs)
        if _in_any_process(bool(broken)):
            self._report(runner, broken)
        else:
            self._good = self._newest

    def _report(self, runner, broken: dict[str, float]) -> None:
        values = ', '.join(f'{name} {value:g}' for name, value in broken.items())
        problem = (
            f'iteration {runner.iter + 1}: the loss is not finite '
            f'({values or "of another process"})'
        )
        if not self.stop:
            runner.logger.warning(f'{problem}; FiniteLossHook.stop=False, goes on')
            return
        raise NonFiniteLossError(
            f'{problem}, and nothing would be learned any more; {self._way_back()}. '
            f'Try a lower optim_wrapper.optimizer.lr ({_highest_rate(runner)}) or '
            'optim_wrapper.clip_grad; to go on nevertheless pass --cfg-options '
            'default_hooks.finite_loss.type=FiniteLossHook '
            'default_hooks.finite_loss.stop=False'
        )

    def _way_back(self) -> str:
        if self._good is None:
            way = 'no checkpoint was written before that is known to be good'
        elif '://' in self._good or os.path.exists(self._good):
            way = f'the last good checkpoint is {self._good}'
        else:
            way = f'the last good checkpoint was {self._good}, and has been removed'
        if self._newest != self._good:
            way += f'; {self._newest} holds the weights that gave this loss'
        return way


def _not_finite(outputs: Any) -> dict[str, float]:
    """What a training step logged as losses and is no finite number."""
    if not isinstance(outputs, dict):
        return {}
    numbers = {
        name: value.item() if isinstance(value, torch.Tensor) else value
        for name, value in outputs.items()
        if 'loss' in name and _is_number(value)
    }
    return {name: v for name, v in numbers.items() if not math.isfinite(v)}


def _is_number(value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return value.numel() == 1
    return isinstance(value, (int, float))


def _in_any_process(broken: bool) -> bool:
    """Whether one process has such a loss, lest the others wait for it for ever."""
    flag = torch.tensor(int(broken))
    all_reduce(flag, op='max')  # does nothing where there is one process
    return bool(flag.item())


def _highest_rate(runner) -> str:
    rates = [
        max(values)
        for name, values in runner.optim_wrapper.get_lr().items()
        if name.rpartition('.')[2] == 'lr' and values
    ]
    return f'its groups learn at up to {max(rates, default=0):g}'
