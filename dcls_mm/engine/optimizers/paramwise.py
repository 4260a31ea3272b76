"""mmengine's rules for kinds of parameters, and the checks of their multipliers."""

import inspect
from collections.abc import Iterator
from typing import NamedTuple

from mmengine.registry import OPTIMIZERS
from mmengine.utils.dl_utils import mmcv_full_available
from mmengine.utils.dl_utils.parrots_wrapper import _BatchNorm, _InstanceNorm
from torch import nn

from ...checks.arguments import as_nonnegative, checked
from ...checks.config_tree import find_class
from ...checks.errors import ConfigError
from ...functional._arguments import as_bool
from ...layers.base import ConstructedConvNd

# The keys of mmengine's DefaultOptimWrapperConstructor, except custom_keys.
STOCK_KEYS = (
    'bias_lr_mult',
    'dcn_offset_lr_mult',
    'norm_decay_mult',
    'bias_decay_mult',
    'dwconv_decay_mult',
    'flat_decay_mult',
    'bypass_duplicate',
)

_MULTIPLIERS = ('lr_mult', 'decay_mult')
_NORMS = (_BatchNorm, _InstanceNorm, nn.GroupNorm, nn.LayerNorm)


class Parameter(NamedTuple):
    """A parameter, and what the rules need to know about its place.

    Attributes:
        value: the parameter.
        prefix: the name of its module.
        name: its name in the module.
        module: the module.
        depthwise: whether it belongs to a depthwise convolution, or to the network
            inside one that makes its kernel.
        in_deformable: whether the module is the child of a deformable convolution.
    """

    value: nn.Parameter
    prefix: str
    name: str
    module: nn.Module
    depthwise: bool
    in_deformable: bool

    @property
    def full_name(self) -> str:
        """The name as in ``model.named_parameters()``."""
        return f'{self.prefix}.{self.name}' if self.prefix else self.name


def parameters_with_places(model: nn.Module) -> Iterator[Parameter]:
    """Yield all parameters of ``model`` once, in the order of ``parameters()``."""
    modules = dict(model.named_modules())
    in_depthwise = {
        id(inner)
        for module in modules.values()
        if _is_depthwise(module)
        for inner in module.modules()
    }
    in_deformable = {
        id(child)
        for module in modules.values()
        if isinstance(module, _deformable_convolutions())
        for child in module.children()
    }
    seen = set()
    for prefix, module in modules.items():
        for name, value in module.named_parameters(recurse=False):
            if id(value) in seen:
                continue
            seen.add(id(value))
            places = id(module) in in_depthwise, id(module) in in_deformable
            yield Parameter(value, prefix, name, module, *places)


def _is_depthwise(module: nn.Module) -> bool:
    """Return whether mmengine would count a convolution, or ours, as depthwise."""
    return (
        isinstance(module, (nn.Conv2d, ConstructedConvNd))
        and module.in_channels == module.groups
    )


def _deformable_convolutions() -> tuple[type, ...]:
    if not mmcv_full_available():
        return ()
    from mmcv.ops import DeformConv2d, ModulatedDeformConv2d  # if built, as in mmengine

    return DeformConv2d, ModulatedDeformConv2d


def stock_rate(parameter: Parameter, cfg: dict) -> tuple[str, float]:
    """Return the key of ``cfg`` that sets the learning rate, or '', and its multiplier.

    This is as in mmengine's DefaultOptimWrapperConstructor, where a key that is left
    out or None sets nothing.
    """
    keys = []
    if (
        'conv_offset' in parameter.prefix
        and parameter.in_deformable
        and isinstance(parameter.module, nn.Conv2d)
    ):
        keys.append('dcn_offset_lr_mult')
    is_plain = not (parameter.in_deformable or isinstance(parameter.module, _NORMS))
    if parameter.name == 'bias' and is_plain:
        keys.append('bias_lr_mult')
    return _first_given(keys, cfg)


def stock_decay(parameter: Parameter, cfg: dict) -> tuple[str, float]:
    """Return the key of ``cfg`` that sets the weight decay, or '', and its multiplier.

    As in mmengine's DefaultOptimWrapperConstructor, it is the first given key of those
    that apply, in the order norm, bias, depthwise, one-dimensional.
    """
    applies = {
        'norm_decay_mult': isinstance(parameter.module, _NORMS),
        'bias_decay_mult': parameter.name == 'bias' and not parameter.in_deformable,
        'dwconv_decay_mult': parameter.depthwise,
        'flat_decay_mult': parameter.value.ndim == 1 and not parameter.in_deformable,
    }
    return _first_given([key for key in applies if applies[key]], cfg)


def _first_given(keys: list[str], cfg: dict) -> tuple[str, float]:
    given = (key for key in keys if cfg.get(key) is not None)
    key = next(given, '')
    return key, cfg[key] if key else 1.0


def custom_key(name: str, custom_keys: dict) -> str | None:
    """Return the longest key in a parameter's name; ties go by the alphabet."""
    keys = sorted(custom_keys, key=lambda key: (-len(key), key))
    return next((key for key in keys if key in name), None)


def check_rates(optimizer_cfg: dict, paramwise_cfg: dict) -> None:
    """Check every number from which learning rates and weight decays are computed.

    Args:
        optimizer_cfg: ``optim_wrapper.optimizer`` of a config.
        paramwise_cfg: ``optim_wrapper.paramwise_cfg``, of any constructor.

    Raises:
        ConfigError: a number is negative, not finite or not a number, an entry of
            ``custom_keys`` is not a dict, or a weight decay is multiplied but not
            given. The message names the key.
    """
    for key in ('lr', 'weight_decay'):
        if optimizer_cfg.get(key) is not None:
            as_nonnegative(f'optim_wrapper.optimizer.{key}', optimizer_cfg[key])
    where = 'optim_wrapper.paramwise_cfg'
    if not isinstance(paramwise_cfg, dict):
        raise ConfigError(f'{where} must be a dict or left out, got {paramwise_cfg!r}')
    given = {
        f'{where}.{key}': value
        for key, value in paramwise_cfg.items()
        if key.endswith('_mult') and value is not None
    }
    if 'bypass_duplicate' in paramwise_cfg:
        key = 'bypass_duplicate'
        checked(as_bool, f'{where}.{key}', paramwise_cfg[key])
    custom_keys = paramwise_cfg.get('custom_keys', {})
    if not isinstance(custom_keys, dict):
        raise ConfigError(f'{where}.custom_keys must be a dict, got {custom_keys!r}')
    for name, custom in custom_keys.items():
        key = f'{where}.custom_keys[{name!r}]'
        if not isinstance(custom, dict):
            raise ConfigError(
                f'{key} must be a dict of lr_mult, decay_mult and settings of the '
                f'optimizer, got {custom!r}'
            )
        numbers = (*_MULTIPLIERS, 'lr', 'weight_decay')
        given.update({f'{key}.{k}': custom[k] for k in numbers if k in custom})
    for key, value in given.items():
        as_nonnegative(key, value)
        if key.endswith('decay_mult') and optimizer_cfg.get('weight_decay') is None:
            raise ConfigError(
                f'optim_wrapper.optimizer.weight_decay must be given, as {key} '
                'multiplies it'
            )


def unknown_settings(optimizer_cfg: dict, paramwise_cfg: dict) -> list[str]:
    """Return a sentence for each setting in ``custom_keys`` that nothing reads.

    mmengine puts it into the parameter group, where the optimizer ignores it.
    """
    kind = find_class(OPTIMIZERS, optimizer_cfg.get('type'))
    if kind is None:  # mmengine says so
        return []
    _, *settings = inspect.signature(kind).parameters
    return [
        f'optim_wrapper.paramwise_cfg.custom_keys[{name!r}].{key} is unknown: besides '
        f'lr_mult and decay_mult, {kind.__name__} takes {", ".join(settings)}'
        for name, custom in paramwise_cfg.get('custom_keys', {}).items()
        for key in custom
        if key not in (*_MULTIPLIERS, *settings) and 'kwargs' not in settings
    ]
