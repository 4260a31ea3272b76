"""Resuming with a different config is reported in one sentence, before any harm."""

import shutil

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from toy import toy_config

from dcls_mm.checkpoint import CheckpointError, read_checkpoint
from dcls_mm.engine.hooks.resume_match_hook import ResumeMatchHook

WIDER = {'type': 'ToyModel', 'width': 9}
SCHEDULERS = toy_config()['param_scheduler']
EMA = [{'type': 'EMAHook'}]
FIRST_EMA = [{'type': 'EMAHook', 'priority': 'VERY_HIGH', 'strict_load': True}]


def train(work_dir, resume=None, epochs=1, **changes):
    config = toy_config(
        default_scope='mmengine',
        custom_imports=None,
        train_cfg={'by_epoch': True, 'max_epochs': epochs},
        **changes,
    )
    if resume:
        config.update(load_from=str(resume), resume=True)
    runner = Runner.from_cfg(Config({**config, 'work_dir': str(work_dir)}))
    if resume:
        runner.register_hook(ResumeMatchHook('the checkpoint'))
    runner.train()
    return runner


@pytest.fixture(scope='module')
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp('plain')
    train(folder)
    return folder / 'epoch_1.pth'


@pytest.fixture(scope='module')
def averaged(tmp_path_factory):
    folder = tmp_path_factory.mktemp('averaged')
    train(folder, custom_hooks=EMA)
    return folder / 'epoch_1.pth'


@pytest.mark.parametrize(
    'changes',
    [
        {},
        {'epochs': 3},
        {'optim_wrapper': {'optimizer': {'type': 'AdamW', 'lr': 1e-5}}},
        {'optim_wrapper': {'optimizer': {'type': 'AdamW', 'lr': 1, 'amsgrad': True}}},
        {'custom_hooks': EMA},
    ],
)
def test_a_config_that_fits(plain, tmp_path, changes):
    runner = train(tmp_path, plain, **changes)
    assert runner.epoch == changes.get('epochs', 1)


def warnings_of(monkeypatch, *arguments, **changes):
    said = []
    monkeypatch.setattr(MMLogger, 'warning', lambda self, text: said.append(text))
    train(*arguments, **changes)
    return [text for text in said if 'overrides' in text]


def test_settings_that_stay_in_force_are_told(plain, tmp_path, monkeypatch):
    assert not warnings_of(monkeypatch, tmp_path, plain)
    (said,) = warnings_of(
        monkeypatch,
        tmp_path,
        plain,
        epochs=2,
        optim_wrapper={
            'optimizer': dict(type='AdamW', lr=1e-5, weight_decay=0, amsgrad=True)
        },
        param_scheduler=[SCHEDULERS[0], {**SCHEDULERS[1], 'gamma': 0.5}],
    )
    assert said == (
        '--resume: the checkpoint overrides the config: '
        'optimizer initial_lr=0.01, not 1e-05; optimizer weight_decay=0.01, not 0; '
        'optimizer amsgrad=False, not True; '
        'param_scheduler.1 gamma=0.1, not 0.5; param_scheduler.1 end=1, not 2'
    )


def test_averaged_weights_go_on(averaged, tmp_path):
    runner = train(tmp_path, averaged, epochs=2, custom_hooks=FIRST_EMA)
    assert runner.epoch == 2


SGD = {'type': 'SGD', 'lr': 0.1, 'momentum': 0.9}


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'model': WIDER}, "another model.*7 of 8 values don't fit"),
        (
            {'optim_wrapper': {'optimizer': SGD}},
            'the optimizer was of another type than SGD: no momentum, dampening',
        ),
        (
            {
                'optim_wrapper': {
                    'optimizer': {'type': 'AdamW', 'lr': 0.1, 'weight_decay': 0.1},
                    'paramwise_cfg': {'norm_decay_mult': 0.0},
                }
            },
            'had 6 parameters in 1 groups, but by the config has 6 .* in 6 gr',
        ),
        (
            {'param_scheduler': SCHEDULERS[:1]},
            '2 param_schedulers, but the config has 1',
        ),
        (
            {'param_scheduler': SCHEDULERS[::-1]},
            r'param_scheduler 0 was of another type than MultiStepLR.*end_factor',
        ),
    ],
)
def test_another_config(plain, tmp_path, changes, message):
    with pytest.raises(CheckpointError, match=f'^checkpoint the checkpoint.*{message}'):
        train(tmp_path, plain, epochs=2, **changes)
    assert not list(tmp_path.glob('*.pth'))


@pytest.mark.parametrize('hooks', [EMA, FIRST_EMA])
def test_another_model_comes_before_averages(averaged, tmp_path, hooks):
    with pytest.raises(CheckpointError, match="7 of 8 values don't fit"):
        train(tmp_path, averaged, epochs=2, custom_hooks=hooks, model=WIDER)


def test_averages_that_nothing_takes(averaged, tmp_path):
    with pytest.raises(CheckpointError, match='ema_state_dict.*no EMAHook'):
        train(tmp_path, averaged, epochs=2)


def changed(path, tmp_path, change):
    checkpoint = read_checkpoint(str(path))
    change(checkpoint)
    torch.save(checkpoint, tmp_path / 'changed.pth')
    return tmp_path / 'changed.pth'


def swap_states(checkpoint):
    states = checkpoint['optimizer']['state']
    states[0], states[5] = states[5], states[0]


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (swap_states, r'exp_avg of shape \[1\] for a parameter of shape \[8, 4\]'),
        (lambda held: held.update(optimizer={}), 'several optimizers'),
        (
            lambda held: held.update(optimizer={'param_groups': 3}),
            'has no states of optimizers and schedulers as mmengine writes them',
        ),
        (
            lambda held: held.update(optimizer={'param_groups': [{}]}),
            'has no states of optimizers',
        ),
        (
            lambda held: held.update(param_schedulers={}),
            'param_scheduler is for several optimizers',
        ),
        (
            lambda held: held.update(param_schedulers=[3, 4]),
            'has no states of optimizers and schedulers',
        ),
    ],
)
def test_states_that_do_not_fit(plain, tmp_path, change, message):
    path = changed(plain, tmp_path, change)
    with pytest.raises(CheckpointError, match=message):
        train(tmp_path, path, epochs=2)


def test_the_checkpoint_is_as_before(plain, tmp_path):
    shutil.copy(plain, tmp_path / 'before.pth')
    with pytest.raises(CheckpointError):
        train(plain.parent, plain, epochs=2, model=WIDER)
    assert plain.read_bytes() == (tmp_path / 'before.pth').read_bytes()
