"""A hook that ends a training whose loss is infinite or NaN."""

import math
import os
from typing import Any

import torch
from mmengine.dist import all_reduce
from mmengine.hooks import Hook

from ...checks.arguments import checked
from ...functional._arguments import as_bool


class NonFiniteLossError(RuntimeError):
    """A training loss that is infinite or NaN; the message says how to go back."""


class FiniteLossHook(Hook):
    """A hook that ends the training at the first loss that is infinite or NaN.

    From there on nothing is learned, while good checkpoints are replaced by broken
    ones. A checkpoint counts as good once the loss of the next iteration, computed from
    its weights, is finite. If one process has such a loss, all of them end.

    The losses are those logged, before mixed precision's loss_scale: infinite gradients
    from a dynamic loss_scale, which skips them, do not count. A forward pass that
    overflows in half precision does.

    Args:
        stop: whether to end the training, or log a warning and continue.
    """

    priority = 'HIGH'  # before checkpoints are written

    def __init__(self, stop: bool = True) -> None:
        self.stop = checked(as_bool, 'FiniteLossHook.stop', stop)

    def before_train(self, runner) -> None:
        """Note the checkpoint from which the training resumes."""
        self._written_before = runner.message_hub.get_info('last_ckpt')
        self._newest = runner._load_from if runner._resume else None
        self._good = None

    def after_train_iter(
        self, runner, batch_idx: int, data_batch=None, outputs: dict | None = None
    ) -> None:
        """Check the losses.

        Raises:
            NonFiniteLossError: one is infinite or NaN, here or in another process.
        """
        written = runner.message_hub.get_info('last_ckpt')
        if written is not self._written_before:  # not what a checkpoint file says
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
            f'({values or "in another process"})'
        )
        if not self.stop:
            runner.logger.warning(f'{problem}; continues, as FiniteLossHook.stop=False')
            return
        raise NonFiniteLossError(
            f'{problem}, so nothing more would be learned; {self._way_back()}. '
            f'Try a lower optim_wrapper.optimizer.lr ({_highest_rate(runner)}) or '
            'optim_wrapper.clip_grad; to continue anyway, pass --cfg-options '
            'default_hooks.finite_loss.type=FiniteLossHook '
            'default_hooks.finite_loss.stop=False'
        )

    def _way_back(self) -> str:
        if self._good is None:
            way = 'there is no checkpoint that is known to be good'
        elif '://' in self._good or os.path.exists(self._good):
            way = f'the last good checkpoint is {self._good}'
        else:
            way = f'the last good checkpoint was {self._good}, which has been removed'
        if self._newest != self._good:
            way += f'; {self._newest} holds the weights that gave this loss'
        return way


def _not_finite(outputs: Any) -> dict[str, float]:
    """Return the losses of a training step that are infinite or NaN."""
    if not isinstance(outputs, dict):
        return {}
    losses = {k: v for k, v in outputs.items() if 'loss' in k and _is_number(v)}
    tensors = {k: v for k, v in losses.items() if isinstance(v, torch.Tensor)}
    # One reading per device, as each waits for it.
    for device in {value.device for value in tensors.values()}:
        there = {
            k: v.detach().reshape(()) for k, v in tensors.items() if v.device == device
        }
        losses.update(zip(there, torch.stack([*there.values()]).tolist()))
    return {name: v for name, v in losses.items() if not math.isfinite(v)}


def _is_number(value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return value.numel() == 1
    return isinstance(value, (int, float))


def _in_any_process(broken: bool) -> bool:
    """Return whether any process has such a loss, so that none waits for another."""
    flag = torch.tensor(int(broken))
    all_reduce(flag, op='max')  # a no-op if there is only one process
    return bool(flag.item())


def _highest_rate(runner) -> str:
    rates = [
        max(values)
        for name, values in runner.optim_wrapper.get_lr().items()
        if name.rpartition('.')[2] == 'lr' and values
    ]
    return f'its highest learning rate is {max(rates, default=0):g}'
