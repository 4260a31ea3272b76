"""What AdaptKernelsHook needs of its arguments, the training and the layers."""

from typing import Any

from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import nn

from ...checkpoint.matching import unwrapped
from ...checks.arguments import checked
from ...checks.errors import ConfigError
from ...functional._arguments import as_float, as_int
from ...layers import DCLSConvNd
from ...layers.resizing import layers_by_positions, why_fixed
from .position_hooks import ClampPositionsHook, FreezePositionsHook

HOOK = 'AdaptKernelsHook'


def bad(key: str, expected: str, value: Any) -> ConfigError:
    """Return an error about an argument of the hook."""
    return ConfigError(f'{HOOK}.{key} must be {expected}, got {value!r}')


def as_count(key: str, value: int, minimum: int) -> int:
    """Return an integer of at least ``minimum``, or raise a ConfigError."""
    return checked(as_int, f'{HOOK}.{key}', value, minimum=minimum)


def as_share(key: str, value: float) -> float:
    """Return a float from 0 to 1, or raise a ConfigError."""
    return checked(as_float, f'{HOOK}.{key}', value, minimum=0, maximum=1)


def as_largest_extent(value: int | None) -> int | None:
    """Return the argument ``largest_extent``, or raise a ConfigError."""
    if value is not None and as_count('largest_extent', value, 3) % 2 == 0:
        raise bad(
            'largest_extent',
            'odd, as extents grow by a pixel on each side of a middle tap',
            value,
        )
    return value


def check_training(runner, largest_extent: int | None, move_counts: bool) -> None:
    """Check what else is in the config.

    Raises:
        ConfigError: a part of it doesn't go together with the hook.
    """
    hooks = runner.hooks
    problem = None
    if sum(type(hook).__name__ == HOOK for hook in hooks) > 1:
        problem = 'must be there once; leave out the others'
    elif any(isinstance(hook, FreezePositionsHook) for hook in hooks):
        problem = (
            'replaces elements, which FreezePositionsHook would undo: leave out one '
            'of them'
        )
    elif largest_extent is None and any(
        isinstance(hook, ClampPositionsHook) for hook in hooks
    ):
        problem = (
            'with largest_extent=None lets positions move without a border, which '
            'ClampPositionsHook sets: leave that out'
        )
    elif isinstance(runner.optim_wrapper, OptimWrapperDict):
        kind = type(runner.optim_wrapper).__name__
        problem = f'needs a single optimizer, got an {kind}: leave out the hook'
    elif isinstance(getattr(unwrapped(runner.model), 'teacher', None), nn.Module):
        kind = type(unwrapped(runner.model)).__name__
        problem = f'can not change the teacher in a {kind}: leave out the hook'
    if problem is not None:
        raise ConfigError(f'custom_hooks: {HOOK} {problem}')
    if move_counts and is_model_wrapper(runner.model):
        raise bad(
            'move_counts',
            f'False with {type(runner.model).__name__}, which can not train parameters '
            'whose shape changes',
            move_counts,
        )


def accumulated(wrapper: OptimWrapper, interval: int) -> int:
    """Return how many iterations a step of the optimizer takes.

    Raises:
        ConfigError: the interval between visits is not a multiple of it.
    """
    count = wrapper._accumulative_counts
    if interval % count:
        raise bad('interval', f'a multiple of accumulative_counts ({count})', interval)
    return count


def learning_layers(
    model: nn.Module, largest_extent: int | None
) -> dict[str, list[DCLSConvNd]]:
    """Return the layers that learn, those that share positions together, by name.

    Raises:
        ConfigError: there is none, or one that can't change.
    """
    groups = {
        name: layers
        for name, layers in layers_by_positions(model).items()
        if layers[0].P.requires_grad
        and all(layer.weight.requires_grad for layer in layers)
    }
    if not groups:
        raise ConfigError(
            f'custom_hooks: {HOOK} needs layers that learn, but all positions or '
            'weights are frozen: leave out the hook'
        )
    for name, layers in groups.items():
        for layer in layers:
            _check_layer(name, layer, largest_extent)
    return groups


def _check_layer(name: str, layer: DCLSConvNd, largest: int | None) -> None:
    reason = why_fixed(layer)
    if reason is None and layer.formulation == 'sample':
        reason = "its formulation is 'sample', with fixed memory and no kernel"
    if reason is not None:
        raise ConfigError(
            f'custom_hooks: {HOOK} can not change the layer {name}: {reason}. Leave '
            'out the hook, or give the layer learn_positions=False'
        )
    if largest is None and layer.formulation != 'direct':
        raise bad(
            'largest_extent',
            f"a number unless all layers have the formulation 'direct', but {name} has "
            f'{layer.formulation!r}',
            None,
        )
    extent = [layer.extent[axis] for axis in layer.learned_axes]
    if largest is not None and max(extent) > largest:
        raise bad(
            'largest_extent',
            f'at least {max(extent)}, the extent with which {name} starts',
            largest,
        )
