"""A loss on the parameters, added to those that the model computes."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ...checkpoint.matching import unwrapped
from ...checks.errors import ConfigError


class AddedLoss:
    """A base class of hooks that add a loss of their own in training.

    Once per iteration, the loss joins those of the model's forward pass with
    ``mode='loss'``. So it is logged, and divided under gradient accumulation, like
    every other, and DistributedDataParallel sees what it depends on. It is computed
    without autocast. Several such hooks may add to one model: the second one of a kind
    logs its loss as ``<loss_name>_1``, and so on.

    A subclass is an mmengine Hook too. It calls :meth:`add_loss` in ``before_train``,
    and defines :meth:`loss` and ``loss_name``, the key under which it is logged.
    """

    loss_name: str
    _addition: '_Addition | None' = None

    def loss(self) -> Tensor:
        """Return the loss at the current parameters, a scalar."""
        raise NotImplementedError(f'{type(self).__name__} must define loss()')

    def is_due(self, runner) -> bool:
        """Return whether the loss is added in this iteration."""
        return True

    def add_loss(self, runner) -> None:
        """Make the model's forward pass add the loss, until :meth:`after_train`."""
        self._remove()
        alike = [
            hook
            for hook in runner.hooks
            if isinstance(hook, AddedLoss) and hook.loss_name == self.loss_name
        ]
        number = next(i for i, hook in enumerate(alike) if hook is self)
        self._addition = _Addition(
            self.loss_name + (f'_{number}' if number else ''),
            self.loss,
            f'custom_hooks: {type(self).__name__}',
        )
        self._handle = unwrapped(runner.model).register_forward_hook(
            self._addition, with_kwargs=True, always_call=True
        )

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        """Make the next forward pass add the loss, if it is due."""
        self._addition.is_due = self.is_due(runner)

    def after_train_iter(
        self, runner, batch_idx: int, data_batch=None, outputs: dict | None = None
    ) -> None:
        """Check that the loss was added.

        Raises:
            ConfigError: the model's train_step has no such forward pass.
        """
        if self._addition.is_due:
            raise ConfigError(
                f'custom_hooks: {type(self).__name__} adds to the losses that the '
                "model's forward returns with mode='loss', but the train_step of "
                f'{type(unwrapped(runner.model)).__name__} did not ask for them: leave '
                'out the hook'
            )

    def after_train(self, runner) -> None:
        """Restore the model."""
        self._remove()

    def _remove(self) -> None:
        if self._addition is not None:
            self._handle.remove()
            self._addition = None


class _Addition:
    """A forward hook of torch that adds a loss to a model's losses when it is due.

    It is due once, so that it adds nothing after a training that ended with an error. A
    copy of it, in a copy of the model, is never due.
    """

    def __init__(self, name: str, loss: Callable[[], Tensor], source: str) -> None:
        self.name, self.loss, self.source = name, loss, source
        self.is_due = False

    def __getstate__(self) -> dict:
        return {'is_due': False}

    def __call__(self, model: nn.Module, args, kwargs: dict, losses: Any):
        if kwargs.get('mode') != 'loss':
            return None
        due, self.is_due = self.is_due, False
        if not due or losses is None:  # the forward pass failed
            return None
        if self.name in losses:
            raise ConfigError(
                f'{self.source} would log its loss as {self.name!r}, but '
                f'{type(model).__name__} has a loss of that name: rename that one or '
                'leave out the hook'
            )
        device = next(model.parameters()).device.type
        with torch.autocast(device, enabled=False):
            return {**losses, self.name: self.loss()}
