"""What the log says about the travel of positions, and when it warns."""

import logging
import re
from types import SimpleNamespace

import pytest
import torch
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.optim.scheduler import LinearLR
from mmengine.registry import LOOPS
from mmengine.runner import BaseLoop, EpochBasedTrainLoop
from positions_toy import PositionsToy
from travel_toy import HOOK, SCHEDULES, Lines, build, figures, total, train

from dcls_mm.checks.errors import ConfigError
from dcls_mm.engine.hooks import PositionTravelHook


@pytest.mark.parametrize('schedule', SCHEDULES.values(), ids=list(SCHEDULES))
def test_the_line_says_the_sum_of_the_rates(tmp_path, schedule):
    wrapper = dict(paramwise_cfg=dict(position_lr_mult=5.0))
    done = train(tmp_path, HOOK, param_scheduler=schedule, optim_wrapper=wrapper)
    ((_, text),) = done.said
    assert text.startswith('positions of position can travel')
    pixels, steps, percent, extent = figures(text)
    assert steps == len(done.steps['position']) == 16
    assert pixels == pytest.approx(total(done.steps['position']), rel=5e-3)
    assert percent == pytest.approx(100 * pixels / extent, abs=0.6)


@pytest.mark.parametrize('name', ['warm-up and poly'])
def test_the_multiplier_that_is_advised_gives_one_extent(tmp_path, name):
    schedule = SCHEDULES[name]
    wrapper = dict(paramwise_cfg=dict(position_lr_mult=0.5))
    done = train(tmp_path / '1', HOOK, param_scheduler=schedule, optim_wrapper=wrapper)
    ((level, text),) = done.said
    assert level == 'WARNING' and 'or position_travel=5 ' in text
    multiplier = float(re.search(r'position_lr_mult=(\S+)', text)[1])
    wrapper = dict(paramwise_cfg=dict(position_lr_mult=multiplier))
    done = train(tmp_path / '2', HOOK, param_scheduler=schedule, optim_wrapper=wrapper)
    assert total(done.steps['position']) == pytest.approx(5.0, rel=5e-3)
    assert done.said[0][0] == 'INFO'


@pytest.mark.parametrize('travel, level', [(1.24, 'WARNING'), (1.26, 'INFO')])
def test_less_than_a_quarter_of_the_extent_is_warned_of(tmp_path, travel, level):
    wrapper = dict(optimizer=dict(type='AdamW', lr=travel / 16))
    done = train(tmp_path, HOOK, optim_wrapper=wrapper)
    assert [line[0] for line in done.said] == [level]


def test_a_small_travel_that_was_asked_for_is_no_warning(tmp_path):
    wrapper = dict(paramwise_cfg=dict(position_travel=0.5))
    done = train(tmp_path, HOOK, optim_wrapper=wrapper)
    assert [level for level, _ in done.said] == ['INFO']


def test_one_cycle_takes_no_multiplier(tmp_path):
    """Its eta_max is absolute."""
    schedule = SCHEDULES['one cycle']
    ((level, text),) = train(tmp_path, HOOK, param_scheduler=schedule).said
    assert level == 'WARNING' and 'one extent needs position_travel=5 (' in text


def test_the_advice_counts_the_depth(tmp_path):
    decayed = dict(decay_type='layer_wise', decay_rate=0.5, num_layers=4)
    wrapper = dict(paramwise_cfg=dict(decayed, position_lr_mult=2.0))
    done = train(tmp_path, HOOK, model='DeepToy', optim_wrapper=wrapper)
    advised = {
        re.search(r'of (\S+) can', text)[1]: re.search(r'_mult=(\S+)', text)[1]
        for _, text in done.said
    }
    # 2 * 5 pixels / (2 * 0.01 a step * 16 steps * decay)
    assert advised == {'layer_1_position': '500', 'layer_3_position': '125'}


def test_groups_of_other_constructors(tmp_path):
    """mmengine's makes one group for each parameter, without names."""
    wrapper = dict(
        constructor='DefaultOptimWrapperConstructor',
        paramwise_cfg=dict(
            bypass_duplicate=True, custom_keys={'.P': dict(lr_mult=2.0)}
        ),
    )
    ((level, text),) = train(tmp_path, HOOK, optim_wrapper=wrapper).said
    assert level == 'WARNING'
    assert text.startswith('positions of net.0.P, net.2.P can travel at most 0.32 ')
    assert 'a learning rate 15.6 times as high or position_travel=5 ' in text


def test_a_custom_key_of_positions_is_a_group(tmp_path):
    wrapper = dict(paramwise_cfg=dict(custom_keys={'2.P': dict(lr_mult=50.0)}))
    said = train(tmp_path, HOOK, optim_wrapper=wrapper).said
    levels = {text.split()[2]: level for level, text in said}
    assert levels == {'position': 'WARNING', 'custom_2.P': 'INFO'}


def test_each_training_has_the_lines_once(tmp_path):
    hooks = [{'type': 'ClampPositionsHook'}, HOOK, {'type': 'RepulsionLossHook'}, HOOK]
    assert len(train(tmp_path, *hooks).said) == 1


def test_what_does_not_learn_has_no_line(tmp_path):
    def freeze(runner):
        for layer in runner.model.net:
            layer.freeze_positions()

    assert not train(tmp_path / '1', HOOK, before=freeze).said
    wrapper = dict(paramwise_cfg=dict(position_lr_mult=0.0))
    assert not train(tmp_path / '2', HOOK, optim_wrapper=wrapper).said
    assert not train(tmp_path / '3', HOOK, model='ToyModel').said


@pytest.mark.parametrize('kind', ['SGD', 'Adagrad'])
def test_other_optimizers_foretell_nothing(tmp_path, kind):
    wrapper = dict(optimizer=dict(type=kind, lr=0.01))
    ((level, text),) = train(tmp_path, HOOK, optim_wrapper=wrapper).said
    assert level == 'INFO' and f'the steps of {kind} are not as long' in text


@LOOPS.register_module(force=True)
class Endless(EpochBasedTrainLoop):
    """A loop that does not say how many epochs it has."""

    max_epochs = None


def test_a_loop_without_a_length(tmp_path):
    endless = dict(type='Endless', max_epochs=1)
    done = train(tmp_path / '1', HOOK, train_cfg=endless)
    assert done.steps and not done.said
    assert [text for _, text in done.lines if 'Endless must have whole numbers' in text]
    wrapper = dict(paramwise_cfg=dict(position_travel=17.0))
    message = 'train_cfg: Endless must have .* got 4 and None'
    with pytest.raises(ConfigError, match=message):
        train(tmp_path / '2', HOOK, train_cfg=endless, optim_wrapper=wrapper)


class TenIterations(BaseLoop):
    max_iters, max_epochs, iter, epoch = 10, 1, 0, 0

    def __init__(self):
        pass

    def run(self):
        raise NotImplementedError


def test_each_of_several_optimizers_has_its_own_schedule():
    model = PositionsToy()
    wrappers = {
        name: OptimWrapper(torch.optim.AdamW([model.net[i].P], lr=0.2))
        for name, i in (('one', 0), ('other', 2))
    }
    warm_up = LinearLR(wrappers['other'], start_factor=0.5, by_epoch=False, end=11)
    hook, lines = PositionTravelHook(), Lines()
    logger = logging.getLogger('several optimizers')
    logger.setLevel('INFO')
    logger.addHandler(lines)
    runner = SimpleNamespace(
        model=model,
        hooks=[hook],
        optim_wrapper=OptimWrapperDict(**wrappers),
        param_schedulers={'one': [], 'other': [warm_up]},
        logger=logger,
        _train_loop=TenIterations(),
    )
    hook.before_run(runner)
    said = {text.split()[2]: figures(text) for _, text in lines.records}
    # 0.2 * (0.5 + 0.55 + ... + 0.95) = 1.45
    assert said == {'net.0.P': (2.0, 10, 40, 5), 'net.2.P': (1.45, 10, 29, 5)}


def test_a_validation_foretells_nothing(tmp_path):
    runner, lines = build(tmp_path, HOOK)
    runner.call_hook('before_run')
    assert not [text for _, text in lines.records if 'can travel' in text]
