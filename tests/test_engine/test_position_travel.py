"""What is foretold of the travel is what a training then does, step by step."""

import math
import re

import pytest
import torch
from mmengine.registry import LOOPS
from mmengine.runner import EpochBasedTrainLoop
from travel_toy import EPOCH, train

from dcls_mm.checks.errors import ConfigError
from dcls_mm.engine.hooks.resume_match_hook import ResumeMatchHook

HOOK = {'type': 'PositionTravelHook'}
WARM_UP = {'type': 'LinearLR', 'start_factor': 0.1, 'by_epoch': False, 'end': 5}
SCHEDULES = {
    'constant': None,
    'warm-up and poly': [
        WARM_UP,
        dict(type='PolyLR', power=0.9, eta_min=1e-4, begin=5, end=16, by_epoch=False),
    ],
    'poly to zero': [dict(type='PolyLR', power=1.0, by_epoch=False)],
    'cosine by epoch': [dict(type='CosineAnnealingLR', eta_min_ratio=0.05)],
    'cosine by epoch, converted': [
        WARM_UP,
        dict(
            type='CosineAnnealingLR',
            begin=1,
            end=4,
            T_max=3,
            eta_min=1e-5,
            convert_to_iter_based=True,
        ),
    ],
    'steps': [WARM_UP, dict(type='MultiStepLR', milestones=[2, 3], gamma=0.1)],
    'restarts': [
        dict(
            type='CosineRestartLR',
            periods=[6, 10],
            restart_weights=[1, 0.5],
            eta_min=0.0,
            by_epoch=False,
        )
    ],
    'one cycle': [
        dict(type='OneCycleLR', eta_max=0.02, total_steps=17, by_epoch=False)
    ],
    'momentum too': [
        WARM_UP,
        dict(type='LinearMomentum', start_factor=0.5, by_epoch=False, end=8),
    ],
}


def total(steps):
    return math.fsum(rate for _, rate in steps)


def figures(text):
    """Return the pixels, steps, percent and extent of a line."""
    found = re.search(
        r'at most (\S+) pixels in (\d+) steps, (\d+)% of their extent of (\d+)', text
    )
    return tuple(map(float, found.groups()))


@pytest.mark.parametrize('schedule', SCHEDULES.values(), ids=list(SCHEDULES))
def test_the_rates_add_up_to_the_travel(tmp_path, schedule):
    """16 iterations are 5 steps of 3 and one of 1."""
    wrapper = dict(accumulative_counts=3, paramwise_cfg=dict(position_travel=17.0))
    done = train(tmp_path, HOOK, param_scheduler=schedule, optim_wrapper=wrapper)
    steps = done.steps['position']
    assert len(steps) == 6
    assert total(steps) == pytest.approx(17.0, rel=1e-9)
    assert [figures(text) for _, text in done.said] == [(17, len(steps), 340, 5)]


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


def test_adamw_moves_positions_as_far(tmp_path):
    wrapper = dict(paramwise_cfg=dict(position_travel=3.0))
    starts = []

    def note(runner):
        starts.extend(layer.P.detach().clone() for layer in runner.model.net)

    done = train(
        tmp_path,
        HOOK,
        model='DriftingToy',
        param_scheduler=SCHEDULES['warm-up and poly'],
        optim_wrapper=wrapper,
        before=note,
    )
    for start, layer in zip(starts, done.runner.model.net):
        moved = start - layer.P.detach()
        torch.testing.assert_close(
            moved, torch.full_like(moved, 3.0), rtol=0.02, atol=0
        )


def test_every_depth_travels_as_far(tmp_path):
    decayed = dict(decay_type='layer_wise', decay_rate=0.5, num_layers=4)
    wrapper = dict(paramwise_cfg=dict(decayed, position_travel=17.0))
    schedule = SCHEDULES['warm-up and poly']
    done = train(
        tmp_path, HOOK, model='DeepToy', param_scheduler=schedule, optim_wrapper=wrapper
    )
    groups = ['layer_1_position', 'layer_3_position']
    for name in groups:
        assert total(done.steps[name]) == pytest.approx(17.0, rel=1e-9)
    assert [text.partition(' can')[0] for _, text in done.said] == [
        f'positions of {", ".join(groups)}'
    ]
    scales = {
        group['group_name']: group['lr_scale']
        for group in done.runner.optim_wrapper.optimizer.param_groups
    }
    assert scales[groups[0]] == pytest.approx(scales[groups[1]])


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


@pytest.mark.parametrize('sigma_lr_mult', [None, 0.5])
def test_sigma_learns_as_fast_as_positions_unless_it_has_a_multiplier(
    tmp_path, sigma_lr_mult
):
    wrapper = dict(
        paramwise_cfg=dict(position_travel=17.0, sigma_lr_mult=sigma_lr_mult)
    )
    model = dict(type='PositionsToy', interpolation='gauss')
    done = train(
        tmp_path,
        HOOK,
        model=model,
        param_scheduler=SCHEDULES['steps'],
        optim_wrapper=wrapper,
    )
    position, sigma = done.steps['position'], done.steps['sigma']
    if sigma_lr_mult is None:
        assert [rate for _, rate in sigma] == pytest.approx(
            [rate for _, rate in position]
        )
    else:
        weights = done.steps['decay']
        assert [rate for _, rate in sigma] == pytest.approx(
            [0.5 * rate for _, rate in weights]
        )
    assert total(position) == pytest.approx(17.0, rel=1e-9)


@pytest.mark.parametrize(
    'freezing, moves',
    [
        (dict(begin=1, end=3), {0, 3}),
        (dict(begin=4, end=8, by_epoch=False), {0, 2, 3}),
        (dict(begin=1, parameters=['sigma']), {0, 1, 2, 3}),
    ],
)
def test_frozen_steps_are_not_counted(tmp_path, freezing, moves):
    wrapper = dict(paramwise_cfg=dict(position_travel=17.0))
    done = train(
        tmp_path,
        dict(type='FreezePositionsHook', **freezing),
        model=dict(type='PositionsToy', interpolation='gauss'),
        param_scheduler=SCHEDULES['warm-up and poly'],
        optim_wrapper=wrapper,
    )
    counted = [step for step in done.steps['position'] if step[0] in moves]
    assert len(counted) == EPOCH * len(moves)
    assert total(counted) == pytest.approx(17.0, rel=1e-9)
    assert figures(done.said[0][1])[1] == len(counted)


def test_an_iteration_based_loop(tmp_path):
    loader = {
        'batch_size': 4,
        'num_workers': 0,
        'dataset': {'type': 'ToyDataset'},
        'sampler': {'type': 'InfiniteSampler'},
    }
    done = train(
        tmp_path,
        HOOK,
        train_cfg=dict(by_epoch=False, max_iters=11),
        train_dataloader=loader,
        param_scheduler=[WARM_UP, dict(type='PolyLR', begin=5, by_epoch=False)],
        optim_wrapper=dict(
            accumulative_counts=4, paramwise_cfg=dict(position_travel=17.0)
        ),
    )
    assert len(done.steps['position']) == 3
    assert total(done.steps['position']) == pytest.approx(17.0, rel=1e-9)


def test_scaling_to_a_batch_size_changes_no_travel(tmp_path):
    wrapper = dict(paramwise_cfg=dict(position_travel=17.0))
    scaling = dict(enable=True, base_batch_size=16)
    done = train(tmp_path, HOOK, optim_wrapper=wrapper, auto_scale_lr=scaling)
    assert {rate for _, rate in done.steps['decay']} == {0.0025}
    assert total(done.steps['position']) == pytest.approx(17.0, rel=1e-9)


def test_a_resumed_training_goes_on_with_its_rates(tmp_path):
    settings = dict(
        param_scheduler=SCHEDULES['warm-up and poly'],
        optim_wrapper=dict(paramwise_cfg=dict(position_travel=17.0)),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=2)),
    )
    first = train(tmp_path, HOOK, stop_after=2, **settings)

    def match(runner):
        runner.register_hook(ResumeMatchHook('epoch_2.pth'))

    rest = train(
        tmp_path,
        HOOK,
        resume=True,
        load_from=str(tmp_path / 'epoch_2.pth'),
        before=match,
        **settings,
    )
    steps = first.steps['position'] + rest.steps['position']
    assert len(steps) == 16
    assert total(steps) == pytest.approx(17.0, rel=1e-9)
    assert first.said == rest.said
    assert not [text for level, text in rest.lines if 'overrides the config' in text]


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


def test_a_travel_that_no_rate_gives(tmp_path):
    """The lowest of 16 steps are 0, 1/15, ..., 1 times 0.5 pixels."""
    schedule = [dict(type='PolyLR', power=1.0, eta_min=0.5, by_epoch=False)]
    wrapper = dict(paramwise_cfg=dict(position_travel=2.0))
    message = r'position_travel must be .* got 2: at any .* 4 pixels or more'
    with pytest.raises(ConfigError, match=message):
        train(tmp_path, HOOK, param_scheduler=schedule, optim_wrapper=wrapper)


def test_positions_that_never_move_have_no_travel(tmp_path):
    wrapper = dict(paramwise_cfg=dict(position_travel=2.0))
    with pytest.raises(ConfigError, match='at any learning rate it is 0 pixels;'):
        train(tmp_path, dict(type='FreezePositionsHook'), optim_wrapper=wrapper)


def test_without_the_hook_the_first_step_is_refused(tmp_path):
    wrapper = dict(paramwise_cfg=dict(position_travel=17.0))
    with pytest.raises(
        ConfigError, match="add dict.type='PositionTravelHook'. to cust"
    ):
        train(tmp_path, optim_wrapper=wrapper)
