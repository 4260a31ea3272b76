"""A hook that checks whether the config fits the checkpoint to resume from."""

from typing import Any

import torch
from mmengine.hooks import CheckpointHook, Hook
from mmengine.optim import OptimWrapperDict
from mmengine.utils import is_method_overridden

from ..._listing import listing
from ...checkpoint import CheckpointError
from ...checkpoint.errors import short
from ...checkpoint.resumable import checkpoint_folder
from .atomic_checkpoint_hook import forget_foreign_files
from .checkpoint_match_hook import CheckpointMatchHook

# States that optimizers keep for each weight, in the weight's shape.
_STATES = ('exp_avg', 'momentum_buffer', 'square_avg', 'sum')
# The progress in the state of a scheduler; the rest are its settings.
_PROGRESS = ('last_step', '_global_step', '_last_value', 'base_values', 'verbose')

_MOST = 6  # settings that a warning names


class ResumeMatchHook(CheckpointMatchHook):
    """A hook that stops unless the whole checkpoint fits what the config describes.

    mmengine would end in a traceback of the optimizer, or use only a part of the
    checkpoint: it pairs schedulers as far as there are any, even of different kinds,
    and trains on from averaged weights if no hook averages any more. Nor does it say
    that the old settings of the optimizer and the schedulers stay in force, such as the
    ``end`` that it made from ``max_epochs``; this hook warns of it.
    """

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Compare model, optimizer, schedulers and averaged weights.

        Raises:
            CheckpointError: one of them does not fit.
        """
        super().after_load_checkpoint(runner, checkpoint)
        for hook in runner.hooks:
            if isinstance(hook, CheckpointHook):
                forget_foreign_files(
                    checkpoint['message_hub']['runtime_info'],
                    checkpoint_folder(runner.work_dir, hook.out_dir),
                )
        try:
            problems = _optimizer_problems(
                runner.optim_wrapper, checkpoint['optimizer']
            ) + _scheduler_problems(
                runner.param_schedulers, checkpoint.get('param_schedulers')
            )
            kept = _kept_settings(runner, checkpoint) if not problems else []
        except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(
                f'checkpoint {self.filename} has no states of optimizers and '
                f'schedulers as mmengine writes them ({error!r})'
            ) from error
        if 'ema_state_dict' in checkpoint and not _takes_averages(runner, self):
            problems.append(
                'it has averaged weights (ema_state_dict), but custom_hooks has no '
                'EMAHook to continue averaging'
            )
        if problems:
            raise CheckpointError(
                f'checkpoint {self.filename} is from a training that the config does '
                f'not describe: {"; ".join(problems)}. Resume with the config that it '
                'was trained with, or leave out --resume and start from its weights by '
                f'--cfg-options load_from={self.filename}'
            )
        if kept:
            runner.logger.warning(
                f'--resume: {self.filename} overrides the config: '
                + listing(kept, _MOST, '; ')
            )


def _takes_averages(runner, own: Hook) -> bool:
    return any(
        is_method_overridden('after_load_checkpoint', Hook, hook)
        for hook in runner.hooks
        if hook is not own
    )


def _optimizer_problems(wrapper: Any, saved: dict) -> list[str]:
    """Describe the differences between optimizers and saved states."""
    if not isinstance(wrapper, OptimWrapperDict):
        if 'param_groups' not in saved:
            return [f'it has several optimizers ({listing(list(saved), 3)}), not one']
        return _differences('the optimizer', wrapper.optimizer, saved)
    names = [name for name, _ in wrapper.items()]
    if set(names) != set(saved):
        return [
            f'its optimizers are {listing(list(saved), 3)}, the config has '
            f'{listing(names, 3)}'
        ]
    return [
        problem
        for name, part in wrapper.items()
        for problem in _differences(f'optimizer {name}', part.optimizer, saved[name])
    ]


def _differences(what: str, optimizer: torch.optim.Optimizer, saved: dict) -> list[str]:
    kind = type(optimizer).__name__
    groups = saved.get('param_groups', [])
    sizes = [
        [len(group['params']) for group in some]
        for some in (groups, optimizer.param_groups)
    ]
    if sizes[0] != sizes[1]:
        held, wanted = (
            f'{sum(some)} parameters in {len(some)} groups' for some in sizes
        )
        return [f'{what} had {held}, but by the config has {wanted}']
    missing = [
        name
        for name in _numbers(optimizer)
        if any(name not in group for group in groups)
    ]
    if missing:
        return [f'{what} was of another type than {kind}: no {listing(missing, 3)}']
    for name in _numbers(optimizer):
        for group in groups:
            if not _is_like(group[name], optimizer.defaults[name]):
                return [
                    f'{what} has {name}={short(group[name])}, expected a value like '
                    f'{optimizer.defaults[name]!r}'
                ]
    return _misshapen(what, optimizer, groups, saved.get('state', {}))


def _is_like(held: Any, own: Any) -> bool:
    """Return whether a setting can replace another: as many numbers, or a string."""
    if isinstance(own, (list, tuple)):
        return (
            isinstance(held, (list, tuple))
            and len(held) == len(own)
            and all(map(_is_like, held, own))
        )
    if isinstance(own, str):
        return isinstance(held, str)
    if isinstance(held, torch.Tensor):  # a learning rate for CUDA graphs
        return held.numel() == 1
    return isinstance(held, (int, float)) and not isinstance(held, bool)


def _numbers(optimizer: torch.optim.Optimizer) -> list[str]:
    """Return an optimizer's settings except flags, which new torch versions add."""
    return [
        name
        for name, value in optimizer.defaults.items()
        if value is not None and not isinstance(value, bool)
    ]


def _misshapen(
    what: str, optimizer: torch.optim.Optimizer, groups: list, states: dict
) -> list[str]:
    """Describe states whose shape is not their weight's, as after a change of order."""
    for group, own in zip(groups, optimizer.param_groups):
        for index, parameter in zip(group['params'], own['params']):
            state = states.get(index, {})
            for name in _STATES:
                value = state.get(name)
                if value is not None and value.shape != parameter.shape:
                    return [
                        f'{what} has {name} of shape {list(value.shape)} for a '
                        f'parameter of shape {list(parameter.shape)}: its parameters '
                        'were in another order'
                    ]
    return []


def _scheduler_problems(schedulers: Any, saved: Any) -> list[str]:
    """Describe the differences between schedulers and saved states."""
    if schedulers is None or saved is None:  # mmengine warns, or there are none
        return []
    if isinstance(schedulers, dict) != isinstance(saved, dict):
        return ['param_scheduler is for several optimizers in only one of the two']
    if not isinstance(schedulers, dict):
        schedulers, saved = {'': schedulers}, {'': saved}
    problems = []
    for name, some in schedulers.items():
        held = saved.get(name, [])
        if len(held) != len(some):
            problems.append(
                f'it has {len(held)} param_schedulers, but the config has {len(some)}'
            )
        for number, (scheduler, state) in enumerate(zip(some, held)):
            own = scheduler.state_dict()
            if set(own) != set(state):
                problems.append(
                    f'param_scheduler {number} was of another type than '
                    f'{type(scheduler).__name__} (its state differs in '
                    f'{listing(sorted(set(state) ^ set(own)), 3)})'
                )
    return problems


def _kept_settings(runner, checkpoint: dict) -> list[str]:
    """Describe the settings of the config that the saved states override."""
    pairs = []
    if not isinstance(runner.optim_wrapper, OptimWrapperDict):
        saved = checkpoint['optimizer']['param_groups']
        for held, own in zip(saved, runner.optim_wrapper.optimizer.param_groups):
            names = ('initial_lr', *runner.optim_wrapper.optimizer.defaults)
            values = {name: own[name] for name in names if name in own}
            # The current learning rate is not the config's if a scheduler changes it.
            values.pop('lr' if 'initial_lr' in held else 'initial_lr', None)
            pairs.append(('optimizer', values, held))
    if isinstance(runner.param_schedulers, list):
        for number, (scheduler, held) in enumerate(
            zip(runner.param_schedulers, checkpoint.get('param_schedulers') or [])
        ):
            values = {
                name: value
                for name, value in scheduler.state_dict().items()
                if name not in _PROGRESS
            }
            pairs.append((f'param_scheduler.{number}', values, held))
    return list(
        dict.fromkeys(
            f'{what} {name}={held[name]!r:.80}, not {value!r:.80}'
            for what, values, held in pairs
            for name, value in values.items()
            if name in held and held[name] != value
        )
    )
