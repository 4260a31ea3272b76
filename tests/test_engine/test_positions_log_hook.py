"""What is logged of the positions during a training."""

import json

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from positions_toy import train
from torch import nn

from dcls_mm.analysis import collect_elements
from dcls_mm.analysis.progress import stage_figures
from dcls_mm.checks.errors import ConfigError
from dcls_mm.engine.hooks import PositionsLogHook
from dcls_mm.engine.hooks.positions_log_hook import log_positions

LOG = {'type': 'PositionsLogHook'}


@HOOKS.register_module(force=True)
class KeepPositions(Hook):
    """A record of the elements at the start and after each iteration."""

    priority = 'LOWEST'
    seen: list = []

    def before_train(self, runner):
        if not runner.iter:
            KeepPositions.seen = [collect_elements(runner.model)]

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        KeepPositions.seen.append(collect_elements(runner.model))


def logged(folder):
    """Return step -> figures; a resumed training's log comes later."""
    found = {}
    for path in sorted(folder.glob('*/vis_data/scalars.json')):
        for record in map(json.loads, path.read_text().splitlines()):
            if any(key.startswith('positions/') for key in record):
                found[record.pop('step')] = record
    return found


def expected(step):
    start = {name: layer.positions for name, layer in KeepPositions.seen[0].items()}
    return pytest.approx(stage_figures(KeepPositions.seen[step], start))


def test_figures_at_intervals_and_at_the_end(tmp_path):
    train(tmp_path, {**LOG, 'interval': 5}, {'type': 'KeepPositions'})
    found = logged(tmp_path)
    assert list(found) == [5, 10, 12]
    assert all(found[step] == expected(step) for step in found)
    names = {f'positions/net.{i}/{what}' for i in (0, 2) for what in FIGURES}
    assert {*found[12]} == names
    assert found[12]['positions/net.0/travel'] > 0.1


FIGURES = 'extent', 'count', 'spread', 'travel'


def test_a_resumed_training_goes_on_from_its_start(tmp_path):
    hooks = {**LOG, 'interval': 4}, {'type': 'KeepPositions'}
    train(tmp_path, *hooks, max_epochs=1)
    torch.manual_seed(1)  # other positions, if the checkpoint's were not read
    train(tmp_path, *hooks, max_epochs=2, resume=True)
    found = logged(tmp_path)
    assert list(found) == [4, 8]
    assert found[8] == expected(8)


def test_the_interval_is_that_of_the_logger(tmp_path):
    train(tmp_path, LOG)
    assert list(logged(tmp_path)) == [10, 12]


def test_the_tools_add_it_once_and_where_it_fits(tmp_path):
    runner, _ = train(tmp_path, max_epochs=1)
    for _ in range(2):
        log_positions(runner)
        added = [hook for hook in runner.hooks if isinstance(hook, PositionsLogHook)]
        assert len(added) == 1 and added[0].interval is None
    runner._hooks = [hook for hook in runner.hooks if hook not in added]
    runner.model = nn.Linear(2, 2)
    log_positions(runner)
    assert not any(isinstance(hook, PositionsLogHook) for hook in runner.hooks)


def test_training_outlives_positions_that_are_not_finite(tmp_path):
    runner, _ = train(tmp_path, {**LOG, 'interval': 4}, max_epochs=1)
    runner.model.net[0].P.data.fill_(torch.nan)
    warnings = []
    runner.logger.warning = warnings.append
    (hook,) = (hook for hook in runner.hooks if isinstance(hook, PositionsLogHook))
    runner.train_loop._iter = 3
    hook.after_train_iter(runner, 3)
    assert 'logs nothing: net.0 has positions that are NaN' in warnings[0]


def test_wrong_use(tmp_path):
    with pytest.raises(ValueError, match='PositionsLogHook.interval must be at least'):
        PositionsLogHook(interval=0)
    runner, _ = train(tmp_path, max_epochs=1)
    runner.model = nn.Linear(2, 2)
    with pytest.raises(ConfigError, match='PositionsLogHook needs a model with DCLS'):
        PositionsLogHook().before_train(runner)
