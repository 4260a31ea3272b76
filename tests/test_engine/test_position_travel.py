"""The learning rates of a position_travel add up to it, in trainings of all kinds."""

import pytest
import torch
from mmengine.optim.scheduler import ExponentialLR
from mmengine.registry import PARAM_SCHEDULERS
from travel_toy import EPOCH, HOOK, SCHEDULES, WARM_UP, figures, total, train

from dcls_mm.checks.errors import ConfigError
from dcls_mm.engine.hooks.resume_match_hook import ResumeMatchHook
from dcls_mm.engine.optimizers.position_travel import moves_by_rate


@pytest.mark.parametrize('schedule', SCHEDULES.values(), ids=list(SCHEDULES))
def test_the_rates_add_up_to_the_travel(tmp_path, schedule):
    """16 iterations are 5 steps of 3 and one of 1."""
    wrapper = dict(accumulative_counts=3, paramwise_cfg=dict(position_travel=17.0))
    done = train(tmp_path, HOOK, param_scheduler=schedule, optim_wrapper=wrapper)
    steps = done.steps['position']
    assert len(steps) == 6
    assert total(steps) == pytest.approx(17.0, rel=1e-9)
    assert [figures(text) for _, text in done.said] == [(17, len(steps), 340, 5)]


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


@PARAM_SCHEDULERS.register_module(force=True)
class CappedLR(ExponentialLR):
    """A scheduler whose rates are not linear in the group's."""

    def _get_value(self):
        return [min(0.015, value) for value in super()._get_value()]


def test_a_scheduler_that_is_not_linear(tmp_path):
    capped = [dict(type='CappedLR', gamma=0.9)]
    done = train(tmp_path / '1', HOOK, param_scheduler=capped)
    assert done.steps and not done.said
    message = 'param_scheduler: CappedLR must be linear'
    assert [text for _, text in done.lines if text.startswith(message)]
    wrapper = dict(paramwise_cfg=dict(position_travel=2.0))
    with pytest.raises(ConfigError, match=message):
        train(tmp_path / '2', HOOK, param_scheduler=capped, optim_wrapper=wrapper)


def test_the_optimizers_whose_steps_are_as_long_as_the_rate():
    values = [torch.zeros(1, requires_grad=True)]

    def is_one(kind, base=torch.optim.SGD, **group):
        optimizer = type(kind, (base,), {})(values, lr=0.1)
        return moves_by_rate(optimizer, group)

    for name in ('Adam', 'AdamW', 'Adamax', 'NAdam', 'RAdam'):
        assert moves_by_rate(getattr(torch.optim, name)(values), {})
    for name in ('SGD', 'Adagrad', 'RMSprop', 'Adafactor'):
        assert not moves_by_rate(getattr(torch.optim, name)(values), {})
    for name in ('Lion', 'FusedAdam', 'PagedAdamW8bit', 'Lion8bit'):
        assert is_one(name)
    for name in ('DAdaptAdam', 'LAMB', 'Lionel'):
        assert not is_one(name)
    assert is_one('People', base=torch.optim.AdamW)
    assert is_one('Lamb', weight_decay=0.0, always_adapt=False)
    assert not is_one('Lamb', weight_decay=0.1)
    assert not is_one('Lamb', weight_decay=0.0, always_adapt=True)
