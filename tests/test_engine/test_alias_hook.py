"""The anti-aliasing loss in a training from a config."""

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import HOOKS, MODELS
from mmengine.runner import Runner
from torch import nn
from toy import toy_config

from dcls_mm.engine import AliasLossHook
from dcls_mm.engine.config_checks import ConfigError
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


@HOOKS.register_module(force=True)
class LossRecorder(Hook):
    """What is logged, and the penalties before the step that it came from."""

    rows: list

    def __init__(self):
        LossRecorder.rows = []

    def before_train_iter(self, runner, **kwargs):
        self.penalties = {
            key: [
                alias_penalty(
                    layer.highest_frequencies(2.0, with_mask=key[0]),
                    layer.nyquist_frequency,
                    key[1],
                ).item()
                for layer in runner.model.net
            ]
            for key in ((True, False), (False, True))
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


@pytest.mark.parametrize(('with_mask', 'per_filter'), [(True, False), (False, True)])
def test_joins_the_loss(tmp_path, with_mask, per_filter):
    runner = train(
        tmp_path,
        weight=0.5,
        with_mask=with_mask,
        per_filter=per_filter,
        deviations=2.0,
    )
    for penalties, logged in LossRecorder.rows:
        expected = 0.5 * sum(penalties[with_mask, per_filter])
        assert expected > 0
        assert logged['loss_alias'].item() == pytest.approx(expected, rel=1e-5)
        total = logged['loss_fit'] + logged['loss_alias']
        torch.testing.assert_close(logged['loss'], total)
    assert not runner.model._forward_hooks


def test_lowers_the_frequencies(tmp_path):
    train(tmp_path, weight=100.0)
    first, last = (LossRecorder.rows[i][0][True, False] for i in (0, -1))
    assert all(b < 0.99 * a for a, b in zip(first, last))


def test_a_model_without_such_layers(tmp_path):
    with pytest.raises(
        ConfigError, match="needs a model with FlexConv.*'magnet'.*Flex"
    ):
        train(tmp_path, kernel_net='mlp')


@pytest.mark.parametrize('argument', ['weight', 'deviations'])
def test_bad_arguments(argument):
    with pytest.raises(ConfigError, match=f'AliasLossHook.{argument} must be'):
        AliasLossHook(**{argument: -1})
