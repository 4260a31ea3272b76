"""What a layer notes of its parameters, through mmengine's own saving and loading."""

from collections import OrderedDict

import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from mmengine.runner import Runner
from torch import nn
from toy import toy_config

import dcls_mm  # noqa: F401
from dcls_mm.engine.checkpoint_hooks import CheckpointMatchHook, load_matching
from dcls_mm.engine.models import read_checkpoint
from dcls_mm.layers import DCLSConv2d, FlexConv2d


@MODELS.register_module(force=True)
class NotedToy(BaseModel):
    """A layer whose published order is another, and a continuous kernel."""

    def __init__(self, extent=5):
        super().__init__()
        options = dict(dilated_kernel_size=extent, padding='same')
        self.net = nn.Sequential(
            DCLSConv2d(1, 2, kernel_count=3, interpolation='gauss', **options),
            FlexConv2d(2, 1, 3, kernel_net='siren', **options),
        )

    def forward(self, x, y, mode='tensor'):
        x = torch.stack(list(x)).unsqueeze(1).unsqueeze(1)
        error = self.net(x).mean((1, 2, 3)) - torch.stack(list(y)).squeeze(1)
        return {'loss': error.square().mean()}


def runner(work_dir, epochs, **changes):
    nothing = {
        f'{stage}_{part}': None
        for stage in ('val', 'test')
        for part in ('dataloader', 'cfg', 'evaluator')
    }
    config = toy_config(
        **nothing,
        model=dict(type='NotedToy', extent=changes.pop('extent', 5)),
        work_dir=str(work_dir),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        param_scheduler=None,
        custom_hooks=[dict(type='EMAHook', momentum=0.5)],
        **changes,
    )
    return Runner.from_cfg(Config(config))


def test_own_checkpoints_go_on(tmp_path):
    """Saved with averages, resumed, loaded by the tools: the notes stay with them."""
    runner(tmp_path, 1).train()
    file = str(tmp_path / 'epoch_1.pth')
    checkpoint = read_checkpoint(file)
    for key, name in (('state_dict', 'net.0'), ('ema_state_dict', 'module.net.0')):
        notes = checkpoint[key]._metadata[name]
        assert (notes['extent'], notes['interpolation']) == ((5, 5), 'gauss')
    resumed = runner(tmp_path, 2, resume=True, load_from=file)
    resumed.register_hook(CheckpointMatchHook(file))
    resumed.train()
    assert (tmp_path / 'epoch_2.pth').exists()
    model = NotedToy()
    load_matching(model, read_checkpoint(str(tmp_path / 'epoch_2.pth')), 'epoch_2.pth')


@pytest.mark.parametrize('resume', [True, False])
def test_another_extent_stops_every_training(tmp_path, resume):
    """Also mmengine's own, which would log an error among others, and train on."""
    runner(tmp_path, 1).train()
    other = runner(
        tmp_path, 2, extent=7, resume=resume, load_from=str(tmp_path / 'epoch_1.pth')
    )
    with pytest.raises(RuntimeError, match=r'net\.0\.P: .* extent \(5, 5\), this one'):
        other.train()


def test_published_order_stops_load_from(tmp_path):
    state_dict = NotedToy().state_dict()
    state_dict._metadata = OrderedDict(
        (name, dict(version=1)) for name in state_dict._metadata
    )
    torch.save({'state_dict': state_dict}, tmp_path / 'published.pth')
    with pytest.raises(RuntimeError, match=r'net\.0\.P: .*from_published'):
        runner(tmp_path, 1, load_from=str(tmp_path / 'published.pth')).train()
