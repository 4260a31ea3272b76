"""Short trainings that record the learning rate of positions in every step."""

import contextlib
import logging
import math
import re
from types import SimpleNamespace

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, MODELS
from mmengine.runner import Runner
from positions_toy import PositionsToy
from toy import toy_config

EPOCH = 4  # iterations, of toy_config's data
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
    'plateau, not validated': [
        WARM_UP,
        dict(type='ReduceOnPlateauLR', monitor='loss', rule='less', patience=0),
    ],
    'momentum too': [
        WARM_UP,
        dict(type='LinearMomentum', start_factor=0.5, by_epoch=False, end=8),
    ],
}


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


def total(steps):
    """Return the sum of the rates of all steps."""
    return math.fsum(rate for _, rate in steps)


def figures(text):
    """Return the pixels, steps, percent and extent of a line."""
    found = re.search(
        r'at most (\S+) pixels in (\d+) steps, (\d+)% of their extent of (\d+)', text
    )
    return tuple(map(float, found.groups()))
