"""Trainings whose loss becomes NaN or infinite, run as by the command."""

import math
from types import SimpleNamespace

import pytest
import torch
from mmengine.registry import MODELS
from toy import ToyModel, write_config

from dcls_mm.apis import command
from dcls_mm.apis import train as training
from dcls_mm.checks.errors import ConfigError
from dcls_mm.engine.hooks import FiniteLossHook, finite_loss_hook
from dcls_mm.engine.hooks.finite_loss_hook import NonFiniteLossError


@MODELS.register_module(force=True)
class BreakingToy(ToyModel):
    """ToyModel whose loss_b is times ``value`` from the ``at``-th forward pass on."""

    def __init__(self, at, value=math.nan):
        super().__init__()
        self.at, self.value, self.count = at, value, 0

    def forward(self, x, y, mode='tensor'):
        output = super().forward(x, y, mode)
        if mode == 'loss':
            self.count += 1
            if self.count >= self.at:
                output = {
                    'loss_a': output['loss'],
                    'loss_b': output['loss'] * self.value,
                }
        return output


NO_TEST = {
    f'{stage}_{part}': None
    for stage in ('val', 'test')
    for part in ('dataloader', 'cfg', 'evaluator')
}


def train(tmp_path, at, value=math.nan, checkpoint=(), options=None, **changes):
    """Train three epochs of four iterations; return the error's text, or None."""
    config = write_config(
        tmp_path / 'toy.py',
        model={'type': 'BreakingToy', 'at': at},
        default_hooks={
            'checkpoint': {
                'type': 'AtomicCheckpointHook',
                'interval': 1,
                **dict(checkpoint),
            }
        },
        param_scheduler=None,
        **NO_TEST,
        **changes,
    )
    options = {'config': config, 'work_dir': str(tmp_path / 'work'), **(options or {})}
    text = f"{{'type': 'BreakingToy', 'at': {at}}}"
    if not math.isnan(value):
        content = (tmp_path / 'toy.py').read_text()
        changed = f"{{'type': 'BreakingToy', 'at': {at}, 'value': float('{value}')}}"
        (tmp_path / 'toy.py').write_text(content.replace(text, changed))
    try:
        command.run(training.train, options)
    except SystemExit as error:
        return error.code
    return None


@pytest.mark.parametrize(
    'at, says',
    [
        (1, ['there is no checkpoint that is known to be good. Try']),
        (4, ['there is no checkpoint that is known to be good. Try']),
        (5, ['there is no checkpoint', 'epoch_1.pth holds the weights that gave']),
        (6, ['last good checkpoint is', 'epoch_1.pth. Try']),
        (9, ['is {}/epoch_1.pth; {}/epoch_2.pth holds the weights that gave this']),
        (12, ['last good checkpoint is {}/epoch_2.pth. Try']),
    ],
)
def test_the_first_loss_that_is_none_ends_it(tmp_path, at, says):
    said = train(tmp_path, at)
    assert said.startswith(
        f'error: iteration {at}: the loss is not finite (loss nan, loss_b nan)'
    )
    for text in (
        *says,
        'optimizer.lr (its highest learning rate is 0.01)',
        'finite_loss.stop=False',
    ):
        assert text.replace('{}', str(tmp_path / 'work')) in said


def test_an_infinite_loss(tmp_path):
    said = train(tmp_path, 2, math.inf)
    assert 'iteration 2: the loss is not finite (loss inf, loss_b inf)' in said


def test_a_learning_rate_that_cannot_be_meant(tmp_path):
    options = {'cfg_options': {'optim_wrapper.optimizer.lr': 1e30}}
    said = train(tmp_path, 100, options=options)
    assert said.startswith('error: iteration 2: the loss is not finite (loss ')
    assert 'optimizer.lr (its highest learning rate is 1e+30)' in said


@pytest.mark.parametrize(
    'at, says',
    [
        (1, 'no checkpoint .* known to be good; .*/epoch_1.pth holds the weights'),
        (2, 'the last good checkpoint is .*/epoch_1.pth. Try'),
    ],
)
def test_after_a_resume(tmp_path, at, says):
    assert 'epoch_1.pth' in train(tmp_path, 6)
    said = train(tmp_path, at, options={'resume': 'auto'})
    assert f'iteration {4 + at}:' in said
    with pytest.raises(RuntimeError, match=says):
        raise RuntimeError(said)


def test_what_a_resumed_file_calls_the_last_checkpoint_may_be_anything():
    told = torch.ones(2)
    runner = SimpleNamespace(
        message_hub=SimpleNamespace(get_info={'last_ckpt': told}.get),
        **{'_resume': True, '_load_from': 'x.pth'},
    )
    hook = FiniteLossHook()
    hook.before_train(runner)
    hook.after_train_iter(runner, 0, outputs={'loss': torch.ones(())})
    assert hook._good == 'x.pth'


def test_a_good_checkpoint_that_has_been_removed(tmp_path):
    said = train(tmp_path, 9, checkpoint={'max_keep_ckpts': 1})
    assert 'epoch_1.pth, which has been removed; ' in said


def test_it_goes_on_if_told_to(tmp_path):
    options = {
        'cfg_options': {
            'default_hooks.finite_loss.type': 'FiniteLossHook',
            'default_hooks.finite_loss.stop': False,
        }
    }
    assert train(tmp_path, 6, options=options) is None
    log = ''.join(path.read_text() for path in (tmp_path / 'work').rglob('*.log'))
    assert log.count('; continues, as') == 7
    assert (tmp_path / 'work' / 'epoch_3.pth').exists()


def test_a_hook_of_the_configs_own_is_the_only_one(tmp_path):
    hooks = [{'type': 'FiniteLossHook', 'stop': False}]
    assert train(tmp_path, 6, custom_hooks=hooks) is None


class Hub:
    def get_info(self, name):
        return None


class Runner:
    message_hub, iter = Hub(), 0
    _resume, _load_from = False, None


@pytest.mark.parametrize(
    'outputs', [None, {}, {'acc': math.nan}, {'loss': torch.tensor(1.0)}, {'loss': 2}]
)
def test_what_is_no_loss_is_passed_over(outputs):
    hook = FiniteLossHook()
    hook.before_train(Runner)
    hook.after_train_iter(Runner, 0, outputs=outputs)


@pytest.mark.parametrize(
    'outputs', [{'loss_a': torch.tensor([math.inf])}, {'d_loss': -math.inf}]
)
def test_whatever_is_called_a_loss_counts(outputs):
    hook, runner = FiniteLossHook(), Runner()
    runner.optim_wrapper = torch.nn.Module()
    runner.optim_wrapper.get_lr = lambda: {'d.lr': [0.5]}
    hook.before_train(runner)
    with pytest.raises(NonFiniteLossError, match='iteration 1: .* -?inf.*rate is 0.5'):
        hook.after_train_iter(runner, 0, outputs=outputs)


def test_the_option_is_checked():
    with pytest.raises(ConfigError, match='FiniteLossHook.stop must be True or False'):
        FiniteLossHook(stop='no')


def test_all_losses_are_read_at_once(monkeypatch):
    """Each reading waits for the device."""
    read, tolist = [], torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, 'tolist', lambda t: read.append(t) or tolist(t))
    monkeypatch.setattr(torch.Tensor, 'item', None)
    losses = {
        'loss_a': torch.tensor(1.0, requires_grad=True),
        'loss_b': torch.tensor([math.inf], dtype=torch.float64),
        'loss_c': 2.0,
        'loss_d': torch.tensor([[3]]),
        'loss_e': torch.tensor(math.nan, dtype=torch.half),
    }
    assert list(finite_loss_hook._not_finite(losses)) == ['loss_b', 'loss_e']
    assert len(read) == 1
