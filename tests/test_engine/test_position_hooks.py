"""What the hooks do to positions and sigma in short trainings."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapper
from positions_toy import LIMIT, PositionsToy, train
from torch import distributed, nn
from torch.distributed.fsdp import FullyShardedDataParallel

from dcls_mm.checks.errors import ConfigError
from dcls_mm.engine.hooks import (
    ClampPositionsHook,
    FreezePositionsHook,
    RepulsionLossHook,
    SigmaAnnealingHook,
)
from dcls_mm.engine.optimizers import DCLSOptimizerConstructor
from dcls_mm.functional.repulsion import repulsion


def ema_positions(runner):
    hook = next(hook for hook in runner.hooks if hasattr(hook, 'ema_model'))
    return hook.ema_model.module.net[0].P


def test_positions_are_clamped_before_they_are_averaged(tmp_path):
    ema = {'type': 'EMAHook', 'momentum': 0.5}
    clamp = {'type': 'ClampPositionsHook'}
    runner, rows = train(tmp_path, ema, clamp, lr=10.0, max_epochs=1)
    assert all(row.positions.abs().max() == LIMIT for row in rows)
    assert ema_positions(runner).abs().max() <= LIMIT

    late = {**clamp, 'priority': 'LOW'}
    runner, _ = train(tmp_path, ema, late, lr=10.0, max_epochs=1)
    assert ema_positions(runner).abs().max() > LIMIT


def test_repulsion_joins_the_loss_after_its_epoch(tmp_path):
    hook = {'type': 'RepulsionLossHook', 'weight': 2.0, 'begin': 1}
    runner, rows = train(tmp_path, hook, max_epochs=3)
    assert [row.epoch for row in rows if 'loss_repulsion' in row.logged] == [2] * 4
    for row in rows[8:]:
        mean = sum(repulsion(p) for p in row.before) / 2
        expected = 2.0 * mean**2
        torch.testing.assert_close(row.logged['loss_repulsion'], expected)
        total = row.logged['loss_fit'] + expected
        torch.testing.assert_close(row.logged['loss'], total)
    assert not runner.model._forward_hooks


def test_repulsion_counts_iterations_too(tmp_path):
    hook = {'type': 'RepulsionLossHook', 'begin': 2, 'by_epoch': False}
    _, rows = train(tmp_path, hook, max_epochs=2)
    with_it = [row.iter for row in rows if 'loss_repulsion' in row.logged]
    assert with_it == [3, 4, 5, 6, 7]


def test_one_element_a_kernel_has_no_repulsion(tmp_path):
    _, rows = train(
        tmp_path, {'type': 'RepulsionLossHook', 'begin': -1}, max_epochs=1, count=1
    )
    assert all(row.logged['loss_repulsion'] == 0 for row in rows)


@pytest.fixture
def one_process():
    distributed.init_process_group(
        'gloo', store=distributed.HashStore(), rank=0, world_size=1
    )
    yield
    distributed.destroy_process_group()


def test_repulsion_under_ddp_and_gradient_accumulation(one_process):
    model = PositionsToy()
    wrapped = MMDistributedDataParallel(model)
    hook = RepulsionLossHook(weight=3.0)
    runner = SimpleNamespace(model=wrapped, epoch=21, iter=0, hooks=[hook])
    hook.before_train(runner)
    hook.before_train_iter(runner, 0)
    data = {'x': list(torch.rand(4, 4)), 'y': list(torch.rand(4, 1))}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    logged = wrapped.train_step(data, OptimWrapper(optimizer, accumulative_counts=2))
    positions = model.net[0].P, model.net[2].P
    actual = [p.grad.clone() for p in positions]

    mean = sum(repulsion(p) for p in positions) / 2
    loss = model(**data)['loss_fit'] + 3.0 * mean**2
    torch.testing.assert_close(logged['loss'], loss)
    for value, expected in zip(actual, torch.autograd.grad(loss, positions)):
        torch.testing.assert_close(value, expected / 2)

    hook.after_train(runner)
    assert not model._forward_hooks


def moved(rows, name):
    """Return the epochs in which a value changed, from the Recorder's rows."""
    values = [getattr(row, name) for row in rows]
    pairs = zip(rows[1:], values, values[1:])
    return {row.epoch for row, a, b in pairs if not torch.equal(a, b)}


@pytest.mark.parametrize(
    'parameters, positions_move, sigma_moves',
    [
        (['positions', 'sigma'], {0, 2}, {0, 2}),
        (['positions'], {0, 2}, {0, 1, 2}),
        (['sigma'], {0, 1, 2}, {0, 2}),
    ],
)
def test_what_is_frozen_learns_before_and_after(
    tmp_path, parameters, positions_move, sigma_moves
):
    hook = dict(type='FreezePositionsHook', begin=1, end=2, parameters=parameters)
    runner, rows = train(tmp_path, hook, interpolation='gauss')
    assert moved(rows, 'positions') == positions_move
    assert moved(rows, 'sigma') == sigma_moves
    assert runner.model.net[0].P.requires_grad


def test_frozen_for_good_from_an_iteration_on(tmp_path):
    hook = dict(type='FreezePositionsHook', begin=3, by_epoch=False)
    _, rows = train(tmp_path, hook)
    assert not torch.equal(rows[1].positions, rows[2].positions)
    assert all(torch.equal(row.positions, rows[2].positions) for row in rows[3:])


def test_a_frozen_training_resumes(tmp_path):
    hook = dict(type='FreezePositionsHook', begin=1)
    _, rows = train(tmp_path, hook, max_epochs=2)
    runner, resumed = train(tmp_path, hook, max_epochs=4, resume=True)
    assert [row.epoch for row in resumed] == [2] * 4 + [3] * 4
    assert all(torch.equal(row.positions, rows[-1].positions) for row in resumed)
    names = {
        group['group_name'] for group in runner.optim_wrapper.optimizer.param_groups
    }
    assert names == {'decay', 'no_decay', 'position'}


def test_sigma_goes_linearly_and_does_not_learn(tmp_path):
    hook = dict(type='SigmaAnnealingHook', initial=2.0, final=1.0, begin=1, end=3)
    _, rows = train(tmp_path, hook, interpolation='gauss', max_epochs=5)
    values = [row.sigma.unique().tolist() for row in rows]
    assert values == [[v] for v in (2.0, 2.0, 1.5, 1.0, 1.0) for _ in range(4)]


def test_sigma_by_iteration(tmp_path):
    hook = dict(
        type='SigmaAnnealingHook', initial=1.0, final=0.0, end=4, by_epoch=False
    )
    _, rows = train(tmp_path, hook, interpolation='max', max_epochs=1)
    assert [row.sigma.unique().item() for row in rows] == [1.0, 0.75, 0.5, 0.25]


@pytest.mark.parametrize(
    'hook', [ClampPositionsHook(), RepulsionLossHook(), FreezePositionsHook()]
)
def test_a_model_without_positions_is_refused(hook):
    runner = SimpleNamespace(model=nn.Linear(2, 2))
    with pytest.raises(ValueError, match=f'{type(hook).__name__} .* Linear has none'):
        hook.before_train(runner)


@pytest.mark.filterwarnings('ignore::FutureWarning', 'ignore::UserWarning')
def test_shards_of_positions_are_refused(one_process):
    """Clamping a shard would move the first two numbers only."""
    device = torch.device('cpu')
    model = FullyShardedDataParallel(
        PositionsToy(), device_id=device, use_orig_params=True
    )
    for hook in (ClampPositionsHook(), RepulsionLossHook(), FreezePositionsHook()):
        with pytest.raises(ConfigError, match=f'{type(hook).__name__} .*FSDPStrategy'):
            hook.before_train(SimpleNamespace(model=model))
    construct = DCLSOptimizerConstructor(dict(optimizer=dict(type='SGD', lr=0.1)))
    with pytest.raises(ConfigError, match='DCLSOptimizerConstructor .*FSDPStrategy'):
        construct(model)


@pytest.mark.parametrize(
    'hook', [FreezePositionsHook(parameters=['sigma']), SigmaAnnealingHook(1, 0, end=1)]
)
def test_a_model_without_sigma_is_refused(hook):
    with pytest.raises(ValueError, match=f'{type(hook).__name__} .*layers with sigma'):
        hook.before_train(SimpleNamespace(model=PositionsToy()))


@pytest.mark.parametrize(
    'kind, arguments, name',
    [
        (RepulsionLossHook, dict(weight=-1.0), 'weight'),
        (RepulsionLossHook, dict(weight=float('nan')), 'weight'),
        (RepulsionLossHook, dict(begin=2.5), 'begin'),
        (FreezePositionsHook, dict(begin=-1), 'begin'),
        (FreezePositionsHook, dict(begin=3, end=3), 'end'),
        (FreezePositionsHook, dict(parameters=['weight']), 'parameters'),
        (FreezePositionsHook, dict(parameters=[]), 'parameters'),
        (SigmaAnnealingHook, dict(initial=-1.0, final=0.0, end=2), 'initial'),
        (SigmaAnnealingHook, dict(initial=1.0, final=None, end=2), 'final'),
        (SigmaAnnealingHook, dict(initial=1.0, final=0.0, begin=2, end=2), 'end'),
    ],
)
def test_bad_values_are_named(kind, arguments, name):
    message = rf'^{kind.__name__}\.{name} must'
    with pytest.raises((ValueError, TypeError), match=message):
        kind(**arguments)
