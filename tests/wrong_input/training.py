"""Wrong arguments of hooks, learning rates and multipliers."""

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from torch import nn

from dcls_mm.checks.errors import ConfigError
from dcls_mm.engine.hooks import (
    AliasLossHook,
    ClampPositionsHook,
    EpochSeedHook,
    FiniteLossHook,
    FreezePositionsHook,
    PositionsLogHook,
    PositionsVisualizationHook,
    RepulsionLossHook,
    SigmaAnnealingHook,
)
from dcls_mm.engine.hooks.finite_loss_hook import NonFiniteLossError
from dcls_mm.engine.optimizers import DCLSOptimizerConstructor
from dcls_mm.engine.optimizers.optim_checks import check_optimizer
from dcls_mm.layers import DCLSConv1d

from . import Wrong, wrong

NAN = math.nan


def hook(kind: type, argument: str, *says: str, **arguments: Any) -> Wrong:
    """Make a row for a hook that rejects an argument, which the error names."""
    name = f'{kind.__name__}.{argument}'
    return wrong(lambda: kind(**arguments), ConfigError, f'{name} must be', *says)


def begins(build: Callable, model: Callable, *says: str, hooks: Any = ()) -> Wrong:
    """Make a row for a hook that can't start training a model."""

    def call():
        made = build()
        settings = dict(hooks=[made, *hooks], epoch=0, iter=0)
        made.before_train(SimpleNamespace(model=model(), **settings))

    return wrong(call, ConfigError, f'{type(build()).__name__}', *says)


def layer(interpolation: str = 'bilinear') -> nn.Module:
    return DCLSConv1d(
        2, 2, kernel_count=3, dilated_kernel_size=5, interpolation=interpolation
    )


def shared() -> nn.Module:
    layers = [layer(), layer()]
    layers[1].share_positions(layers[0])
    return nn.Sequential(*layers)


def seeded(randomness: dict) -> None:
    EpochSeedHook().before_train(
        SimpleNamespace(cfg=Config(dict(randomness=randomness)), train_loop=None)
    )


def unfinished(value: float) -> None:
    """Run a training step with this loss."""
    watching = FiniteLossHook()
    runner = SimpleNamespace(
        message_hub=SimpleNamespace(get_info=lambda name: None),
        optim_wrapper=SimpleNamespace(get_lr=lambda: {'lr': [0.25]}),
        iter=6,
        _resume=False,
        _load_from=None,
    )
    watching.before_train(runner)
    watching.after_train_iter(runner, 0, outputs={'loss_x': torch.tensor(value)})


def head() -> nn.Module:
    return nn.ModuleDict({'head': nn.Linear(2, 2)})


def constructor(
    key: str, *says: str, optimizer: Any = None, model: Callable = head, **cfg: Any
) -> Wrong:
    """Make a row for DCLSOptimizerConstructor with an invalid paramwise_cfg."""
    settings = dict(type='AdamW', lr=0.1, weight_decay=0.1)
    settings.update(optimizer or {})

    def call():
        MMLogger.get_instance('wrong_input')
        construct = DCLSOptimizerConstructor(dict(optimizer=settings), cfg)
        construct(model())

    return wrong(call, ConfigError, f'optim_wrapper.{key}', *says)


def stock(key: str, *says: str, model: Callable = shared, **wrapper: Any) -> Wrong:
    """Make a row for a constructor of mmengine's, as our tools check it."""
    settings = dict(optimizer=dict(type='SGD', lr=0.1, weight_decay=0.1))
    cfg = dict(optim_wrapper={**settings, **wrapper})
    return wrong(
        lambda: check_optimizer(Config(cfg), model()),
        ConfigError,
        f'optim_wrapper.{key}',
        *says,
    )


PARAMWISE = 'paramwise_cfg'
DECAYED = dict(decay_type='layer_wise', decay_rate=0.5, num_layers=3)

ROWS = [
    hook(RepulsionLossHook, 'by_epoch', 'True or False', "'no'", by_epoch='no'),
    hook(RepulsionLossHook, 'weight', 'at least 0', '-1', weight=-1),
    hook(RepulsionLossHook, 'weight', 'finite', 'nan', weight=NAN),
    hook(RepulsionLossHook, 'weight', 'a number', "'1'", weight='1'),
    hook(RepulsionLossHook, 'weight', 'a number', 'True', weight=True),
    hook(RepulsionLossHook, 'begin', 'an integer', '2.5', begin=2.5),
    hook(RepulsionLossHook, 'begin', 'at least -1', '-2', begin=-2),
    hook(RepulsionLossHook, 'begin', 'an integer', 'None', begin=None),
    hook(AliasLossHook, 'weight', 'finite', 'inf', weight=math.inf),
    hook(AliasLossHook, 'deviations', 'a number', '[2]', deviations=[2]),
    hook(FreezePositionsHook, 'begin', 'at least 0', '-1', begin=-1),
    hook(FreezePositionsHook, 'begin', 'an integer', 'True', begin=True),
    hook(FreezePositionsHook, 'end', 'at least 4', '3', begin=3, end=3),
    hook(FreezePositionsHook, 'end', 'an integer', "'last'", end='last'),
    hook(FreezePositionsHook, 'by_epoch', 'True or False', 'None', by_epoch=None),
    hook(FreezePositionsHook, 'parameters', "'sigma'", "['P']", parameters=['P']),
    hook(FreezePositionsHook, 'parameters', "'positions'", '[]', parameters=[]),
    hook(FreezePositionsHook, 'parameters', "got 'sigma'", parameters='sigma'),
    hook(FreezePositionsHook, 'parameters', 'some of', '[[]]', parameters=[[]]),
    hook(SigmaAnnealingHook, 'initial', '-0.5', initial=-0.5, final=0, end=2),
    hook(SigmaAnnealingHook, 'final', 'None', initial=1, final=None, end=2),
    hook(SigmaAnnealingHook, 'final', 'finite', 'nan', initial=1, final=NAN, end=2),
    hook(SigmaAnnealingHook, 'end', 'at least 1', '0', initial=1, final=0, end=0),
    hook(
        SigmaAnnealingHook, 'begin', 'at least 0', initial=1, final=0, end=2, begin=-1
    ),
    hook(SigmaAnnealingHook, 'by_epoch', '1', initial=1, final=0, end=2, by_epoch=1),
    hook(PositionsVisualizationHook, 'interval', 'at least 1', '0', interval=0),
    hook(PositionsVisualizationHook, 'interval', 'an integer', '0.5', interval=0.5),
    hook(PositionsVisualizationHook, 'interval', 'an integer', 'True', interval=True),
    hook(PositionsVisualizationHook, 'columns', 'at least 1', '-3', columns=-3),
    hook(PositionsVisualizationHook, 'by_epoch', "'yes'", by_epoch='yes'),
    hook(PositionsLogHook, 'interval', 'at least 1', '0', interval=0),
    hook(PositionsLogHook, 'interval', 'an integer', "'10'", interval='10'),
    hook(FiniteLossHook, 'stop', 'True or False', "'no'", stop='no'),
    begins(ClampPositionsHook, lambda: nn.Linear(2, 2), 'Linear has none', 'leave out'),
    begins(RepulsionLossHook, lambda: nn.Linear(2, 2), 'a model with DCLS layers'),
    begins(AliasLossHook, layer, 'needs a model with FlexConv', 'DCLSConv1d has none'),
    begins(lambda: SigmaAnnealingHook(1, 0, end=1), layer, 'needs layers with sigma'),
    begins(
        lambda: FreezePositionsHook(parameters=['sigma']), layer, "'max' or 'gauss'"
    ),
    begins(
        lambda: SigmaAnnealingHook(1, 0, end=1),
        lambda: layer('gauss'),
        'at most one SigmaAnnealingHook',
        hooks=[SigmaAnnealingHook(0, 1, end=1)],
    ),
    wrong(lambda: seeded({}), ConfigError, 'EpochSeedHook', 'randomness.seed'),
    wrong(lambda: seeded(dict(seed='a')), ConfigError, 'randomness.seed', "'a'"),
    wrong(lambda: seeded(dict(seed=1)), ConfigError, 'by_epoch=True', 'NoneType'),
    wrong(lambda: unfinished(NAN), NonFiniteLossError, 'iteration 7', 'loss_x nan'),
    wrong(lambda: unfinished(-math.inf), NonFiniteLossError, 'loss_x -inf', '0.25'),
    constructor('optimizer.lr must be given', optimizer=dict(lr=None)),
    constructor('optimizer.lr must be', 'a number', "'0.1'", optimizer=dict(lr='0.1')),
    constructor('optimizer.lr must be', 'at least 0', '-1', optimizer=dict(lr=-1)),
    constructor('optimizer.lr must be', 'finite', 'inf', optimizer=dict(lr=math.inf)),
    constructor('optimizer.weight_decay', '-0.1', optimizer=dict(weight_decay=-0.1)),
    constructor('optimizer.weight_decay', "'0'", optimizer=dict(weight_decay='0')),
    constructor(f'{PARAMWISE}.positions_lr_mult is unknown', positions_lr_mult=1),
    constructor(f'{PARAMWISE}.position_lr_mult', 'at least 0', position_lr_mult=-1),
    constructor(f'{PARAMWISE}.position_lr_mult', "'5'", position_lr_mult='5'),
    constructor(f'{PARAMWISE}.position_travel must be', "'17'", position_travel='17'),
    constructor(f'{PARAMWISE}.position_travel must be', 'True', position_travel=True),
    constructor(f'{PARAMWISE}.position_travel must be', 'nan', position_travel=NAN),
    constructor(
        f'{PARAMWISE}.position_travel must be above 0, in pixels', position_travel=0
    ),
    constructor(
        f'{PARAMWISE}.position_travel must be left out if there is position_lr_mult',
        'set either to None',
        position_travel=17,
        position_lr_mult=5,
    ),
    constructor(
        'optimizer.lr must be above 0',
        'position_travel multiplies it',
        optimizer=dict(lr=0),
        position_travel=17,
    ),
    constructor(
        f'{PARAMWISE}.position_travel must be left out for SGD',
        'such as AdamW',
        'set position_lr_mult',
        optimizer=dict(type='SGD'),
        model=layer,
        position_travel=17,
    ),
    constructor(f'{PARAMWISE}.sigma_lr_mult', 'finite', 'nan', sigma_lr_mult=NAN),
    constructor(f'{PARAMWISE}.mask_lr_mult', 'a number', 'True', mask_lr_mult=True),
    constructor(f'{PARAMWISE}.bias_lr_mult', 'at least 0', bias_lr_mult=-2.0),
    constructor(f'{PARAMWISE}.norm_decay_mult', '(0,)', norm_decay_mult=(0,)),
    constructor(f'{PARAMWISE}.dwconv_decay_mult', '-0.1', dwconv_decay_mult=-0.1),
    constructor(f'{PARAMWISE}.flat_decay_mult', 'inf', flat_decay_mult=math.inf),
    constructor(f'{PARAMWISE}.bypass_duplicate', "'no'", bypass_duplicate='no'),
    constructor(
        'optimizer.weight_decay must be given',
        'bias_decay_mult multiplies it',
        optimizer=dict(weight_decay=None),
        bias_decay_mult=0.5,
    ),
    constructor(f'{PARAMWISE}.custom_keys', 'a dict', "['P']", custom_keys=['P']),
    constructor(f"{PARAMWISE}.custom_keys['P']", 'a dict', '5', custom_keys={'P': 5}),
    constructor(
        f"{PARAMWISE}.custom_keys['P'].lr_mul is unknown",
        'lr_mult and decay_mult',
        'AdamW takes lr, betas',
        custom_keys={'P': dict(lr_mul=5)},
    ),
    constructor(
        f"{PARAMWISE}.custom_keys['P'].decay_mult",
        'at least 0',
        custom_keys={'P': dict(decay_mult=-1)},
    ),
    constructor(
        f"{PARAMWISE}.custom_keys['P'].lr must be",
        "'fast'",
        custom_keys={'P': dict(lr='fast')},
    ),
    constructor(f'{PARAMWISE}.decay_type', 'layer_wise', "'depth'", decay_type='depth'),
    constructor(f'{PARAMWISE}.decay_type', 'ModuleDict', 'layer_id', **DECAYED),
    constructor(f'{PARAMWISE}.decay_rate', 'given with decay_type', decay_rate=0.9),
    constructor(f'{PARAMWISE}.num_layers', 'given with decay_type', num_layers=6),
    constructor(f'{PARAMWISE}.decay_rate', '(0, 1]', **{**DECAYED, 'decay_rate': 0}),
    constructor(f'{PARAMWISE}.decay_rate', '2', **{**DECAYED, 'decay_rate': 2}),
    constructor(f'{PARAMWISE}.num_layers', '0', **{**DECAYED, 'num_layers': 0}),
    constructor(f'{PARAMWISE}.num_layers', '6.0', **{**DECAYED, 'num_layers': 6.0}),
    stock(PARAMWISE, 'must be a dict', '[1]', paramwise_cfg=[1]),
    stock(
        f'{PARAMWISE}.norm_decay is unknown',
        'DefaultOptimWrapperConstructor',
        'norm_decay_mult',
        paramwise_cfg=dict(norm_decay=0),
    ),
    stock(
        f'{PARAMWISE}.position_lr_mult is unknown',
        'would ignore it',
        paramwise_cfg=dict(position_lr_mult=5),
    ),
    stock(f'{PARAMWISE}.bias_lr_mult', '-1', paramwise_cfg=dict(bias_lr_mult=-1)),
    stock(
        f"{PARAMWISE}.custom_keys['P'].lr_mult",
        "'5'",
        paramwise_cfg=dict(custom_keys={'P': dict(lr_mult='5')}),
    ),
    stock(
        PARAMWISE,
        '0.P is 1.P too',
        'DCLSOptimizerConstructor',
        'bypass_duplicate=True',
        paramwise_cfg=dict(norm_decay_mult=0.0),
    ),
    stock('optimizer.lr', "'1e-3'", optimizer=dict(type='SGD', lr='1e-3')),
    stock('optimizer.lr', 'nan', optimizer=dict(type='SGD', lr=NAN)),
    stock(
        'optimizer.weight_decay',
        'True',
        optimizer=dict(type='SGD', lr=0.1, weight_decay=True),
    ),
]
