"""A hook that says at the start how far positions can travel in a schedule."""

import logging
from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import BaseLoop
from torch import nn
from torch.optim import Optimizer

from ..._listing import listing
from ...checkpoint.matching import unwrapped
from ...checks.errors import ConfigError
from ...layers.positions import LearnedPositions
from ..optimizers.position_travel import (
    UNSETTLED,
    Travel,
    foretell,
    iterations_of,
    moves_by_rate,
    optimizers_of,
    settle,
)

# The share of their extent that positions should be able to travel.
_LEAST_SHARE = 0.25


class PositionTravelHook(Hook):
    """A hook that logs how far positions can travel, and sets ``position_travel``.

    An optimizer like AdamW moves a position by about its learning rate, in pixels, in
    each step. The sum of a group's learning rates over all steps is thus about the
    farthest that its positions get: with warm-up and decay, with gradient accumulation,
    and without the steps in which FreezePositionsHook freezes them. It is logged when a
    training starts, in a line for each parameter group with positions that learn;
    groups with the same figures share a line. The line is a warning if that is less
    than a quarter of the extent, and says what would give one extent.

    It also gives groups the learning rate for the ``position_travel`` of
    :class:`.DCLSOptimizerConstructor`.

    ``tools/train.py`` adds this hook. All hooks on positions do what it does, once per
    training, so other trainings need it only if they have none of those.
    """

    priority = 40  # mmengine's 'ABOVE_NORMAL'

    def before_run(self, runner) -> None:
        """Set the rates and log the travel, before a checkpoint is resumed.

        Raises:
            ConfigError: there is a ``position_travel``, but the loop has no length or
                no learning rate gives that travel.
        """
        self._wrapped = _wrapped_counts(runner.model)
        alike = [hook for hook in runner.hooks if isinstance(hook, PositionTravelHook)]
        if alike[0] is not self or not isinstance(runner._train_loop, BaseLoop):
            return  # another hook does it, or it is no training

        def frozen(epoch: int, iteration: int) -> bool:
            return any(hook.freezes_positions(epoch, iteration) for hook in alike)

        positions = _learned_positions(unwrapped(runner.model))
        for wrapper, schedulers in optimizers_of(runner):
            groups = wrapper.optimizer.param_groups
            movers = _movers(groups, positions)
            unsettled = [i for i, group in enumerate(groups) if UNSETTLED in group]
            try:
                iterations = iterations_of(runner._train_loop, wrapper, frozen)
                if not iterations:  # the training is over
                    continue
                chosen = {*movers, *unsettled}
                travels = foretell(groups, schedulers, chosen, iterations)
            except ConfigError as error:
                if unsettled:
                    raise
                if movers:
                    runner.logger.info(error)
                continue
            for i in unsettled:
                travels[i] = settle(groups, schedulers, i, travels[i])
            steps = sum(moves for moves, _ in iterations)
            lines: dict[tuple[int, str], list[str]] = {}
            for i, (name, extent) in movers.items():
                line = _line(wrapper.optimizer, groups[i], travels[i], steps, extent)
                if travels[i].pixels:  # else they are meant to stay
                    lines.setdefault(line, []).append(name)
            for (level, text), names in lines.items():
                runner.logger.log(level, f'positions of {listing(names, 3)} {text}')

    def before_train(self, runner) -> None:
        """Refuse numbers of elements that a loaded checkpoint has changed under DDP.

        It made its buffers of gradients for the numbers in the config.

        Raises:
            ConfigError: there is such a number.
        """
        before = getattr(self, '_wrapped', {})
        for name, count in _wrapped_counts(runner.model).items():
            if before.get(name, count) != count:
                raise ConfigError(
                    f'model: {name} must have kernel_count={count} in the config, as '
                    f'in the checkpoint, to train in a {type(runner.model).__name__}, '
                    f'got {before[name]} (ConvNeXtDCLS takes a depthwise_cfg for each '
                    'stage)'
                )

    def freezes_positions(self, epoch: int, iteration: int) -> bool:
        """Return whether this hook keeps positions from moving in an iteration."""
        return False


def _wrapped_counts(model: nn.Module) -> dict[str, int]:
    """Return the number of elements of each layer by name; empty if not wrapped."""
    if not is_model_wrapper(model):
        return {}
    return {
        name: layer.kernel_count
        for name, layer in unwrapped(model).named_modules()
        if isinstance(layer, LearnedPositions)
    }


def _learned_positions(model: nn.Module) -> dict[int, tuple[str, int]]:
    """Return the ids of the positions that learn, each with its name and extent."""
    names = {id(value): name for name, value in model.named_parameters()}
    return {
        id(layer.P): (
            names[id(layer.P)],
            max(layer.extent[axis] for axis in layer.position_axes),
        )
        for layer in model.modules()
        if isinstance(layer, LearnedPositions) and layer.P.requires_grad
    }


def _movers(
    groups: list[dict[str, Any]], positions: dict[int, tuple[str, int]]
) -> dict[int, tuple[str, int]]:
    """Return the numbers of groups with positions, each with its name and extent.

    A group without a name is named after its positions. Of several extents, the largest
    counts.
    """
    movers = {}
    for i, group in enumerate(groups):
        own = [positions[id(p)] for p in group['params'] if id(p) in positions]
        if own:
            names, extents = zip(*own)
            movers[i] = group.get('group_name', listing(names, 3)), max(extents)
    return movers


def _line(
    optimizer: Optimizer,
    group: dict[str, Any],
    travel: Travel,
    steps: int,
    extent: int,
) -> tuple[int, str]:
    """Return the level and the text of a group's line in the log."""
    if not moves_by_rate(optimizer, group):
        return logging.INFO, (
            'can travel an unknown distance, as the steps of '
            f'{type(optimizer).__name__} are not as long as the learning rate'
        )
    share = travel.pixels / extent
    text = (
        f'can travel at most {travel.pixels:.3g} pixels in {steps} steps, {share:.0%} '
        f'of their extent of {extent}'
    )
    if share >= _LEAST_SHARE or 'position_travel' in group:
        return logging.INFO, text
    return logging.WARNING, f'{text}; {_advice(group, travel, extent)}'


def _advice(group: dict[str, Any], travel: Travel, extent: int) -> str:
    """Return what to set for a travel of one extent."""
    remedy = f'position_travel={extent} (DCLSOptimizerConstructor)'
    factor = travel.factor_for(extent)
    if factor is not None and 'max_lr' not in group:  # that is OneCycleLR's own rate
        if 'position_lr_mult' in group:
            multiplier = factor * group['position_lr_mult']
            remedy = f'position_lr_mult={multiplier:.3g} or {remedy}'
        else:
            remedy = f'a learning rate {factor:.3g} times as high or {remedy}'
    return f'one extent needs {remedy}'
