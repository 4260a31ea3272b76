"""The optimizer constructor that sets learning rates by depth and kind of parameter."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel

from ...checks.arguments import checked
from ...checks.errors import ConfigError
from ...functional._arguments import as_float, as_int
from ...layers.flexconv.kernel_nets import GaborFilter
from ...layers.flexconv.layer import FlexConvNd
from ...layers.positions import LearnedPositions
from .paramwise import (
    STOCK_KEYS,
    Parameter,
    check_rates,
    custom_key,
    parameters_with_places,
    stock_decay,
    stock_rate,
    unknown_settings,
)
from .position_travel import KEY, UNSETTLED, refuse_unsettled

DECAY_TYPES = ('layer_wise', 'stage_wise')

_DEFAULTS = dict(
    decay_type=None,
    decay_rate=None,
    num_layers=None,
    position_lr_mult=1.0,
    position_travel=None,
    sigma_lr_mult=None,
    mask_lr_mult=1.0,
    custom_keys={},
    **dict.fromkeys(STOCK_KEYS),
)

# The parameters that are places rather than weights, by the layer that has them. They
# have no weight decay, and learn at <kind>_lr_mult times the learning rate.
_PLACES = (
    (LearnedPositions, 'position', ('P',)),
    (LearnedPositions, 'sigma', ('SIG',)),
    (FlexConvNd, 'mask', ('mask_mean', 'mask_width')),
    (GaborFilter, 'filter', ('weight', 'gamma', 'mu', 'theta')),
)


class _Kind(NamedTuple):
    """The group, the multipliers and other settings of a kind of parameter."""

    group_name: str
    lr_mult: float
    decay_mult: float
    settings: dict[str, Any] = {}


class DCLSOptimizerConstructor(DefaultOptimWrapperConstructor):
    """Learning rates and weight decays by a parameter's depth and kind.

    The learning rate is ``lr * decay_rate ** (num_layers + 1 - layer) * multiplier``.
    Parameters outside the backbone have layer ``num_layers + 1``, so no decay with
    depth. Weight decay applies to all but positions, sigma, masks, the filters of
    kernel networks, biases and one-dimensional parameters. Depth and weight decay are
    those of mmdet's and mmseg's ``LearningRateDecayOptimizerConstructor``, which decays
    positions like weights.

    A backbone defines its depth by a method ``layer_id(name, num_layers, decay_type)``,
    such as :meth:`.ConvNeXtDCLS.layer_id`. Parameters that layers share count once,
    with the name and depth of the first.

    A parameter's multipliers come from the first of these that applies:

    1. ``custom_keys``;
    2. for positions, sigma, masks and filters: the key for their learning rate below,
       and no weight decay;
    3. mmengine's keys for norms, biases, depthwise convolutions and one-dimensional
       parameters, if given, in mmengine's order. A depthwise layer of this package
       counts as a depthwise convolution, and so does the network that makes its kernel;
    4. otherwise 1, and no weight decay for biases and one-dimensional parameters.

    Args:
        optim_wrapper_cfg: ``optim_wrapper`` of the config; its optimizer needs ``lr``.
        paramwise_cfg: a dict of

            - ``decay_type``: 'layer_wise' or 'stage_wise'; if left out, the learning
              rate does not depend on depth.
            - ``decay_rate`` in (0, 1] and ``num_layers``, with ``decay_type``.
            - ``position_lr_mult``: for the positions P of DCLS layers, 1 by default;
              the published training from scratch used 5.
            - ``position_travel``: how far positions can travel in the whole training,
              in pixels, above 0, instead of ``position_lr_mult``. Their learning rate
              is then what the schedule and its length require, whatever the depth
              and the scaling to a batch size. It needs :class:`.PositionTravelHook`,
              mmengine's runner, and an optimizer whose steps are as long as the
              learning rate, as with AdamW.
            - ``sigma_lr_mult``: for their SIG; by default they learn as fast as the
              positions.
            - ``mask_lr_mult``: for the masks of FlexConv layers, 1 by default; the
              published training used 0.1.
            - ``custom_keys``: part of a parameter's name -> a dict of ``lr_mult`` and
              ``decay_mult``, 1 by default, and optimizer settings for its group. Depth
              still counts, unless ``lr`` is among the settings. The longest matching
              key applies, and among equally long ones the first in the alphabet.
            - ``bias_lr_mult``, ``dcn_offset_lr_mult``, ``norm_decay_mult``,
              ``bias_decay_mult``, ``dwconv_decay_mult``, ``flat_decay_mult``: as in
              mmengine's DefaultOptimWrapperConstructor.
            - ``bypass_duplicate``: has no effect here, as shared parameters count once
              in any case.

    Raises:
        ConfigError: a key is invalid or unknown, or a decay is given for a model that
            does not define its depth.

    Source: arXiv 2112.03740 (the treatment of positions), 2110.08059 (of masks).
    """

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Build the optimizer and its wrapper.

        A model that FSDP shards is refused: its flat parameters would not decay.
        """
        check_unsharded(model, f'optim_wrapper.constructor: {type(self).__name__}')
        wrapper = super().__call__(model)
        if self.paramwise_cfg['position_travel'] is not None:
            refuse_unsettled(wrapper.optimizer)
        return wrapper

    def add_params(self, params: list, module: nn.Module, **kwargs) -> None:
        """Append the parameter groups of ``module`` to ``params``, one per kind.

        Besides what the optimizer reads, a group has ``group_name``, ``param_names``
        and ``lr_scale``, the ratio of its learning rate to the optimizer's. That of
        positions has ``position_lr_mult`` or ``position_travel``.
        """
        groups = {}
        for parameter, kind in self._kinds(module):
            group = groups.setdefault(kind.group_name, self._group(kind))
            group['params'].append(parameter.value)
            group['param_names'].append(parameter.full_name)
        for name, group in groups.items():
            rate = f'lr x {group["lr_scale"]:.4g}'
            if UNSETTLED in group:
                rate = f'lr by position_travel={group[UNSETTLED]:g}'
            print_log(
                f'parameter group {name}: {rate}, weight_decay '
                f'{group.get("weight_decay")}, {len(group["params"])} parameters',
                logger='current',
            )
        params.extend(groups.values())

    def _group(self, kind: _Kind) -> dict[str, Any]:
        group = dict(
            params=[],
            param_names=[],
            group_name=kind.group_name,
            lr_scale=kind.lr_mult,
            lr=kind.lr_mult * self.base_lr,
        )
        if kind.decay_mult == 0:
            group['weight_decay'] = 0.0
        elif self.base_wd is not None:
            group['weight_decay'] = kind.decay_mult * self.base_wd
        group.update(kind.settings)
        if 'lr' in kind.settings and self.base_lr:
            group['lr_scale'] = group['lr'] / self.base_lr
        return group

    def _kinds(self, model: nn.Module) -> Iterator[tuple[Parameter, _Kind]]:
        """Yield the parameters that learn, each with its kind, including depth."""
        backbones = self._backbones(model)
        placed = placed_parameters(model)
        for parameter in parameters_with_places(model):
            if not parameter.value.requires_grad:
                continue
            kind = self._by_kind(parameter, placed.get(id(parameter.value)))
            if backbones:
                layer = self._layer(parameter.full_name, backbones)
                depth = self.paramwise_cfg['num_layers'] + 1 - layer
                kind = kind._replace(
                    group_name=f'layer_{layer}_{kind.group_name}',
                    lr_mult=kind.lr_mult * self.paramwise_cfg['decay_rate'] ** depth,
                )
            yield parameter, kind

    def _by_kind(self, parameter: Parameter, placed: str | None) -> _Kind:
        cfg = self.paramwise_cfg
        key = custom_key(parameter.full_name, cfg['custom_keys'])
        if key is not None:
            settings = dict(cfg['custom_keys'][key])
            multipliers = settings.pop('lr_mult', 1.0), settings.pop('decay_mult', 1.0)
            return _Kind(f'custom_{key}', *multipliers, settings)
        if placed:
            return self._of_places(placed)
        lr_key, lr_mult = stock_rate(parameter, cfg)
        decay_key, decay_mult = stock_decay(parameter, cfg)
        if not decay_key:
            undecayed = (
                parameter.value.ndim == 1
                or parameter.name == 'bias'
                or parameter.full_name in ('pos_embed', 'cls_token')
            )
            decay_mult = 0.0 if undecayed else 1.0
            decay_key = 'no_decay' if undecayed else 'decay'
        names = [key.replace('_mult', '') for key in (lr_key, decay_key) if key]
        return _Kind('_'.join(names), lr_mult, decay_mult)

    def _of_places(self, name: str) -> _Kind:
        cfg = self.paramwise_cfg
        lr_mult = cfg.get(f'{name}_lr_mult', 1.0)
        if lr_mult is None:  # for positions, and for sigma as for positions
            return _Kind(name, 1.0, 0.0, {UNSETTLED: cfg['position_travel']})
        settings = {'position_lr_mult': lr_mult} if name == 'position' else {}
        return _Kind(name, lr_mult, 0.0, settings)

    def _backbones(self, model: nn.Module) -> list[tuple[str, nn.Module]]:
        """Return the modules that define depth, each with its parameters' prefix."""
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
                f'left out for {kind}, which does not define its depth, or {kind} must '
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
        check_rates(self.optimizer_cfg, self.paramwise_cfg)
        for problem in unknown_settings(self.optimizer_cfg, self.paramwise_cfg):
            raise ConfigError(problem)
        super()._validate_cfg()
        # A ConfigDict would make parameter groups ConfigDicts, which dynamo can't read.
        self.optimizer_cfg = dict(self.optimizer_cfg)
        if self.base_lr is None:
            raise ConfigError('optim_wrapper.optimizer.lr must be given')
        for key in self.paramwise_cfg:
            if key not in _DEFAULTS:
                raise ConfigError(
                    f'optim_wrapper.paramwise_cfg.{key} is unknown to '
                    f'{type(self).__name__}, which takes {", ".join(_DEFAULTS)}'
                )
        given = {k: v for k, v in self.paramwise_cfg.items() if v is not None}
        cfg = self.paramwise_cfg = {**_DEFAULTS, **given}
        if 'position_travel' in given:
            self._validate_travel('position_lr_mult' in given)
            cfg['position_lr_mult'] = None
        if cfg['sigma_lr_mult'] is None:
            cfg['sigma_lr_mult'] = cfg['position_lr_mult']
        self._validate_decay()

    def _validate_travel(self, has_multiplier: bool) -> None:
        travel = checked(as_float, KEY, self.paramwise_cfg['position_travel'])
        if travel <= 0:
            raise _bad('position_travel', 'above 0, in pixels', travel)
        if has_multiplier:
            raise ConfigError(
                f'{KEY} must be left out if there is position_lr_mult, as both set the '
                f'learning rate of positions, got {travel:g}: set either to None'
            )
        if self.base_lr == 0:
            raise ConfigError(
                'optim_wrapper.optimizer.lr must be above 0, got 0: position_travel '
                'multiplies it'
            )

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
        where = 'optim_wrapper.paramwise_cfg'
        rate = checked(as_float, f'{where}.decay_rate', rate, minimum=0, maximum=1)
        if rate == 0:
            raise _bad('decay_rate', 'a number in (0, 1]', rate)
        checked(as_int, f'{where}.num_layers', count, minimum=1)


def _bad(key: str, expected: str, value: Any) -> ConfigError:
    return ConfigError(
        f'optim_wrapper.paramwise_cfg.{key} must be {expected}, got {value!r}'
    )


def placed_parameters(model: nn.Module) -> dict[int, str]:
    """Return the ids of the parameters that are places, each with its kind."""
    return {
        id(getattr(layer, name)): kind
        for layer in model.modules()
        for layer_class, kind, names in _PLACES
        if isinstance(layer, layer_class)
        for name in names
    }


def check_unsharded(model: nn.Module, key: str) -> None:
    """Refuse a model wrapped by FSDP, whose parameters are flat shards between passes.

    Raises:
        ConfigError: ``model``, or a part of it, is wrapped; the message names ``key``.
    """
    if any(isinstance(module, FullyShardedDataParallel) for module in model.modules()):
        raise ConfigError(
            f'{key} needs whole parameters, but FSDPStrategy leaves each process a '
            'flat part of them; leave out strategy to train by DDP'
        )
