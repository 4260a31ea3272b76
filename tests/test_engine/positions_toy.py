"""A model of three layers with positions, and short trainings of it."""

from types import SimpleNamespace

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import HOOKS, MODELS
from mmengine.runner import Runner
from torch import nn
from toy import toy_config

from dcls_mm.layers import DCLSConv1d

LIMIT = 2.0  # of positions in an extent of 5


@MODELS.register_module(force=True)
class PositionsToy(BaseModel):
    """Three layers, the first two of which share their positions."""

    def __init__(self, interpolation='bilinear', count=3):
        super().__init__()
        self.net = nn.Sequential(
            *(
                DCLSConv1d(
                    2,
                    2,
                    padding=2,
                    kernel_count=count,
                    dilated_kernel_size=5,
                    interpolation=interpolation,
                )
                for _ in range(3)
            )
        )
        self.net[1].share_positions(self.net[0])

    def forward(self, x, y, mode='tensor'):
        x = torch.stack(list(x)).unsqueeze(1).expand(-1, 2, -1)
        error = self.net(x).mean((1, 2)) - torch.stack(list(y)).squeeze(1)
        return {'loss_fit': error.square().mean()}


@HOOKS.register_module(force=True)
class Recorder(Hook):
    """A record of each iteration's initial positions and results."""

    priority = 'LOWEST'

    def before_train(self, runner):
        self.rows = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        layers = runner.model.net
        self.before = [layers[i].P.detach().clone() for i in (0, 2)]

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        layer = runner.model.net[0]
        row = SimpleNamespace(
            epoch=runner.epoch,
            iter=runner.iter,
            before=self.before,
            positions=layer.P.detach().clone(),
            sigma=None if layer.SIG is None else layer.SIG.detach().clone(),
            logged=outputs,
        )
        self.rows.append(row)


def train(tmp_path, *custom_hooks, lr=0.1, max_epochs=3, resume=False, **model):
    """Train with epochs of 4 iterations; return the runner and the Recorder's rows."""
    config = toy_config(
        model={'type': 'PositionsToy', **model},
        work_dir=str(tmp_path),
        resume=resume,
        train_cfg={'by_epoch': True, 'max_epochs': max_epochs},
        optim_wrapper={
            'optimizer': {'type': 'AdamW', 'lr': lr},
            'constructor': 'DCLSOptimizerConstructor',
        },
        param_scheduler=None,
        custom_hooks=[*custom_hooks, {'type': 'Recorder'}],
        **{
            f'{stage}_{part}': None
            for stage in ('val', 'test')
            for part in ('dataloader', 'cfg', 'evaluator')
        },
    )
    runner = Runner.from_cfg(Config(config))
    runner.train()
    recorder = next(hook for hook in runner.hooks if isinstance(hook, Recorder))
    return runner, recorder.rows
