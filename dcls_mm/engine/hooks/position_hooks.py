"""Hooks that clamp, repel, freeze and anneal positions and sigma in training."""

from collections.abc import Sequence

import torch
from torch import nn

from ...checkpoint.matching import unwrapped
from ...checks.arguments import as_nonnegative, checked
from ...checks.errors import ConfigError
from ...functional._arguments import as_bool, as_int
from ...functional.repulsion import repulsion
from ...layers.positions import LearnedPositions
from ..optimizers.dcls_optimizer_constructor import check_unsharded
from .added_loss import AddedLoss
from .position_travel_hook import PositionTravelHook

# The parameters that the hooks handle, by their names in configs.
PARAMETERS = {'positions': 'P', 'sigma': 'SIG'}


class PositionHook(PositionTravelHook):
    """A base class of the hooks on learned positions.

    Like PositionTravelHook, they log how far positions can travel.

    They run after the optimizer's step and before mmengine's EMAHook, which has
    priority 'NORMAL' (50), so that the average is of the final positions. Whatever the
    order in a config, values are frozen first, then sigma is annealed, then positions
    are clamped; so an annealed sigma is never frozen, and no position is outside after
    a step.

    Args:
        by_epoch: whether ``begin`` and ``end`` count epochs or iterations, from 0.
    """

    def __init__(self, by_epoch: bool = True) -> None:
        self.by_epoch = checked(as_bool, f'{type(self).__name__}.by_epoch', by_epoch)

    def before_train(self, runner) -> None:
        """Find the layers; those that share positions count once.

        Raises:
            ConfigError: the model has none, FSDP shards it, or DDP can't train it.
        """
        super().before_train(runner)
        check_unsharded(runner.model, f'custom_hooks: {type(self).__name__}')
        layers = {
            id(module.P): module
            for module in unwrapped(runner.model).modules()
            if isinstance(module, LearnedPositions)
        }
        if not layers:
            raise ConfigError(
                f'custom_hooks: {type(self).__name__} needs a model with DCLS layers, '
                f'but {type(unwrapped(runner.model)).__name__} has none: leave out the '
                'hook'
            )
        self.layers = list(layers.values())

    def _now(self, runner) -> int:
        return runner.epoch if self.by_epoch else runner.iter

    def _parameters(self, *names: str) -> list[nn.Parameter]:
        """Return the layers' parameters by the names in ``PARAMETERS``.

        Raises:
            ConfigError: no layer has any.
        """
        found = [getattr(layer, PARAMETERS[n]) for layer in self.layers for n in names]
        found = [parameter for parameter in found if parameter is not None]
        if not found:
            raise ConfigError(
                f'custom_hooks: {type(self).__name__} needs layers with sigma '
                "(interpolation 'max' or 'gauss'), but the model has none: leave out "
                'the hook'
            )
        return found


class ClampPositionsHook(PositionHook):
    """A hook that moves positions outside the kernel's extent back after each step.

    Far outside the extent an element has no taps and no gradient, so it would not come
    back by itself.

    Source: arXiv 2112.03740.
    """

    priority = 42

    def __init__(self) -> None:
        super().__init__()

    def after_train_iter(
        self, runner, batch_idx: int, data_batch=None, outputs: dict | None = None
    ) -> None:
        """Clamp the positions."""
        for layer in self.layers:
            layer.clamp_positions()


class RepulsionLossHook(AddedLoss, PositionHook):
    """A hook that adds a loss to keep the elements of a kernel a pixel apart.

    In epochs after ``begin`` it adds ``loss_repulsion = weight * L ** 2``, where L is
    the mean of :func:`.repulsion` over the layers' positions; shared ones count once.

    Args:
        weight: at least 0; 1 as published.
        begin: the last epoch (or iteration) without the loss, counted from 0; 20 as
            published.
        by_epoch: whether ``begin`` counts epochs or iterations.

    Source: arXiv 2112.03740; weight and begin are from the published code.
    """

    loss_name = 'loss_repulsion'

    def __init__(
        self, weight: float = 1.0, begin: int = 20, by_epoch: bool = True
    ) -> None:
        super().__init__(by_epoch)
        self.weight = as_nonnegative('RepulsionLossHook.weight', weight)
        self.begin = checked(as_int, 'RepulsionLossHook.begin', begin, minimum=-1)

    def before_train(self, runner) -> None:
        """Find the layers, and add the loss."""
        PositionHook.before_train(self, runner)
        self.add_loss(runner)

    def is_due(self, runner) -> bool:
        """Return whether it is after ``begin``."""
        return self._now(runner) > self.begin

    def loss(self) -> torch.Tensor:
        """Return the loss at the current positions, a scalar."""
        values = [repulsion(layer.P) for layer in self.layers]
        return self.weight * torch.stack(values).mean() ** 2


class FreezePositionsHook(PositionHook):
    """A hook that freezes positions, sigma or both while ``begin <= epoch < end``.

    What the optimizer did to them is undone after each step. Their ``requires_grad``
    does not change, as DistributedDataParallel fails if it changes during training; so
    the optimizer's moments are up to date when learning continues. To freeze for good,
    give the layers ``learn_positions=False`` instead, which saves the gradients.
    SigmaAnnealingHook and ClampPositionsHook still apply to frozen values.

    Args:
        begin: the first frozen epoch (or iteration), counted from 0.
        end: the first that is not frozen again; None means never.
        by_epoch: whether ``begin`` and ``end`` count epochs or iterations.
        parameters: one or both of 'positions' and 'sigma'.
    """

    def __init__(
        self,
        begin: int = 0,
        end: int | None = None,
        by_epoch: bool = True,
        parameters: Sequence[str] = tuple(PARAMETERS),
    ) -> None:
        super().__init__(by_epoch)
        self.begin = checked(as_int, 'FreezePositionsHook.begin', begin, minimum=0)
        if end is not None:
            minimum = self.begin + 1
            end = checked(as_int, 'FreezePositionsHook.end', end, minimum=minimum)
        self.end = end
        names = list(parameters) if isinstance(parameters, (list, tuple)) else []
        if not names or any(name not in list(PARAMETERS) for name in names):
            raise ConfigError(
                'FreezePositionsHook.parameters must be some of '
                f'{list(PARAMETERS)}, got {parameters!r}'
            )
        self.parameters = tuple(names)
        self._kept: list[tuple[nn.Parameter, torch.Tensor]] = []

    def freezes_positions(self, epoch: int, iteration: int) -> bool:
        """Return whether it freezes positions in an iteration."""
        now = epoch if self.by_epoch else iteration
        return 'positions' in self.parameters and self._freezes(now)

    def _freezes(self, now: int) -> bool:
        return self.begin <= now and (self.end is None or now < self.end)

    def before_train(self, runner) -> None:
        """Find the parameters to freeze; raise a ConfigError if there is no sigma."""
        super().before_train(runner)
        self._frozen = self._parameters(*self.parameters)
        self._kept = []

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        """Note the values when freezing begins."""
        if not self._freezes(self._now(runner)):
            self._kept = []
        elif not self._kept:
            self._kept = [(value, value.detach().clone()) for value in self._frozen]

    @torch.no_grad()
    def after_train_iter(
        self, runner, batch_idx: int, data_batch=None, outputs: dict | None = None
    ) -> None:
        """Restore the values."""
        for parameter, value in self._kept:
            parameter.copy_(value)


class SigmaAnnealingHook(PositionHook):
    """A hook that changes sigma linearly from one value to another.

    Sigma is ``initial`` up to ``begin`` and ``final`` from ``end`` on, and never
    learns. Elements that start wide see gradients from far away; later, narrow ones
    settle.

    Args:
        initial, final: in pixels, at least 0; values of the parameter SIG itself, to
            which 'gauss' adds its smallest width.
        begin, end: epochs (or iterations), counted from 0.
        by_epoch: whether they count epochs or iterations.
    """

    priority = 41

    def __init__(
        self,
        initial: float,
        final: float,
        end: int,
        begin: int = 0,
        by_epoch: bool = True,
    ) -> None:
        super().__init__(by_epoch)
        self.initial = as_nonnegative('SigmaAnnealingHook.initial', initial)
        self.final = as_nonnegative('SigmaAnnealingHook.final', final)
        self.begin = checked(as_int, 'SigmaAnnealingHook.begin', begin, minimum=0)
        minimum = self.begin + 1
        self.end = checked(as_int, 'SigmaAnnealingHook.end', end, minimum=minimum)

    def before_train(self, runner) -> None:
        """Find the sigmas.

        Raises:
            ConfigError: there is no sigma, or there are two hooks of this kind.
        """
        super().before_train(runner)
        self._sigmas = self._parameters('sigma')
        if sum(isinstance(hook, SigmaAnnealingHook) for hook in runner.hooks) > 1:
            raise ConfigError(
                'custom_hooks: must have at most one SigmaAnnealingHook, as each sets '
                'sigma in every iteration; leave out the others'
            )

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        """Set the value of this epoch or iteration."""
        self._set(runner)

    def after_train_iter(
        self, runner, batch_idx: int, data_batch=None, outputs: dict | None = None
    ) -> None:
        """Set it again, as the optimizer may have changed it."""
        self._set(runner)

    @torch.no_grad()
    def _set(self, runner) -> None:
        passed = (self._now(runner) - self.begin) / (self.end - self.begin)
        passed = min(1.0, max(0.0, passed))
        for sigma in self._sigmas:
            sigma.fill_(self.initial + passed * (self.final - self.initial))
