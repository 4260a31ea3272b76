"""Several losses added by hooks, and the state of the model around a training."""

import copy
import itertools
import pickle
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from mmengine.registry import HOOKS, MODELS
from positions_toy import PositionsToy, train

from dcls_mm.checks.errors import ConfigError
from dcls_mm.engine.hooks import AliasLossHook, RepulsionLossHook
from dcls_mm.engine.hooks.added_loss import AddedLoss
from dcls_mm.engine.optimizers import DCLSOptimizerConstructor
from dcls_mm.functional.repulsion import repulsion
from dcls_mm.layers import DCLSConv1d, FlexConv1d


@MODELS.register_module(force=True)
class BothToy(BaseModel):
    """A layer with positions and one with a MAGNet."""

    def __init__(self, own_loss='loss_fit'):
        super().__init__()
        self.own_loss = own_loss
        self.dcls = DCLSConv1d(1, 1, padding=2, kernel_count=3, dilated_kernel_size=5)
        self.flex = FlexConv1d(1, 1, 5, padding=2)
        self.net = torch.nn.Sequential(self.dcls, self.flex, self.dcls)

    def forward(self, x, y, mode='tensor'):
        output = self.net(torch.stack(list(x)).unsqueeze(1)).mean((1, 2))
        error = (output - torch.stack(list(y)).squeeze(1)).square().mean()
        return {self.own_loss: error}


HOOK_KINDS = {
    'loss_repulsion': lambda weight: RepulsionLossHook(weight, begin=-1),
    'loss_alias': lambda weight: AliasLossHook(weight, deviations=3.0),
}


def expected_losses(model, kinds, weights):
    """Compute the losses by name, from their definitions."""
    alias = HOOK_KINDS['loss_alias'](1.0)  # its formula is tested elsewhere
    alias.layers = [model.flex]
    values = {
        'loss_repulsion': repulsion(model.dcls.P) ** 2,
        'loss_alias': alias.loss(),
    }
    found = {}
    for kind, weight in zip(kinds, weights):
        number = sum(name.startswith(kind) for name in found)
        found[kind + (f'_{number}' if number else '')] = weight * values[kind]
    return found


@pytest.mark.parametrize('removed_in', [1, -1])
@pytest.mark.parametrize(
    'kinds',
    [pair for count in (2, 3) for pair in itertools.product(HOOK_KINDS, repeat=count)],
    ids=', '.join,
)
def test_any_number_of_losses_is_added_and_taken_away(kinds, removed_in):
    torch.manual_seed(0)
    model, weights = BothToy(), [1.0, 3.0, 0.5][: len(kinds)]
    hooks = [HOOK_KINDS[kind](weight) for kind, weight in zip(kinds, weights)]
    runner = SimpleNamespace(model=model, epoch=0, iter=0, hooks=hooks)
    data = {'x': list(torch.rand(4, 4)), 'y': list(torch.rand(4, 1))}
    own = model(**data)['loss_fit']
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    for hook in hooks:
        hook.before_train(runner)
    for _ in range(2):
        for hook in hooks:
            hook.before_train_iter(runner, 0)
        logged = model.train_step(data, OptimWrapper(optimizer))
        for hook in hooks:
            hook.after_train_iter(runner, 0, outputs=logged)
        expected = {'loss_fit': own, **expected_losses(model, kinds, weights)}
        assert list(logged) == ['loss', *expected]
        for name, value in expected.items():
            torch.testing.assert_close(logged[name], value)
        torch.testing.assert_close(logged['loss'], sum(expected.values()))
    for hook in hooks[::removed_in]:
        hook.after_train(runner)
    assert not model._forward_hooks
    assert list(model(**data, mode='loss')) == ['loss_fit']


def test_losses_that_begin_at_different_times_keep_their_names(tmp_path):
    hooks = [
        {'type': 'RepulsionLossHook', 'begin': 1},
        {'type': 'RepulsionLossHook', 'begin': 0, 'weight': 2.0},
    ]
    _, rows = train(tmp_path, *hooks)
    names = [[n for n in row.logged if 'repulsion' in n] for row in rows]
    both = ['loss_repulsion', 'loss_repulsion_1']
    assert names == [[]] * 4 + [both[1:]] * 4 + [both] * 4
    last = rows[-1].logged
    torch.testing.assert_close(last[both[1]], 2 * last[both[0]])


def test_a_loss_of_the_models_own_is_not_replaced(tmp_path):
    model = BothToy(own_loss='loss_repulsion')
    hook = RepulsionLossHook(begin=-1)
    runner = SimpleNamespace(model=model, epoch=0, iter=0, hooks=[hook])
    hook.before_train(runner)
    hook.before_train_iter(runner, 0)
    data = {'x': list(torch.rand(4, 4)), 'y': list(torch.rand(4, 1))}
    with pytest.raises(ConfigError, match="RepulsionLossHook .*'loss_repulsion'.*Both"):
        model(**data, mode='loss')


def test_a_model_that_never_asks_for_losses_is_refused():
    hook = RepulsionLossHook(begin=-1)
    runner = SimpleNamespace(model=PositionsToy(), epoch=0, iter=0, hooks=[hook])
    hook.before_train(runner)
    hook.before_train_iter(runner, 0)
    with pytest.raises(ConfigError, match='train_step of PositionsToy did not ask'):
        hook.after_train_iter(runner, 0)


@HOOKS.register_module(force=True)
class Copier(Hook):
    """A hook that copies and pickles the model during a training."""

    copies: list

    def before_train_iter(self, runner, **kwargs):
        Copier.copies = [
            copy.deepcopy(runner.model),
            pickle.loads(pickle.dumps(runner.model)),
        ]


def test_copies_of_a_model_add_no_loss(tmp_path):
    runner, rows = train(
        tmp_path,
        {'type': 'RepulsionLossHook', 'begin': -1, 'priority': 'HIGHEST'},
        {'type': 'Copier'},
        {'type': 'EMAHook'},
        max_epochs=1,
    )
    assert all('loss_repulsion' in row.logged for row in rows)
    ema = next(hook.ema_model for hook in runner.hooks if hasattr(hook, 'ema_model'))
    data = {'x': list(torch.rand(4, 4)), 'y': list(torch.rand(4, 1))}
    for model in (*Copier.copies, ema.module, runner.model):
        assert list(model(**data, mode='loss')) == ['loss_fit']
        assert not any(isinstance(value, AddedLoss) for value in vars(model).values())


@pytest.mark.parametrize('failing', ['forward', 'backward', 'hook'])
def test_a_training_that_fails_leaves_the_model_without_it(failing):
    model, hook = PositionsToy(), RepulsionLossHook(begin=-1)
    runner = SimpleNamespace(model=model, epoch=0, iter=0, hooks=[hook])
    hook.before_train(runner)
    hook.before_train_iter(runner, 0)
    data = {'x': list(torch.rand(4, 4)), 'y': list(torch.rand(4, 1))}
    optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.0))
    if failing == 'backward':
        optimizer.step = lambda: 1 / 0
    given = {'x': [None]} if failing == 'forward' else {}
    if failing != 'hook':
        with pytest.raises((TypeError, ZeroDivisionError)):
            model.train_step({**data, **given}, optimizer)
    else:
        model.train_step(data, optimizer)
    assert list(model(**data, mode='loss')) == ['loss_fit']

    # The model can be trained again, with another hook.
    second = RepulsionLossHook(weight=2.0, begin=-1)
    runner.hooks = [second]
    second.before_train(runner)
    second.before_train_iter(runner, 0)
    losses = model(**data, mode='loss')
    expected = 2.0 * hook.loss()
    torch.testing.assert_close(losses.pop('loss_repulsion'), expected)
    assert list(losses) == ['loss_fit']


def test_the_loss_is_computed_without_autocast():
    model, hook = PositionsToy(), RepulsionLossHook(begin=-1)
    runner = SimpleNamespace(model=model, epoch=0, iter=0, hooks=[hook])
    hook.before_train(runner)
    hook.before_train_iter(runner, 0)
    seen = []
    hook._addition.loss = lambda: seen.append(torch.is_autocast_enabled('cpu'))
    data = {'x': list(torch.rand(4, 4)), 'y': list(torch.rand(4, 1))}
    with torch.autocast('cpu', torch.bfloat16):
        model(**data, mode='loss')
    assert seen == [False]


class OddLoss(AddedLoss, Hook):
    """A loss in every other iteration."""

    loss_name = 'loss_odd'

    def is_due(self, runner):
        return runner.iter % 2 == 1

    def before_train(self, runner):
        self.weight = runner.model.net.weight
        self.add_loss(runner)

    def loss(self):
        return self.weight.square().sum()


class OneLayer(BaseModel):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Linear(4, 1)

    def forward(self, x, mode='tensor'):
        return {'loss_fit': self.net(x).mean()}


def test_a_compiled_training_step_has_it_when_it_is_due():
    """mmengine's cfg.compile does this; our constructor's groups are plain dicts."""
    model, hook = OneLayer(), OddLoss()
    cfg = ConfigDict(optimizer=dict(type='SGD', lr=0.1), type='OptimWrapper')
    wrapper = DCLSOptimizerConstructor(cfg)(model)
    assert {type(group) for group in wrapper.optimizer.param_groups} == {dict}
    runner = SimpleNamespace(model=model, epoch=0, iter=0, hooks=[hook])
    hook.before_train(runner)
    step = torch.compile(model.train_step, backend='eager')
    for runner.iter in range(4):
        hook.before_train_iter(runner, 0)
        odd = model.net.weight.detach().square().sum()
        logged = step({'x': torch.ones(2, 4)}, wrapper)
        hook.after_train_iter(runner, 0)
        assert ('loss_odd' in logged) == (runner.iter % 2 == 1)
        if 'loss_odd' in logged:
            torch.testing.assert_close(logged['loss_odd'].detach(), odd)
            total = logged['loss_fit'] + logged['loss_odd']
            torch.testing.assert_close(logged['loss'], total)
    torch.compiler.reset()
