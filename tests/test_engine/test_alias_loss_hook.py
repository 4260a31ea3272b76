"""The anti-aliasing loss in a training from a config."""

import math

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import HOOKS, MODELS
from mmengine.runner import Runner
from torch import nn
from toy import toy_config

from dcls_mm.checks.errors import ConfigError
from dcls_mm.engine.hooks import AliasLossHook
from dcls_mm.functional.continuous import alias_penalty
from dcls_mm.layers import FlexConv1d


@MODELS.register_module(force=True)
class FlexToy(BaseModel):
    def __init__(self, kernel_net='magnet'):
        super().__init__()
        self.net = nn.Sequential(
            *(FlexConv1d(1, 1, 5, padding=2, kernel_net=kernel_net) for _ in range(2))
        )

    def forward(self, x, y, mode='tensor'):
        output = self.net(torch.stack(list(x)).unsqueeze(1)).mean((1, 2))
        return {'loss_fit': (output - torch.stack(list(y)).squeeze(1)).square().mean()}


KINDS = [(True, 'per_filter'), (False, 'summed'), (True, 'per_factor')]


def penalty(layer, with_mask, method, deviations=2.0):
    mask = layer.mask_frequency(deviations) if with_mask else None
    filters = layer.highest_frequencies(deviations, with_mask=False)
    return alias_penalty(filters, layer.nyquist_frequency, mask, method)


@HOOKS.register_module(force=True)
class LossRecorder(Hook):
    """A record of what is logged, and of the penalties before that step."""

    rows: list

    def __init__(self):
        LossRecorder.rows = []

    def before_train_iter(self, runner, **kwargs):
        self.penalties = {
            key: [penalty(layer, *key).item() for layer in runner.model.net]
            for key in KINDS
        }

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        LossRecorder.rows.append((self.penalties, outputs))


def train(tmp_path, kernel_net='magnet', lr=0.01, **hook):
    cfg = toy_config(
        model=dict(type='FlexToy', kernel_net=kernel_net),
        train_cfg=dict(by_epoch=True, max_epochs=3),
        optim_wrapper=dict(optimizer=dict(type='Adam', lr=lr)),
        param_scheduler=[],
        custom_hooks=[dict(type='AliasLossHook', **hook), dict(type='LossRecorder')],
    )
    for key in ('val_cfg', 'val_dataloader', 'val_evaluator'):
        cfg[key] = None
    for key in ('test_cfg', 'test_dataloader', 'test_evaluator'):
        cfg[key] = None
    runner = Runner.from_cfg(Config(dict(cfg, work_dir=str(tmp_path))))
    runner.train()
    return runner


@pytest.mark.parametrize(('with_mask', 'method'), KINDS)
def test_joins_the_loss(tmp_path, with_mask, method):
    runner = train(tmp_path, weight=0.5, with_mask=with_mask, method=method)
    assert len(LossRecorder.rows) > 1
    for penalties, logged in LossRecorder.rows:
        expected = 0.5 * sum(penalties[with_mask, method])
        assert expected > 0
        assert logged['loss_alias'].item() == pytest.approx(expected, rel=1e-5)
        total = logged['loss_fit'] + logged['loss_alias']
        torch.testing.assert_close(logged['loss'], total)
    assert not runner.model._forward_hooks


def test_lowers_the_frequencies(tmp_path):
    train(tmp_path, weight=100.0)
    first, last = (LossRecorder.rows[i][0][True, 'per_filter'] for i in (0, -1))
    assert all(b < 0.99 * a for a, b in zip(first, last))


def test_the_defaults_are_the_published_settings():
    """Worked by hand, for a share of 1 of 2 periods: 0.1 * (0.2^2 + 0.7^2)."""
    net = dict(type='magnet', hidden_channels=1, num_layers=1)
    layer = FlexConv1d(1, 1, 9, padding=4, kernel_net=net, mask_width=1 / math.pi)
    with torch.no_grad():
        for gabor, frequency, width in zip(layer.net.filters, (0.5, 1.2), (0.1, 0)):
            gabor.weight.fill_(2 * math.pi * frequency)
            gabor.gamma.fill_(2 * math.pi * width)
    hook = AliasLossHook()
    hook.layers = [layer]
    assert hook.loss().item() == pytest.approx(0.1 * (0.04 + 0.49), rel=1e-5)
    hook.layers = [layer, layer]
    assert hook.loss().item() == pytest.approx(0.2 * (0.04 + 0.49), rel=1e-5)


def test_a_model_without_such_layers(tmp_path):
    with pytest.raises(
        ConfigError, match="needs a model with FlexConv.*'magnet'.*Flex"
    ):
        train(tmp_path, kernel_net='mlp')


@pytest.mark.parametrize('argument', ['weight', 'deviations'])
def test_bad_arguments(argument):
    with pytest.raises(ConfigError, match=f'AliasLossHook.{argument} must be'):
        AliasLossHook(**{argument: -1})
