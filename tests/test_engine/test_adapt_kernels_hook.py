"""Trainings in which extent and number of elements are learned."""

import pytest
import torch
import torch.nn.functional as F
from adapting_toy import SIZE, TARGETS, AdaptingToy, adapting, train

from dcls_mm.apis.trained import read_trained
from dcls_mm.checkpoint.matching import load_matching
from dcls_mm.engine.hooks import AdaptKernelsHook
from dcls_mm.functional import native_code
from dcls_mm.layers.resizing import layers_by_positions, tap_bounds

# Of float32: relative to a kernel, which may be the difference of larger weights.
ROUNDING = 3e-6

EMA = dict(type='EMAHook', momentum=0.1)


def in_size(layer):
    """Return a layer's kernel in an extent of SIZE."""
    beside = (SIZE - layer.extent[0]) // 2
    return F.pad(layer.kernel().detach(), (beside, beside))


def averaged(runner):
    return next(h for h in runner.hooks if hasattr(h, 'ema_model')).ema_model.module


@pytest.fixture
def changes(monkeypatch):
    """Return a list that gets, per visit and model, how much any kernel changed."""
    found = []
    visit = AdaptKernelsHook._visit

    def watched(self, runner):
        models = [runner.model]
        models += [h.ema_model.module for h in runner.hooks if hasattr(h, 'ema_model')]
        layers = [
            layer
            for model in models
            for some in layers_by_positions(model).values()
            for layer in some
        ]
        before = [in_size(layer) for layer in layers]
        visit(self, runner)
        for layer, kernel in zip(layers, before):
            found.append((in_size(layer) - kernel).norm() / kernel.norm())

    monkeypatch.setattr(AdaptKernelsHook, '_visit', watched)
    return found


def test_a_kernel_larger_than_the_extent_is_learned(tmp_path, changes):
    runner, rows = train(tmp_path, adapting(), EMA, iterations=240)
    model = runner.model
    assert rows[0]['extents'] == [5, 5] and rows[0]['counts'] == [3, 3]
    assert (model.far.kernel_count, model.near.kernel_count) == (5, 1)
    assert 21 <= model.far.extent[0] <= 25 and model.near.extent[0] <= 5
    assert max(row['weights'] for row in rows) <= 6
    learned = zip(model.far.P.flatten().tolist(), model.far.weight.flatten().tolist())
    for (place, weight), wanted in zip(sorted(learned), TARGETS['far'].items()):
        assert (place, weight) == pytest.approx(wanted, abs=0.3)
    assert model.near.P.item() == pytest.approx(0.0, abs=0.1)
    # 18 visits in 3/4 of the training, to two layers and their averages.
    assert len(changes) == 18 * 4 and max(changes) < ROUNDING

    story = next(tmp_path.glob('*/*.log')).read_text()
    assert 'AdaptKernelsHook [10] far: extent 5' in story
    assert 'far: extent 5 -> 7, elements 3' in story

    # The config's own numbers load the result, averages and all.
    file = str(tmp_path / 'iter_240.pth')
    for key, source in (('state_dict', averaged(runner)), ('ema_state_dict', model)):
        checkpoint = read_trained(file)
        fresh = AdaptingToy()
        load_matching(fresh, {'state_dict': checkpoint[key]}, file)
        assert fresh.far.kernel_count == 5
        assert torch.equal(in_size(fresh.far), in_size(source.far))


@pytest.mark.parametrize(
    'options, wrapper',
    [
        (dict(shared=True), dict()),
        (dict(interpolation='max', initial_sigma=0.3), dict(accumulative_counts=2)),
    ],
    ids=['shared', 'accumulated'],
)
def test_a_resumed_training_goes_on_exactly(tmp_path, changes, options, wrapper):
    arguments = dict(options, wrapper=wrapper, count=4)
    hook = adapting(interval=8, end=60, meet=0.8)
    undisturbed, rows = train(tmp_path / 'whole', hook, EMA, **arguments)
    stopped = str(tmp_path / 'whole' / 'iter_30.pth')
    resumed, later = train(
        tmp_path / 'resumed', hook, EMA, resume=True, load_from=stopped, **arguments
    )
    assert len(later) == 30 and max(changes) < ROUNDING
    sizes = [(row['extents'], row['counts']) for row in rows]
    assert sizes[30:] == [(row['extents'], row['counts']) for row in later]
    assert len({str(size) for size in sizes[30:]}) > 1  # something changed meanwhile
    for a, b in (
        (undisturbed.model, resumed.model),
        map(averaged, (undisturbed, resumed)),
    ):
        expected, actual = a.state_dict(), b.state_dict()
        assert all(torch.equal(actual[key], value) for key, value in expected.items())
    for a, b in zip(
        undisturbed.optim_wrapper.optimizer.state.values(),
        resumed.optim_wrapper.optimizer.state.values(),
    ):
        assert all(torch.equal(a[key], b[key]) for key in a)


def test_where_nothing_has_to_change_nothing_does(tmp_path):
    options = dict(initial_positions='uniform', formulation='construct', lr=0.01)
    hook = adapting(
        turnover=0, move_counts=False, largest_extent=5, pressed=1, meet=0, interval=5
    )
    _, rows = train(tmp_path / 'with', hook, iterations=20, **options)
    clamp = dict(type='ClampPositionsHook')
    _, expected = train(tmp_path / 'without', clamp, iterations=20, **options)
    assert {str(row['extents']) for row in rows} == {'[5, 5]'}
    for row, other in zip(rows, expected):
        for name, value in other['parameters'].items():
            assert torch.equal(row['parameters'][name], value)


@pytest.mark.skipif(native_code.missing() is not None, reason='no compiled part')
def test_without_a_border_the_extent_is_as_if_it_were_endless(tmp_path):
    options = dict(formulation='direct', iterations=40, wrapper=None)
    hook = adapting(turnover=0, move_counts=False, largest_extent=None, interval=20)
    _, rows = train(tmp_path / 'free', hook, lr=0.3, **options)
    _, expected = train(tmp_path / 'large', lr=0.3, extent=SIZE, **options)
    assert rows[-1]['extents'][0] > 9
    for row, other in zip(rows, expected):
        for name, value in other['parameters'].items():
            torch.testing.assert_close(
                row['parameters'][name], value, rtol=0, atol=1e-4
            )


@pytest.mark.parametrize('interpolation', ['max', 'gauss'])
def test_wide_elements_are_never_cut_off(tmp_path, interpolation, changes):
    runner, rows = train(
        tmp_path,
        adapting(largest_extent=61),
        interpolation=interpolation,
        initial_sigma=0.5,
        iterations=40,
        lr=0.03,
    )
    for layer in (runner.model.far, runner.model.near):
        first, last = (side.item() for side in tap_bounds(layer))
        assert -(layer.extent[0] // 2) <= first and last <= layer.extent[0] // 2
    assert max(changes) < ROUNDING and rows[-1]['extents'][0] > 5


def test_a_lower_budget_is_reached_and_a_higher_one_used(tmp_path):
    _, rows = train(tmp_path / 'lower', adapting(budget=4, interval=5), iterations=40)
    totals = [row['weights'] for row in rows]
    assert totals[0] == 6 and totals[-1] == 4 and totals == sorted(totals)[::-1]
    _, rows = train(tmp_path / 'higher', adapting(budget=9, interval=5), iterations=40)
    totals = [row['weights'] for row in rows]
    assert totals[0] == 6 and totals[-1] == 9 and max(totals) == 9


def test_layers_that_share_positions_have_the_same_elements(tmp_path):
    runner, rows = train(tmp_path, adapting(budget=12, interval=5), shared=True)
    model = runner.model
    assert model.also.P is model.far.P
    assert model.also.kernel_count == model.far.kernel_count > 3
    assert model.also.extent == model.far.extent
    assert max(row['weights'] for row in rows) <= 12


def test_visits_cost_nothing_in_other_iterations(tmp_path, monkeypatch):
    """The dense kernel's gradient is collected before visits alone."""
    watched = []
    before = AdaptKernelsHook.before_train_iter

    def watch(self, runner, *arguments, **others):
        before(self, runner, *arguments, **others)
        watched.append('_element_kernel' in vars(runner.model.far))

    monkeypatch.setattr(AdaptKernelsHook, 'before_train_iter', watch)
    runner, _ = train(
        tmp_path,
        adapting(begin=5, end=20),
        wrapper=dict(accumulative_counts=2),
        iterations=30,
    )
    assert [i for i, yes in enumerate(watched) if yes] == [8, 9, 18, 19]
    assert '_element_kernel' not in vars(runner.model.far)
