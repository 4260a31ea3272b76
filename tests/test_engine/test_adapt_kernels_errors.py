"""What AdaptKernelsHook refuses, and what its errors say."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import nn

from dcls_mm.checks.errors import ConfigError
from dcls_mm.engine.hooks import (
    AdaptKernelsHook,
    ClampPositionsHook,
    FreezePositionsHook,
)
from dcls_mm.layers import DCLSConv1d, DCLSConvTranspose1d
from dcls_mm.layers.dropin import Dcls1d


@pytest.mark.parametrize(
    'arguments, message',
    [
        (dict(interval=0), 'interval must be .*at least 1'),
        (dict(begin=-1), 'begin must be .*at least 0'),
        (dict(begin=5, end=5), 'end must be .*at least 6'),
        (dict(budget=0), 'budget must be .*at least 1'),
        (dict(largest_extent=12), 'largest_extent must be odd.* got 12'),
        (dict(largest_extent='31'), 'largest_extent must be'),
        (dict(turnover=1.5), 'turnover must be'),
        (dict(meet=-1), 'meet must be finite and at least 0'),
        (dict(near_zero=float('nan')), 'near_zero must be'),
        (dict(pressed='x'), 'pressed must be'),
        (dict(move_counts='no'), 'move_counts must be True or False'),
    ],
)
def test_arguments(arguments, message):
    with pytest.raises(ConfigError, match=f'AdaptKernelsHook.{message}'):
        AdaptKernelsHook(**arguments)


def start(model, *others, accumulated=1, wrapper=None, **arguments):
    """Begin a training of 100 iterations with the hook."""
    hook = AdaptKernelsHook(**arguments)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    wrapper = wrapper or OptimWrapper(optimizer, accumulative_counts=accumulated)
    hub = SimpleNamespace(runtime_info={})
    hook.before_train(
        SimpleNamespace(
            model=model,
            hooks=[hook, *others],
            optim_wrapper=wrapper,
            iter=0,
            max_iters=100,
            message_hub=hub,
        )
    )


def layer(kind=DCLSConv1d, **options):
    options = dict(kernel_count=3, dilated_kernel_size=5, padding=2, **options)
    return nn.Sequential(kind(2, 2, **options))


@pytest.mark.parametrize(
    'model, others, arguments, message',
    [
        (nn.Linear(2, 2), [], {}, 'needs a model with DCLS layers'),
        (layer(learn_positions=False), [], {}, 'needs layers that learn'),
        (layer(DCLSConvTranspose1d), [], {}, 'layer 0: it is transposed.*learn_posi'),
        (layer(Dcls1d), [], {}, 'layer 0: a Dcls1d has the sizes'),
        (layer(formulation='sample'), [], {}, "formulation is 'sample', with fixed"),
        (
            layer(),
            [],
            dict(largest_extent=None),
            "formulation 'direct', but 0 has 'aut",
        ),
        (layer(), [], dict(largest_extent=3), 'largest_extent must be at least 5'),
        (layer(), [], dict(budget=3), 'budget must be at least 4, .* got 3'),
        (
            layer(),
            [],
            dict(budget=20, move_counts=False),
            'budget must be left out or 12',
        ),
        (layer(), [], dict(interval=90), 'interval must be such that visits'),
        (layer(), [], dict(end=200), 'interval must be such that visits'),
        (layer(), [FreezePositionsHook()], {}, 'FreezePositionsHook would undo'),
        (layer(), [AdaptKernelsHook()], {}, 'must be there once'),
        (
            layer(groups=2, formulation='direct'),
            [ClampPositionsHook()],
            dict(largest_extent=None),
            'without a border, which ClampPositionsHook sets',
        ),
        (nn.ModuleDict(dict(teacher=layer())), [], {}, 'can not change the teacher'),
    ],
)
def test_models_and_configs(model, others, arguments, message):
    with pytest.raises(ConfigError, match=message):
        start(model, *others, **arguments)


def test_optimizers():
    model = layer()
    with pytest.raises(ConfigError, match=r'multiple of accumulative_counts \(3\)'):
        start(model, accumulated=3)
    one = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(ConfigError, match='needs a single optimizer'):
        start(model, wrapper=OptimWrapperDict(one=one))


def test_a_resumed_training_of_other_layers():
    hook = AdaptKernelsHook()
    hook._groups = [SimpleNamespace(name='0', load_state=lambda state: state == 'good')]
    for kept in (3, {}, {'budget': '4', 'groups': {'0': 'good'}}, {'budget': 4},
                 {'budget': 4, 'groups': {'1': 'good'}}):  # fmt: skip
        with pytest.raises(ConfigError, match='resume: .* is of other layers'):
            hook._load(kept)
    hook._load({'budget': 4, 'groups': {'0': 'good'}})
    assert hook._budget == 4
