"""How far positions travel in a schedule, and the learning rate for a given travel.

Adam and its relatives move a parameter by about its learning rate in each step. For
positions that is in pixels, so the sum of the learning rates over all steps is about
the farthest that a position can get. It is found by running copies of the training's
own schedulers.
"""

import copy
import math
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from types import SimpleNamespace
from typing import Any, NamedTuple

from mmengine.optim import OptimWrapper, OptimWrapperDict, _ParamScheduler
from mmengine.runner import BaseLoop
from torch.optim import Optimizer

from ..._listing import listing
from ...checks.errors import ConfigError

KEY = 'optim_wrapper.paramwise_cfg.position_travel'

# The entry of a parameter group whose rate is not yet what its travel needs: pixels.
UNSETTLED = 'unsettled_travel'

# Classes whose steps are about as long as the learning rate.
_BOUNDED = re.compile(
    '(Fused|Hybrid|Paged|CPU|DeepSpeedCPU)?[NR]?(Adam|AdamW|Adamax|Lion)(8bit|32bit)?'
)

# The travel is computed at these multiples of a group's rates.
_FACTORS = (1.0, 2.0, 3.0)


class Travel(NamedTuple):
    """How far the positions of a group can travel, in pixels.

    Attributes:
        by_rate: the part that is in proportion to the group's learning rate.
        fixed: the other part, as by a scheduler's ``eta_min``.
    """

    by_rate: float
    fixed: float

    @property
    def pixels(self) -> float:
        """The sum."""
        return self.by_rate + self.fixed

    def times(self, factor: float) -> 'Travel':
        """Return the travel at a multiple of the learning rate."""
        return Travel(factor * self.by_rate, self.fixed)

    def factor_for(self, pixels: float) -> float | None:
        """Return the multiple of the rate that gives a travel, or None."""
        if self.by_rate <= 0 or pixels <= self.fixed:
            return None
        return (pixels - self.fixed) / self.by_rate


def moves_by_rate(optimizer: Optimizer, group: dict[str, Any]) -> bool:
    """Return whether a step moves a group's parameters by about its learning rate.

    Of timm's and mmpretrain's Lamb that is true without weight decay: with it, a step
    is as long as the learning rate times the parameter.
    """
    names = {kind.__name__ for kind in type(_innermost(optimizer)).__mro__}
    if 'Lamb' in names:
        return not group.get('weight_decay') and not group.get('always_adapt')
    return any(map(_BOUNDED.fullmatch, names))


def _innermost(optimizer: Optimizer) -> Optimizer:
    """Return the optimizer inside torch's ZeroRedundancyOptimizer, or itself."""
    return getattr(optimizer, 'optim', optimizer)


def refuse_unsettled(optimizer: Optimizer) -> None:
    """Make sure that no group marked ``UNSETTLED`` learns at a rate of no meaning.

    Raises:
        ConfigError: the optimizer does not move positions by about their rate; at the
            first step, if there is still such a group.
    """
    for group in optimizer.param_groups:
        if UNSETTLED in group and not moves_by_rate(optimizer, group):
            raise ConfigError(
                f'{KEY} must be left out for {type(_innermost(optimizer)).__name__}, '
                'as it needs an optimizer whose steps are as long as the learning '
                'rate, such as AdamW; set position_lr_mult instead'
            )
    optimizer.register_step_pre_hook(_check_settled)


def _check_settled(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    if any(UNSETTLED in group for group in optimizer.param_groups):
        raise ConfigError(
            f'{KEY} needs the length of the schedule: add '
            "dict(type='PositionTravelHook') to custom_hooks (tools/train.py does) and "
            "train by mmengine's runner, or set position_lr_mult instead"
        )


def optimizers_of(runner) -> Iterator[tuple[OptimWrapper, list[_ParamScheduler]]]:
    """Yield a runner's optimizers, each with the schedulers of its learning rates.

    A scheduler that waits for validation (ReduceOnPlateauLR) is not among them: it can
    only lower the rate, which is not foreseeable.
    """
    wrapper, schedulers = runner.optim_wrapper, runner.param_schedulers or []
    several = isinstance(wrapper, OptimWrapperDict)
    for name, part in wrapper.items() if several else [('', wrapper)]:
        some = schedulers[name] if isinstance(schedulers, dict) else schedulers
        yield part, [scheduler for scheduler in some if _is_foreseeable(scheduler)]


def _is_foreseeable(scheduler: _ParamScheduler) -> bool:
    return scheduler.param_name == 'lr' and not getattr(
        scheduler, 'need_val_args', False
    )


def iterations_of(
    loop: BaseLoop, wrapper: OptimWrapper, frozen: Callable[[int, int], bool]
) -> list[tuple[bool, bool]]:
    """Return what happens in the iterations that a training has left.

    As in mmengine, accumulated gradients are used in the last iteration too.

    Args:
        loop: the training loop.
        wrapper: the optimizer's wrapper.
        frozen: function that tells for an epoch and an iteration, counted from 0,
            whether positions are frozen.

    Returns:
        For each iteration, whether positions move and whether an epoch ends.

    Raises:
        ConfigError: the loop has no length.
    """
    last = getattr(loop, 'max_iters', None)
    epochs = getattr(loop, 'max_epochs', None)
    if not (isinstance(last, int) and isinstance(epochs, int)):
        raise ConfigError(
            f'train_cfg: {type(loop).__name__} must have whole numbers max_iters and '
            'max_epochs to tell how far positions travel, got '
            f'{last!r} and {epochs!r}'
        )
    length = max(1, last // max(1, epochs))
    counts = getattr(wrapper, '_accumulative_counts', 1)
    epoch, iterations = loop.epoch, []
    for iteration in range(loop.iter, last):
        done = iteration + 1
        updates = done % counts == 0 or done == last
        ends_epoch = done % length == 0
        iterations.append((updates and not frozen(epoch, iteration), ends_epoch))
        epoch += ends_epoch
    return iterations


def foretell(
    groups: list[dict[str, Any]],
    schedulers: list[_ParamScheduler],
    chosen: Iterable[int],
    iterations: list[tuple[bool, bool]],
) -> dict[int, Travel]:
    """Return the travel of each chosen group by its number.

    Args:
        groups: the optimizer's parameter groups.
        schedulers: those of its learning rates; they don't change.
        chosen: the groups' numbers.
        iterations: see :func:`iterations_of`.

    Raises:
        ConfigError: the schedulers' rates are not linear in the group's.
    """
    # Of groups whose rates are in proportion, only the first is run.
    alike: dict[tuple, tuple[float, Travel]] = {}
    travels = {}
    for i in chosen:
        rates = {key: float(groups[i][key]) for key in _rates(groups[i])}
        largest = max(rates.values()) or 1.0
        shape = tuple((key, f'{rate / largest:.9g}') for key, rate in rates.items())
        if shape not in alike:
            alike[shape] = largest, _travel(groups, schedulers, i, iterations)
        first, travel = alike[shape]
        travels[i] = travel.times(largest / first)
    return travels


def _travel(
    groups: list[dict[str, Any]],
    schedulers: list[_ParamScheduler],
    number: int,
    iterations: list[tuple[bool, bool]],
) -> Travel:
    one, two, three = _sum_rates(groups[number], schedulers, number, iterations)
    travel = Travel(two - one, 2 * one - two)
    if not math.isclose(travel.times(3).pixels, three, rel_tol=1e-6):
        kinds = listing([type(scheduler).__name__ for scheduler in schedulers])
        raise ConfigError(
            f'param_scheduler: {kinds} must be linear in the learning rate to tell how '
            f'far positions travel, but at 1, 2 and 3 times the rate it is {one:.3g}, '
            f'{two:.3g} and {three:.3g} pixels'
        )
    return travel


def _sum_rates(
    group: dict[str, Any],
    schedulers: list[_ParamScheduler],
    number: int,
    iterations: list[tuple[bool, bool]],
) -> list[float]:
    """Return the sum of a group's rates if they were once, twice and thrice as high."""
    stand_in = SimpleNamespace(
        param_groups=[
            {**group, **{key: factor * group[key] for key in _rates(group)}}
            for factor in _FACTORS
        ],
        step=None,
    )
    copies = []
    for scheduler in schedulers:
        copied = copy.deepcopy(scheduler, {id(scheduler.optimizer): stand_in})
        base_value = copied.base_values[number]
        copied.base_values = [factor * base_value for factor in _FACTORS]
        copied.verbose = False
        copies.append(copied)
    by_iteration = [scheduler for scheduler in copies if not scheduler.by_epoch]
    by_epoch = [scheduler for scheduler in copies if scheduler.by_epoch]
    sums = [0.0] * len(_FACTORS)
    with warnings.catch_warnings():  # that no optimizer steps in between
        warnings.simplefilter('ignore', UserWarning)
        for moves, ends_epoch in iterations:
            if moves:
                for n, scaled in enumerate(stand_in.param_groups):
                    sums[n] += scaled['lr']
            for scheduler in by_iteration:
                scheduler.step()
            if ends_epoch:
                for scheduler in by_epoch:
                    scheduler.step()
    return [float(total) for total in sums]


def _rates(group: dict[str, Any]) -> list[str]:
    """Return the entries that are learning rates (OneCycleLR's bounds are some)."""
    return [key for key in group if key == 'lr' or key.endswith('_lr')]


def settle(
    groups: list[dict[str, Any]],
    schedulers: list[_ParamScheduler],
    number: int,
    travel: Travel,
) -> Travel:
    """Give a group that is marked ``UNSETTLED`` the rate for its travel, and return it.

    Raises:
        ConfigError: no learning rate gives this travel.
    """
    group = groups[number]
    factor = travel.factor_for(group[UNSETTLED])
    if factor is None:
        more = ' or more' if travel.by_rate else ''
        raise ConfigError(
            f'{KEY} must be a travel that the schedule allows, got '
            f'{group[UNSETTLED]:g}: at any learning rate it is {travel.fixed:.3g} '
            f'pixels{more}; change param_scheduler (its eta_min), FreezePositionsHook '
            'or the length of the training'
        )
    group['position_travel'] = group.pop(UNSETTLED)
    for key in (*_rates(group), 'lr_scale'):
        group[key] *= factor
    for scheduler in schedulers:
        scheduler.base_values[number] *= factor
    return travel.times(factor)
