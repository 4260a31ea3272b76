"""Checks for optimizer settings that can't be intended, before the training."""

import inspect
from collections.abc import Iterator

from mmengine.config import Config
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.runner import Runner
from torch import nn

from ...checks.config_tree import find_class
from ...checks.errors import ConfigError
from ...layers.base import ConstructedConvNd
from ..hooks.finite_loss_hook import FiniteLossHook
from ..hooks.position_travel_hook import PositionTravelHook
from .dcls_optimizer_constructor import DCLSOptimizerConstructor, placed_parameters
from .paramwise import STOCK_KEYS, check_rates, parameters_with_places, unknown_settings

_DEFAULT_KEYS = (*STOCK_KEYS, 'custom_keys')

# The paramwise_cfg keys that constructors of OpenMMLab read; they ignore others.
_KEYS = {
    'DefaultOptimWrapperConstructor': _DEFAULT_KEYS,
    'ForceDefaultOptimWrapperConstructor': (*_DEFAULT_KEYS, 'force_default_settings'),
    'LearningRateDecayOptimizerConstructor': (
        'decay_rate',
        'decay_type',
        'num_layers',
    ),
    'LayerDecayOptimizerConstructor': ('layer_decay_rate', 'num_layers'),
}
_PACKAGES = ('mmengine', 'mmdet', 'mmseg')

REMEDY = (
    "constructor='DCLSOptimizerConstructor', which counts them once and decays no "
    'positions, or paramwise_cfg.bypass_duplicate=True'
)


def guard_training(runner: Runner) -> None:
    """Check the optimizer's part of the config, and add hooks that guard the training.

    A FiniteLossHook watches the losses, and a PositionTravelHook logs how far positions
    can travel, unless the config has such hooks of its own.

    Raises:
        ConfigError: see :func:`check_optimizer`.
    """
    notices = check_optimizer(runner.cfg, runner.model)
    if isinstance(runner, Runner):  # as train() would; FlexibleRunner does not
        runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
        notices += _decayed_places(runner)
    for notice in notices:
        runner.logger.warning(notice)
    for kind in (FiniteLossHook, PositionTravelHook):
        if not any(isinstance(hook, kind) for hook in runner.hooks):
            runner.register_hook(kind())


def _decayed_places(runner: Runner) -> list[str]:
    """Return a warning if weight decay pulls positions, sigmas or masks to zero."""
    constructor = runner.cfg.optim_wrapper.get('constructor')
    if not isinstance(runner.optim_wrapper, OptimWrapper) or constructor in (
        DCLSOptimizerConstructor,
        DCLSOptimizerConstructor.__name__,
    ):
        return []
    placed = placed_parameters(runner.model)
    names = {id(value): name for name, value in runner.model.named_parameters()}
    decayed = [
        names[id(value)]
        for group in runner.optim_wrapper.optimizer.param_groups
        for value in group['params']
        if id(value) in placed and group.get('weight_decay')
    ]
    if not decayed:
        return []
    return [
        f'optim_wrapper: weight decay pulls {len(decayed)} parameters to zero that '
        f'are places ({decayed[0]}, ...), unlike in the published training; '
        "constructor='DCLSOptimizerConstructor' excludes them"
    ]


def check_optimizer(cfg: Config, model: nn.Module) -> list[str]:
    """Check ``optim_wrapper`` of a config, under any constructor.

    Args:
        cfg: the config of a training, with its default_scope in force.
        model: its model.

    Returns:
        What to log about it.

    Raises:
        ConfigError: a learning rate or multiplier is negative or not a number, or the
            constructor ignores a key or lists shared parameters twice.
    """
    wrapper = cfg.get('optim_wrapper')
    if not isinstance(wrapper, dict) or not isinstance(wrapper.get('optimizer'), dict):
        return []  # several optimizers have a constructor of their own
    paramwise_cfg = wrapper.get('paramwise_cfg')
    paramwise_cfg = {} if paramwise_cfg is None else paramwise_cfg
    check_rates(wrapper.optimizer, paramwise_cfg)
    constructor = wrapper.get('constructor') or DefaultOptimWrapperConstructor
    kind = find_class(OPTIM_WRAPPER_CONSTRUCTORS, constructor)
    if kind is None:  # mmengine says so
        return []
    notices = _check_keys(kind, paramwise_cfg)
    # No error: mmseg's own config of DNLNet has unknown settings.
    notices += unknown_settings(wrapper.optimizer, paramwise_cfg)
    if not isinstance(model, nn.Module):  # FlexibleRunner builds it later
        return notices
    if _lists_shared_twice(kind, paramwise_cfg):
        _check_shared(model, kind.__name__)
    key = 'dwconv_decay_mult'
    if key in paramwise_cfg and not issubclass(kind, DCLSOptimizerConstructor):
        notices += [
            f'optim_wrapper.paramwise_cfg.{key} does not apply to {place.prefix} and '
            f'similar layers, as {kind.__name__} only knows torch.nn.Conv2d; '
            "constructor='DCLSOptimizerConstructor' includes them"
            for place in parameters_with_places(model)
            if place.depthwise and isinstance(place.module, ConstructedConvNd)
        ][:1]
    names = [name for name, _ in model.named_parameters()]
    unused = [
        key
        for key in paramwise_cfg.get('custom_keys', {})
        if not any(key in name for name in names)
    ]
    if unused:
        notices.append(
            f'optim_wrapper.paramwise_cfg.custom_keys: {", ".join(map(repr, unused))} '
            'matches no parameter'
        )
    return notices


def _check_keys(kind: type, paramwise_cfg: dict) -> list[str]:
    if issubclass(kind, DCLSOptimizerConstructor):
        return []  # it checks its own keys
    known = _KEYS.get(kind.__name__)
    if known and kind.__module__.partition('.')[0] in _PACKAGES:
        for key in paramwise_cfg:
            if key not in known:
                raise ConfigError(
                    f'optim_wrapper.paramwise_cfg.{key} is unknown to {kind.__name__}, '
                    f'which would ignore it; it reads {", ".join(known)}'
                )
        return []
    source = '\n'.join(_source(parent) for parent in kind.__mro__[:-1])
    return [
        f'optim_wrapper.paramwise_cfg.{key} is not named in the source of '
        f'{kind.__name__}, which may ignore it'
        for key in paramwise_cfg
        if source and key not in source
    ]


def _source(kind: type) -> str:
    """Return the source of a class, '' if there is no file."""
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):
        return ''


def _lists_shared_twice(kind: type, paramwise_cfg: dict) -> bool:
    walk = getattr(kind, 'add_params', None)
    return (
        walk is DefaultOptimWrapperConstructor.add_params
        and bool(paramwise_cfg)
        and not paramwise_cfg.get('bypass_duplicate')
    )


def _check_shared(model: nn.Module, constructor: str) -> None:
    names = {}
    for name, parameter in _walk(model):
        names.setdefault(id(parameter), []).append(name)
    shared = [several for several in names.values() if len(several) > 1]
    if shared:
        raise ConfigError(
            f'optim_wrapper.paramwise_cfg: {len(shared)} parameters are shared by '
            f'several layers ({shared[0][0]} is {shared[0][1]} too), and '
            f'{constructor} lists them twice, which torch refuses; set '
            f'optim_wrapper.{REMEDY}'
        )


def _walk(module: nn.Module, prefix: str = '') -> Iterator[tuple[str, nn.Parameter]]:
    """Yield the parameters that learn, in the order of mmengine's constructor."""
    for name, parameter in module.named_parameters(prefix, recurse=False):
        if parameter.requires_grad:
            yield name, parameter
    for name, child in module.named_children():
        yield from _walk(child, f'{prefix}.{name}' if prefix else name)
