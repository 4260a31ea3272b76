"""A hook with which a training learns the extent and the number of elements."""

from typing import Any

import torch
from mmengine.hooks import EMAHook

from ...checkpoint.matching import unwrapped
from ...checks.arguments import as_nonnegative, checked
from ...checks.errors import ConfigError
from ...functional._arguments import as_bool
from ...layers.resizing import layers_by_positions
from .adaptation_checks import (
    accumulated,
    as_count,
    as_largest_extent,
    as_share,
    bad,
    check_training,
    learning_layers,
)
from .adaptation_policy import Share, givers_to_be, plan_counts
from .adapted_layers import AdaptedLayers, Done
from .position_hooks import PositionHook

# Under this key the message hub keeps what a resumed training needs.
_STATE = 'dcls/adapt_kernels'


class AdaptKernelsHook(PositionHook):
    """A hook that lets a training choose where the elements are, how many, and how far.

    Every ``interval`` iterations it visits the layers. At a visit it

    - replaces the elements that weigh nothing any more: by new ones, where the gradient
      of the dense kernel asks for them, or by elements of a layer that asks for more;
    - lets the extent grow where elements press against its border, and crops it where
      they don't reach;
    - chooses the elements that leave until the next visit: the lighter of two that have
      met hands its weight over to the other, and those near zero fade.

    A visit changes nothing that a layer computes, up to rounding, which is some 1e-6 of
    its kernel in float32: what isn't neutral happens in small equal steps between the
    visits, after those of the optimizer, so that an element that leaves weighs exactly
    zero when it is replaced. A new one starts at weight zero. Layers that share
    positions change together. The optimizer's state and mmengine's averaged models
    follow, and checkpoints load into the model of the same config, with the sizes that
    were learned.

    Without a border (``largest_extent=None``) the extent grows after every step, before
    a tap is cut off; that needs layers with the formulation 'direct', whose cost
    doesn't grow with the extent. It grows so too, up to ``largest_extent``, with 'max'
    and 'gauss', whose elements have taps further away. In all other cases positions are
    clamped to the extent after every step, as by ClampPositionsHook. A layer that
    starts with taps cut off gets these back at the beginning of the training.

    Layers with frozen weights or positions are left alone. The hook runs after the
    other hooks on positions and before mmengine's EMAHook.

    Args:
        interval: iterations between two visits, a multiple of the optimizer's
            ``accumulative_counts``.
        begin, end: visits take place after more than ``begin`` and up to ``end``
            iterations. By default ``end`` is at three quarters of the training, so that
            what started last can still learn.
        budget: elements in all, as the number of entries of the layers' ``weight``; by
            default what the model starts with. If it starts with more, elements leave
            until it has as many.
        largest_extent: in pixels, for every learned axis; None for no border. Odd, so
            that kernels have a centre; layers of even extents stay even, below it.
        turnover: share of a kernel's elements that may leave between two visits; at
            least one, unless it is 0.
        meet: the distance in pixels at which two elements have met; 0 merges only those
            at one place.
        near_zero: an element fades if its weight is below this part of its kernel's
            mean.
        pressed: share of a layer's weight within a pixel of the border from which the
            extent grows, by a pixel on each side.
        move_counts: whether elements may move from layer to layer. Must be False under
            DistributedDataParallel, which can't train parameters that change shape.

    Raises:
        ConfigError: an argument doesn't fit; the message names it.

    Source: the gradient as criterion is that of RigL (arXiv 1911.11134), for positions
        that learn (DCLS, arXiv 2112.03740). FlexConv (arXiv 2110.08059) learns the size
        of a mask over a fixed extent, and mmcv's RF-Next (arXiv 2206.06637) searches
        dilations.
    """

    priority = 43

    def __init__(
        self,
        interval: int = 50,
        begin: int = 0,
        end: int | None = None,
        budget: int | None = None,
        largest_extent: int | None = 31,
        turnover: float = 0.1,
        meet: float = 0.5,
        near_zero: float = 0.1,
        pressed: float = 0.02,
        move_counts: bool = True,
    ) -> None:
        super().__init__(by_epoch=False)
        self.interval = as_count('interval', interval, 1)
        self.begin = as_count('begin', begin, 0)
        self.end = None if end is None else as_count('end', end, self.begin + 1)
        self.budget = None if budget is None else as_count('budget', budget, 1)
        self.largest_extent = as_largest_extent(largest_extent)
        self.turnover = as_share('turnover', turnover)
        self.meet = as_nonnegative('AdaptKernelsHook.meet', meet)
        self.near_zero = as_share('near_zero', near_zero)
        self.pressed = as_share('pressed', pressed)
        self.move_counts = checked(as_bool, 'AdaptKernelsHook.move_counts', move_counts)

    def before_train(self, runner) -> None:
        """Find the layers, their averaged copies and the optimizer.

        Raises:
            ConfigError: a layer can't change, the budget is too small, or something
                else in the config doesn't go together with the hook.
        """
        super().before_train(runner)
        check_training(runner, self.largest_extent, self.move_counts)
        self._accumulated = accumulated(runner.optim_wrapper, self.interval)
        found = learning_layers(unwrapped(runner.model), self.largest_extent)
        averaged = [
            layers_by_positions(hook.ema_model.module)
            for hook in runner.hooks
            if isinstance(hook, EMAHook)
        ]
        optimizer = runner.optim_wrapper.optimizer
        self._groups = [
            AdaptedLayers(name, layers, [copy[name] for copy in averaged], optimizer)
            for name, layers in found.items()
        ]
        self._last = self._last_visit(runner)
        self._start(runner)
        self._follow()

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        """Collect the gradients of dense kernels, if a visit follows the next step."""
        visit = self._next_visit(runner.iter)
        if visit is not None and visit - runner.iter <= self._accumulated:
            for group in self._groups:
                group.watch()

    def after_train_iter(
        self, runner, batch_idx: int, data_batch=None, outputs: dict | None = None
    ) -> None:
        """Let elements fade, keep positions inside, and visit if it is time."""
        for group in self._groups:
            group.unwatch()
        if (runner.iter + 1) % self._accumulated:
            return
        visit = self._next_visit(runner.iter)
        if visit is not None and self._is_fading:
            steps = (visit - runner.iter - 1) // self._accumulated + 1
            for group in self._groups:
                group.fade(1 / steps)
        for group in self._groups:
            if not self._follows(group):
                group.first.clamp_positions()
        self._follow()
        if visit == runner.iter + 1:
            self._visit(runner)
            self._follow()  # new elements at the border have taps beyond it

    def after_train(self, runner) -> None:
        """Let go of what belongs to the training."""
        self._groups = []

    def _next_visit(self, iteration: int) -> int | None:
        """Return after how many iterations the next visit is, or None if none is."""
        done = max(iteration, self.begin)
        visit = (done // self.interval + 1) * self.interval
        return visit if visit <= self._last else None

    def _last_visit(self, runner) -> int:
        end = runner.max_iters * 3 // 4 if self.end is None else self.end
        last = end // self.interval * self.interval
        if last <= self.begin or last > runner.max_iters:
            raise bad(
                'interval',
                f'such that visits take place from begin ({self.begin}) to end ({end}) '
                f'of the {runner.max_iters} iterations',
                self.interval,
            )
        return last

    def _start(self, runner) -> None:
        """Set the budget, and go on with what a resumed training had begun."""
        total = sum(group.weights for group in self._groups)
        kept = runner.message_hub.runtime_info.get(_STATE) if runner.iter else None
        self._budget = self.budget or total
        self._is_fading = False
        if kept is not None:
            self._load(kept)
        least = sum(group.weights // group.count for group in self._groups)
        if self._budget < least:
            raise bad(
                'budget',
                f'at least {least}, one element for every kernel of the layers',
                self._budget,
            )
        if total != self._budget and not self.move_counts:
            raise bad(
                'budget',
                f'left out or {total}, what the model has, if move_counts is False',
                self._budget,
            )

    def _load(self, kept: Any) -> None:
        groups = kept.get('groups') if type(kept) is dict else None
        fits = type(groups) is dict and type(kept.get('budget')) is int
        if not fits or not all(
            group.load_state(groups.get(group.name)) for group in self._groups
        ):
            raise ConfigError(
                'resume: what the checkpoint keeps for AdaptKernelsHook is of other '
                'layers than those of the model; resume with the config that it was '
                'trained with'
            )
        self._budget = self.budget or kept['budget']
        self._is_fading = True

    def _visit(self, runner) -> None:
        """Replace and move elements, fit the extents, and choose what leaves next."""
        now = runner.iter + 1
        gradients = [group.take_gradient() for group in self._groups]
        counts = [group.count for group in self._groups]
        if self.move_counts:
            counts = plan_counts(self._shares(gradients), self._budget)
        steps = list(zip(self._groups, counts, gradients))
        before = [(group.extent, group.count) for group in self._groups]
        done = [group.replace(count, gradient) for group, count, gradient in steps]
        for group in self._groups:
            group.resize(self.pressed, self.largest_extent)
        self._is_fading = now < self._last
        if self._is_fading:
            least = [False] * len(self._groups)
            if self.move_counts:
                least = givers_to_be(self._shares(gradients), self._budget)
            for group, gives in zip(self._groups, least):
                group.choose(self.meet, self.near_zero, self.turnover, int(gives))
        for group, was, changed in zip(self._groups, before, done):
            runner.logger.info(
                f'{type(self).__name__} [{now}] {_story(group, was, changed)}'
            )
        groups = {group.name: group.state() for group in self._groups}
        state = {'budget': self._budget, 'groups': groups}
        runner.message_hub.update_info(_STATE, state)

    def _shares(self, gradients: list[torch.Tensor]) -> list[Share]:
        return [
            Share(
                count=group.count,
                cost=group.weights // group.count,
                spare=group.spare(),
                demand=group.demand(gradient),
                most=max(1, int(self.turnover * group.count)),
            )
            for group, gradient in zip(self._groups, gradients)
        ]

    def _follow(self) -> None:
        """Grow extents that would cut taps off; reads all positions at once."""
        groups = [group for group in self._groups if self._follows(group)]
        if not groups:
            return
        bounds = torch.cat([group.bounds() for group in groups], 1).T.tolist()
        for group in groups:
            ends, bounds = bounds[: len(group.axes)], bounds[len(group.axes) :]
            group.hold([(first, last) for first, last in ends], self.largest_extent)

    def _follows(self, group: AdaptedLayers) -> bool:
        return self.largest_extent is None or group.wide


def _story(group: AdaptedLayers, before: tuple, done: Done) -> str:
    """Say what a visit has done to layers, in a line."""

    def change(old: Any, new: Any) -> str:
        return f'{old}' if old == new else f'{old} -> {new}'

    sizes = ['x'.join(map(str, extent)) for extent in (before[0], group.extent)]
    others = len(group.layers) - 1
    return (
        f'{group.name}{f" and {others} more" if others else ""}: extent '
        f'{change(*sizes)}, elements {change(before[1], group.count)}; {done.started} '
        f'started, {done.merged} merged, {done.faded} removed'
    )
