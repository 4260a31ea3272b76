"""Short trainings that record the learning rate of positions in every step."""

import contextlib
import logging
from types import SimpleNamespace

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, MODELS
from mmengine.runner import Runner
from positions_toy import PositionsToy
from toy import toy_config

EPOCH = 4  # iterations, of toy_config's data


@MODELS.register_module(force=True)
class DeepToy(PositionsToy):
    """PositionsToy, with a depth for each of its layers."""

    def layer_id(self, name, num_layers, decay_type):
        return int(name.split('.')[1]) + 1


@MODELS.register_module(force=True)
class DriftingToy(PositionsToy):
    """PositionsToy, whose positions all have the same gradient in every step."""

    def forward(self, x, y, mode='tensor'):
        return {'loss_drift': sum(layer.P.sum() for layer in self.net)}


@HOOKS.register_module(force=True)
class RateRecorder(Hook):
    """A record of each group's rate and epoch in every step of the optimizer."""

    priority = 'LOWEST'

    def __init__(self, stop_after=None):
        self.stop_after = stop_after

    def before_train(self, runner):
        self.rows = []

        def record(optimizer, args, kwargs):
            for group in optimizer.param_groups:
                name = group.get('group_name', '')
                self.rows.append((name, runner.epoch, group['lr']))

        runner.optim_wrapper.optimizer.register_step_pre_hook(record)

    def after_train_epoch(self, runner):
        if self.stop_after == runner.epoch + 1:
            raise InterruptedError


class Lines(logging.Handler):
    """What a logger was given, as (level, text)."""

    def __init__(self):
        super().__init__()
        self.records = []

    def emit(self, record):
        self.records.append((record.levelname, record.getMessage()))


def build(work_dir, *hooks, model='PositionsToy', epochs=4, stop_after=None, **changes):
    """Return the Runner of a training, and the lines that it logs."""
    wrapper = {
        'optimizer': {'type': 'AdamW', 'lr': 0.01},
        'constructor': 'DCLSOptimizerConstructor',
        **changes.pop('optim_wrapper', {}),
    }
    config = toy_config(
        model={'type': model} if isinstance(model, str) else model,
        work_dir=str(work_dir),
        optim_wrapper=wrapper,
        custom_hooks=[*hooks, {'type': 'RateRecorder', 'stop_after': stop_after}],
        **{
            'train_cfg': {'by_epoch': True, 'max_epochs': epochs},
            'param_scheduler': None,
            'val_dataloader': None,
            'val_cfg': None,
            'val_evaluator': None,
            'default_hooks': {'checkpoint': None},
            **changes,
        },
        test_dataloader=None,
        test_cfg=None,
        test_evaluator=None,
    )
    runner = Runner.from_cfg(Config(config))
    lines = Lines()
    runner.logger.addHandler(lines)
    return runner, lines


def train(work_dir, *hooks, before=lambda runner: None, **settings):
    """Train; return the runner, the steps of each group and the lines on travel.

    Each step is (epoch, rate). ``before`` gets the runner first. The training may end
    with InterruptedError.
    """
    runner, lines = build(work_dir, *hooks, **settings)
    before(runner)
    with contextlib.suppress(InterruptedError):
        runner.train()
    steps = {}
    recorder = next(hook for hook in runner.hooks if isinstance(hook, RateRecorder))
    for name, epoch, rate in recorder.rows:
        steps.setdefault(name, []).append((epoch, rate))
    said = [line for line in lines.records if line[1].startswith('positions of')]
    return SimpleNamespace(runner=runner, steps=steps, said=said, lines=lines.records)
