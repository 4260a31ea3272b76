"""The published training of positions, in training scripts without a place for it.

timm's train.py takes no parameter groups, losses or hooks from outside. So this acts on
the steps of every optimizer that has positions of a model made here.
"""

import weakref
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from ...functional._arguments import as_float, as_int
from ...functional.repulsion import repulsion
from ...layers.positions import LearnedPositions

# The key in a parameter group with the number of its steps. Optimizers save and load
# their groups, so that the count goes on after a resume.
STEPS = 'position_steps'

_trainings: 'weakref.WeakSet[PositionTraining]' = weakref.WeakSet()
_under_way: 'weakref.WeakKeyDictionary[Optimizer, list]' = weakref.WeakKeyDictionary()


class PositionTraining:
    """How the positions (and sigmas) of a model learn, whatever the training script.

    - They move ``rate`` times as far in a step as the optimizer would move them. That
      equals a learning rate ``rate`` times as high, for every optimizer whose steps are
      proportional to it.
    - Weight decay leaves them out, through timm's ``no_weight_decay``.
    - Positions outside the extent are moved onto its border after each step.
    - After ``repulsion_after`` steps the gradient of ``L ** 2`` is added to theirs
      before each step, where L is the mean of :func:`.repulsion` over the positions.
      It is added after clipping of gradients, which doesn't see it, and before a
      closure, which would overwrite it.

    Args:
        rate: at least 0; 5 as published.
        repulsion_after: steps of the optimizer without repulsion; None for none at all.
            As published, these are the steps of the first 21 epochs.

    Raises:
        ValueError, TypeError: an argument is invalid.

    Source: arXiv 2112.03740, and the published code.
    """

    def __init__(self, rate: float = 5.0, repulsion_after: int | None = None) -> None:
        self.rate = as_float('position_rate', rate, minimum=0)
        if repulsion_after is not None:
            repulsion_after = as_int('repulsion_after', repulsion_after, minimum=0)
        self.repulsion_after = repulsion_after
        self.layers: list[LearnedPositions] = []
        self._undecayed: set[str] = set()
        _trainings.add(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Act on a copy of the model too, which may be the one that is trained."""
        self.__dict__.update(state)
        _trainings.add(self)

    def attach(self, model: nn.Module) -> None:
        """Act on the layers of a model, and leave them out of timm's weight decay."""
        modules = model.modules()
        self.layers = [m for m in modules if isinstance(m, LearnedPositions)]
        earlier = getattr(model, 'no_weight_decay', set)
        self._undecayed = {*earlier(), '*.P', '*.SIG'}
        model.no_weight_decay = self.no_weight_decay  # type: ignore[assignment]
        model.position_training = self  # type: ignore[assignment]

    def detach(self, model: nn.Module) -> None:
        """Undo :meth:`attach`, for a model that another library trains."""
        self.layers = []
        del model.no_weight_decay, model.position_training

    def no_weight_decay(self) -> set[str]:
        """Return the names of parameters without weight decay, with wildcards."""
        return self._undecayed

    def distinct(self) -> list[LearnedPositions]:
        """Return the layers; those that share positions count once."""
        return list({id(layer.P): layer for layer in self.layers}.values())

    def parameters(self) -> Iterator[Tensor]:
        """Return positions and sigmas that learn."""
        for layer in self.distinct():
            for parameter in (layer.P, layer.SIG):
                if parameter is not None and parameter.requires_grad:
                    yield parameter


class _Step:
    """What a step of an optimizer does to the positions of one model.

    Args:
        training: says what to do.
        groups: the parameter groups of the optimizer, by the id of a parameter.
    """

    def __init__(
        self, training: PositionTraining, groups: dict[int, dict[str, Any]]
    ) -> None:
        moved = [p for p in training.parameters() if id(p) in groups]
        self.group = groups[id(moved[0])] if moved else {}
        self.before = [(p, p.detach().clone()) for p in moved]
        self.rate = training.rate
        self.repulsion_after = training.repulsion_after
        self.layers = [
            layer for layer in training.distinct() if any(layer.P is p for p in moved)
        ]

    def add_repulsion(self, optimizer: Optimizer) -> None:
        begin = self.repulsion_after
        if not self.layers or begin is None or self.group.get(STEPS, 0) < begin:
            return
        learned = [layer.P for layer in self.layers]
        with torch.enable_grad():
            loss = torch.stack([repulsion(positions) for positions in learned]).mean()
            gradients = torch.autograd.grad(loss**2, learned)
        # GradScaler leaves it to fused optimizers to divide the gradients by its scale.
        scale = getattr(optimizer, 'grad_scale', None)
        for positions, gradient in zip(learned, gradients):
            gradient = gradient if scale is None else gradient * scale
            if positions.grad is None:
                positions.grad = gradient
            else:
                positions.grad.add_(gradient)

    @torch.no_grad()
    def finish(self) -> None:
        self.group[STEPS] = self.group.get(STEPS, 0) + 1
        for parameter, before in self.before:
            parameter.copy_(before + self.rate * (parameter - before))
        for layer in self.layers:
            layer.clamp_positions()


def _before_step(optimizer: Optimizer, *_: Any) -> None:
    """Note the positions that the optimizer is about to move; add the repulsion."""
    if not _trainings:
        return
    groups = {id(p): group for group in optimizer.param_groups for p in group['params']}
    steps = [_Step(training, groups) for training in list(_trainings)]
    _under_way[optimizer] = [step for step in steps if step.before]
    for step in _under_way[optimizer]:
        step.add_repulsion(optimizer)


def _after_step(optimizer: Optimizer, *_: Any) -> None:
    for step in _under_way.pop(optimizer, []):
        step.finish()


register_optimizer_step_pre_hook(_before_step)
register_optimizer_step_post_hook(_after_step)
