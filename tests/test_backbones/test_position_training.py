"""Positions under a training script that only makes optimizers and steps them."""

import copy
import gc
import weakref

import pytest
import torch
from torch import nn

from dcls_mm import DCLSConv2d
from dcls_mm.backbones.timm_networks.position_training import (
    STEPS,
    PositionTraining,
)
from dcls_mm.functional.repulsion import repulsion

OPTIMIZERS = {
    'adamw': lambda groups: torch.optim.AdamW(groups, lr=4e-2, weight_decay=0.05),
    'fused': lambda groups: torch.optim.AdamW(
        groups, lr=4e-2, weight_decay=0.05, fused=True
    ),
    'foreach': lambda groups: torch.optim.AdamW(
        groups, lr=4e-2, weight_decay=0.05, foreach=True
    ),
    'sgd': lambda groups: torch.optim.SGD(
        groups, lr=4e-1, momentum=0.9, weight_decay=0.05, nesterov=True
    ),
    'rmsprop': lambda groups: torch.optim.RMSprop(groups, lr=4e-3, momentum=0.9),
}


def network(interpolation='gauss', seed=0, count=5):
    """Return two layers that share positions, and one with its own."""
    torch.manual_seed(seed)
    options = dict(
        padding=3,
        groups=4,
        kernel_count=count,
        dilated_kernel_size=9,
        interpolation=interpolation,
    )
    layers = [DCLSConv2d(4, 4, 7, **options) for _ in range(3)]
    layers[1].share_positions(layers[0])
    return nn.Sequential(*layers).double()


def groups_of(model, rate=1.0, lr=None):
    """Return timm's parameter groups: positions without decay, at `rate` times lr."""
    named = dict(model.named_parameters())
    placed = [p for name, p in named.items() if name.endswith(('.P', '.SIG'))]
    others = [p for name, p in named.items() if not name.endswith(('.P', '.SIG'))]
    group = dict(params=placed, weight_decay=0.0)
    if lr is not None:
        group['lr'] = rate * lr
    return [group, dict(params=others)]


def train(model, optimizer, steps=4, loss_of=None, seed=1):
    torch.manual_seed(seed)
    for _ in range(steps):
        images = torch.randn(2, 4, 12, 12, dtype=torch.float64)
        optimizer.zero_grad()
        loss = model(images).square().mean()
        if loss_of is not None:
            loss = loss + loss_of(model)
        loss.backward()
        optimizer.step()


def assert_same(one, other, rtol=1e-10):
    for (key, value), expected in zip(
        one.state_dict().items(), other.state_dict().values()
    ):
        torch.testing.assert_close(value, expected, rtol=rtol, atol=1e-12, msg=key)


@pytest.mark.parametrize('name', OPTIMIZERS)
def test_equals_a_group_with_a_higher_rate(name):
    make = OPTIMIZERS[name]
    ours, expected = network(), network()
    PositionTraining(rate=5).attach(ours)
    train(ours, make(groups_of(ours)))
    lr = make(groups_of(expected)).defaults['lr']
    train(expected, make(groups_of(expected, 5, lr)))
    assert not torch.equal(ours[0].P, network()[0].P)
    assert_same(ours, expected)


def total_repulsion(model):
    positions = [model[0].P, model[2].P]
    return torch.stack([repulsion(p) for p in positions]).mean() ** 2


def test_repulsion_is_in_the_loss_after_some_steps():
    make = OPTIMIZERS['adamw']
    ours, expected = network(), network()
    PositionTraining(rate=1, repulsion_after=3).attach(ours)
    train(ours, make(groups_of(ours)), steps=5)
    optimizer = make(groups_of(expected))
    torch.manual_seed(1)
    for step in range(5):
        images = torch.randn(2, 4, 12, 12, dtype=torch.float64)
        optimizer.zero_grad()
        loss = expected(images).square().mean()
        if step >= 3:
            loss = loss + total_repulsion(expected)
        loss.backward()
        optimizer.step()
    assert_same(ours, expected)


def test_count_survives_saving_and_resuming():
    make = OPTIMIZERS['adamw']
    whole, halves = network(), network()
    PositionTraining(repulsion_after=3).attach(whole)
    optimizer = make(groups_of(whole))
    train(whole, optimizer, steps=2, seed=1)
    train(whole, optimizer, steps=3, seed=2)
    PositionTraining(repulsion_after=3).attach(halves)
    optimizer = make(groups_of(halves))
    train(halves, optimizer, steps=2, seed=1)
    saved = copy.deepcopy((halves.state_dict(), optimizer.state_dict()))
    resumed = network(seed=5)
    PositionTraining(repulsion_after=3).attach(resumed)
    resumed.load_state_dict(saved[0])
    optimizer = make(groups_of(resumed))
    optimizer.load_state_dict(saved[1])
    assert optimizer.param_groups[0][STEPS] == 2
    train(resumed, optimizer, steps=3, seed=2)
    assert_same(resumed, whole)


def test_positions_stay_in_the_extent():
    model = network('bilinear')
    PositionTraining(rate=1000).attach(model)
    train(model, OPTIMIZERS['adamw'](groups_of(model)))
    assert model[0].P.abs().max() == 4


@pytest.mark.parametrize('name', ['adamw', 'fused'])
def test_loss_scaling_changes_nothing(name):
    """A fused optimizer gets scaled gradients, and divides them by the scale itself."""
    make = OPTIMIZERS[name]
    plain, scaled = network(), network()
    for model in (plain, scaled):
        PositionTraining(repulsion_after=0).attach(model)
    train(plain, make(groups_of(plain)))
    optimizer = make(groups_of(scaled))
    scaler = torch.amp.GradScaler('cpu', init_scale=1024.0)
    torch.manual_seed(1)
    for _ in range(4):
        images = torch.randn(2, 4, 12, 12, dtype=torch.float64)
        optimizer.zero_grad()
        scaler.scale(scaled(images).square().mean()).backward()
        scaler.step(optimizer)
        scaler.update()
    assert_same(scaled, plain)


@pytest.mark.parametrize('name', ['adamw', 'fused'])
def test_skipped_step_moves_nothing(name):
    model = network()
    PositionTraining(repulsion_after=0).attach(model)
    before = copy.deepcopy(model.state_dict())
    optimizer = OPTIMIZERS[name](groups_of(model))
    scaler = torch.amp.GradScaler('cpu')
    loss = model(torch.full((1, 4, 12, 12), float('inf')).double()).sum()
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_frozen_positions_stay():
    model = network()
    model[0].freeze_positions()
    PositionTraining(repulsion_after=0).attach(model)
    before = model[0].P.clone()
    train(model, OPTIMIZERS['adamw'](groups_of(model)))
    assert torch.equal(model[0].P, before)
    assert model[0].P.grad is None


def test_only_attached_models_are_touched():
    attached, ours, expected = network(seed=3), network(), network()
    PositionTraining().attach(attached)
    before = copy.deepcopy(attached.state_dict())
    train(ours, OPTIMIZERS['adamw'](groups_of(ours)))
    lr = 4e-2
    train(expected, OPTIMIZERS['adamw'](groups_of(expected, 1, lr)))
    assert_same(ours, expected)
    assert all(torch.equal(v, before[k]) for k, v in attached.state_dict().items())


def test_copy_of_a_model_trains_alike():
    model = network()
    PositionTraining(rate=5).attach(model)
    copied = copy.deepcopy(model)
    assert copied.position_training is not model.position_training
    assert copied.position_training.layers[0] is copied[0]
    before = copy.deepcopy(model.state_dict())
    train(copied, OPTIMIZERS['adamw'](groups_of(copied)))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    train(model, OPTIMIZERS['adamw'](groups_of(model)))
    assert_same(copied, model)


def test_models_are_not_kept_alive():
    model = network()
    PositionTraining().attach(model)
    optimizer = OPTIMIZERS['adamw'](groups_of(model))
    train(model, optimizer, steps=1)
    gone = weakref.ref(model)
    del model, optimizer
    gc.collect()
    assert gone() is None


def test_a_step_that_fails_leaves_nothing_behind():
    model = network()
    PositionTraining().attach(model)

    class Failing(torch.optim.SGD):
        def step(self, closure=None):
            raise RuntimeError('no step')

    with pytest.raises(RuntimeError, match='no step'):
        Failing(model.parameters(), lr=1.0).step()
    expected = network()
    train(model, OPTIMIZERS['sgd'](groups_of(model)))
    train(expected, OPTIMIZERS['sgd'](groups_of(expected, 5, 4e-1)))
    assert_same(model, expected)


def test_weight_decay_leaves_positions_out():
    model = network()
    model.no_weight_decay = lambda: {'gamma'}
    PositionTraining().attach(model)
    assert model.no_weight_decay() == {'gamma', '*.P', '*.SIG'}


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(rate='5'), 'position_rate must be'),
        (dict(rate=-1), 'position_rate must be'),
        (dict(repulsion_after=1.5), 'repulsion_after must be'),
        (dict(repulsion_after=-1), 'repulsion_after must be'),
    ],
)
def test_arguments_are_checked(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        PositionTraining(**arguments)
