"""Learning rates and weight decays by depth and by kind of parameter."""

import math
from typing import Any

from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel

from ..layers.flexconv import FlexConvNd
from ..layers.kernel_nets import GaborFilter
from ..layers.positions import LearnedPositions
from .config_checks import ConfigError

DECAY_TYPES = ('layer_wise', 'stage_wise')

_DEFAULTS = dict(
    decay_type=None,
    decay_rate=None,
    num_layers=None,
    position_lr_mult=1.0,
    sigma_lr_mult=None,
    mask_lr_mult=1.0,
    custom_keys={},
)

# The parameters that say where, instead of how much: by the layer that has them. They
# are not decayed towards zero, and learn at <kind>_lr_mult times the rate.
_PLACES = (
    (LearnedPositions, 'position', ('P',)),
    (LearnedPositions, 'sigma', ('SIG',)),
    (FlexConvNd, 'mask', ('mask_mean', 'mask_width')),
    (GaborFilter, 'filter', ('weight', 'gamma', 'mu', 'theta')),
)


class DCLSOptimizerConstructor(DefaultOptimWrapperConstructor):
    """Gives each parameter the learning rate of its depth and of its kind.

    The learning rate is ``lr * decay_rate ** (num_layers + 1 - layer) * multiplier``.
    What lies outside the backbone has layer ``num_layers + 1``, so no decay. Weight
    decay applies to all but positions, sigma, masks, the filters of kernel networks,
    biases and one-dimensional parameters.
    Depth and weight decay are those of mmdet's and mmseg's
    ``LearningRateDecayOptimizerConstructor``, which decays positions like weights.

    A backbone tells its depth by a method ``layer_id(name, num_layers, decay_type)``,
    as :meth:`.ConvNeXtDCLS.layer_id`. Parameters that layers share count once, under
    the name and depth of the first.

    Args:
        optim_wrapper_cfg: ``optim_wrapper`` of the config; its optimizer needs ``lr``.
        paramwise_cfg: a dict of

            - ``decay_type``: 'layer_wise' or 'stage_wise'; left out, the learning rate
              doesn't depend on depth.
            - ``decay_rate`` in (0, 1] and ``num_layers``, with ``decay_type``.
            - ``position_lr_mult``: of the positions P of DCLS layers, 1 by default; the
              published training from scratch used 5.
            - ``sigma_lr_mult``: of their SIG; by default as ``position_lr_mult``.
            - ``mask_lr_mult``: of the masks of FlexConv layers, 1 by default; the
              published training used 0.1.
            - ``custom_keys``: part of a parameter's name -> a dict of ``lr_mult`` and
              ``decay_mult``, 1 by default. They take the place of what the parameter's
              kind would give it; depth counts still. The longest key that fits holds,
              of several the first in the alphabet.

    Raises:
        ConfigError: a key that doesn't fit or isn't known, or a decay for a model that
            does not tell its depth.

    Source: arXiv 2112.03740 (the treatment of positions), 2110.08059 (of masks).
    """

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Refuses a model that FSDP shards: of flat parameters none would decay."""
        check_unsharded(model, f'optim_wrapper.constructor: {type(self).__name__}')
        return super().__call__(model)

    def add_params(self, params: list, module: nn.Module, **kwargs) -> None:
        """Append the parameter groups of ``module`` to ``params``, one for each rate.

        Beside what the optimizer reads, a group has ``group_name``, ``param_names`` and
        ``lr_scale``, its learning rate over the optimizer's.
        """
        backbones = self._backbones(module)
        placed = {
            id(getattr(layer, name)): kind
            for layer in module.modules()
            for layer_class, kind, names in _PLACES
            if isinstance(layer, layer_class)
            for name in names
        }
        groups = {}
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad:
                continue
            group_name, scale, decay_mult = self._by_kind(
                name, parameter, placed.get(id(parameter))
            )
            if backbones:
                layer = self._layer(name, backbones)
                group_name = f'layer_{layer}_{group_name}'
                depth = self.paramwise_cfg['num_layers'] + 1 - layer
                scale *= self.paramwise_cfg['decay_rate'] ** depth
            if group_name not in groups:
                group = groups[group_name] = dict(
                    params=[],
                    param_names=[],
                    group_name=group_name,
                    lr_scale=scale,
                    lr=scale * self.base_lr,
                )
                if decay_mult == 0:
                    group['weight_decay'] = 0.0
                elif self.base_wd is not None:
                    group['weight_decay'] = decay_mult * self.base_wd
            groups[group_name]['params'].append(parameter)
            groups[group_name]['param_names'].append(name)
        for name, group in groups.items():
            print_log(
                f'parameter group {name}: lr x {group["lr_scale"]:.4g}, weight_decay '
                f'{group.get("weight_decay")}, {len(group["params"])} parameters',
                logger='current',
            )
        params.extend(groups.values())

    def _by_kind(self, name, parameter, placed) -> tuple[str, float, float]:
        """Name of the group, multiplier of its learning rate, of its weight decay."""
        cfg = self.paramwise_cfg
        for key in sorted(cfg['custom_keys'], key=lambda key: (-len(key), key)):
            if key in name:
                custom = {'lr_mult': 1.0, 'decay_mult': 1.0, **cfg['custom_keys'][key]}
                return f'custom_{key}', custom['lr_mult'], custom['decay_mult']
        if placed:
            return placed, cfg.get(f'{placed}_lr_mult', 1.0), 0.0
        undecayed = name.endswith('.bias') or name in ('pos_embed', 'cls_token')
        if parameter.ndim == 1 or undecayed:
            return 'no_decay', 1.0, 0.0
        return 'decay', 1.0, 1.0

    def _backbones(self, model: nn.Module) -> list[tuple[str, nn.Module]]:
        """The modules that tell their depth, each with the prefix of its parameters."""
        decay_type = self.paramwise_cfg['decay_type']
        if decay_type is None:
            return []
        backbones = [
            (f'{name}.' if name else '', module)
            for name, module in model.named_modules()
            if callable(getattr(module, 'layer_id', None))
        ]
        if not backbones:
            kind = type(getattr(model, 'backbone', model)).__name__
            raise _bad(
                'decay_type',
                f'left out for {kind}, which does not tell its depth, or {kind} must '
                'have a method layer_id(name, num_layers, decay_type)',
                decay_type,
            )
        return backbones

    def _layer(self, name: str, backbones: list[tuple[str, nn.Module]]) -> int:
        count = self.paramwise_cfg['num_layers']
        decay_type = self.paramwise_cfg['decay_type']
        for prefix, backbone in backbones:
            if name.startswith(prefix):
                layer = backbone.layer_id(name[len(prefix) :], count, decay_type)
                if layer > count + 1:  # would learn faster than the head
                    raise _bad(
                        'num_layers', f'at least {layer - 1}, as {name} shows', count
                    )
                return layer
        return count + 1

    def _validate_cfg(self) -> None:
        super()._validate_cfg()
        if self.base_lr is None:
            raise ConfigError('optim_wrapper.optimizer.lr must be given')
        for key in self.paramwise_cfg:
            if key not in _DEFAULTS:
                raise ConfigError(
                    f'optim_wrapper.paramwise_cfg.{key} is unknown to '
                    f'{type(self).__name__}, which takes {", ".join(_DEFAULTS)}'
                )
        cfg = self.paramwise_cfg = {**_DEFAULTS, **self.paramwise_cfg}
        if cfg['sigma_lr_mult'] is None:
            cfg['sigma_lr_mult'] = cfg['position_lr_mult']
        self._validate_multipliers()
        self._validate_decay()

    def _validate_multipliers(self) -> None:
        cfg = self.paramwise_cfg
        given = {key: cfg[key] for key in cfg if key.endswith('_lr_mult')}
        for name, custom in cfg['custom_keys'].items():
            where = f'custom_keys[{name!r}]'
            if not isinstance(custom, dict) or set(custom) - {'lr_mult', 'decay_mult'}:
                raise _bad(where, 'a dict of lr_mult and decay_mult', custom)
            given.update({f'{where}.{key}': value for key, value in custom.items()})
        for key, value in given.items():
            if not is_number(value) or value < 0:
                raise _bad(key, 'a number of at least 0', value)

    def _validate_decay(self) -> None:
        keys = ('decay_type', 'decay_rate', 'num_layers')
        decay_type, rate, count = map(self.paramwise_cfg.get, keys)
        if decay_type is None:
            for key, value in (('decay_rate', rate), ('num_layers', count)):
                if value is not None:
                    raise _bad(key, f'given with decay_type, {DECAY_TYPES}', value)
            return
        if decay_type not in DECAY_TYPES:
            raise _bad('decay_type', f'one of {DECAY_TYPES} or left out', decay_type)
        if not is_number(rate) or not 0 < rate <= 1:
            raise _bad('decay_rate', 'a number in (0, 1]', rate)
        if type(count) is not int or count < 1:
            raise _bad('num_layers', 'a whole number of at least 1', count)


def _bad(key: str, expected: str, value: Any) -> ConfigError:
    return ConfigError(
        f'optim_wrapper.paramwise_cfg.{key} must be {expected}, got {value!r}'
    )


def check_unsharded(model: nn.Module, key: str) -> None:
    """Refuses what FSDP has wrapped: between the passes its parameters are flat shards.

    Raises:
        ConfigError: ``model``, or a part of it, is wrapped. It names ``key``.
    """
    if any(isinstance(module, FullyShardedDataParallel) for module in model.modules()):
        raise ConfigError(
            f'{key} needs whole parameters, and FSDPStrategy leaves each process a '
            'flat part of them; leave out strategy, to train by DDP'
        )


def is_number(value: Any) -> bool:
    """Whether ``value`` is a finite int or float."""
    is_real = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_real and math.isfinite(value)
