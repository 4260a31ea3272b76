"""mmengine's and mmdet's averaged models, with positions that layers share."""

import copy
import math

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import load_checkpoint
from positions_toy import train
from torch import nn

from dcls_mm.backbones import ReplacedConvBackbone
from dcls_mm.layers import DCLSConv1d, DCLSConv2d, FlexConv1d

# Type -> the model's share in the update after so many steps.
SHARES = {
    'ExponentialMovingAverage': lambda step, interval: 0.1,
    'MomentumAnnealingEMA': lambda step, interval: max(0.1, 20 / (20 + step)),
    'ExpMomentumEMA': lambda step, interval: 0.9 * math.exp(-(1 + step) / 20) + 0.1,
    'StochasticWeightAverage': lambda step, interval: 1 / (step // interval + 1),
}
ARGUMENTS = {
    'ExponentialMovingAverage': dict(momentum=0.1),
    'MomentumAnnealingEMA': dict(momentum=0.1, gamma=20),
    'ExpMomentumEMA': dict(momentum=0.1, gamma=20),
    'StochasticWeightAverage': {},
}


def shared_positions():
    layers = [
        DCLSConv1d(2, 2, kernel_count=3, dilated_kernel_size=5, interpolation='gauss')
        for _ in range(9)
    ]
    for layer in layers[1:]:
        layer.share_positions(layers[0])
    return nn.Sequential(*layers, nn.BatchNorm1d(2))


def assigned_positions():
    """Share positions by assignment, as the published code does."""
    model = shared_positions()
    copies = [DCLSConv1d(2, 2, kernel_count=3, dilated_kernel_size=5) for _ in range(3)]
    for layer in copies[1:]:
        layer.P = copies[0].P
    return model.extend(copies)


def shared_layers():
    """Build a model with layers under several names, like convs of RTMDet's heads."""
    dcls = DCLSConv1d(2, 2, kernel_count=3, dilated_kernel_size=5)
    flex = FlexConv1d(2, 2, 5)
    return nn.ModuleDict({'a': dcls, 'b': flex, 'c': nn.Sequential(dcls, flex, dcls)})


@MODELS.register_module(force=True)
class TinyBackbone(BaseModel):
    def __init__(self):
        super().__init__()
        self.layer1 = nn.Sequential(*(nn.Conv2d(2, 2, 3, padding=1) for _ in range(4)))

    def forward(self, x):
        return (self.layer1(x),)


def replaced_backbone():
    return ReplacedConvBackbone(
        backbone=dict(type='TinyBackbone'),
        layer=dict(type='DCLSConv2d', dilated_kernel_size=5),
        share_positions=r'layer(\d)',
    )


def disturb(model):
    with torch.no_grad():
        for value in (*model.parameters(), *model.buffers()):
            if value.is_floating_point():
                value.add_(torch.rand_like(value))
            else:
                value.add_(1)


@pytest.mark.parametrize('interval', [1, 2])
@pytest.mark.parametrize('update_buffers', [True, False])
@pytest.mark.parametrize('kind', SHARES)
@pytest.mark.parametrize(
    'build', [shared_positions, assigned_positions, shared_layers, replaced_backbone]
)
def test_an_update_moves_every_parameter_once(build, kind, update_buffers, interval):
    init_default_scope('mmdet')  # which has ExpMomentumEMA in its own registry
    torch.manual_seed(0)
    model = build()
    settings = dict(interval=interval, update_buffers=update_buffers)
    averaged = MODELS.build(
        dict(type=kind, **ARGUMENTS[kind], **settings),
        default_args=dict(model=model),
    )
    expected = {}
    for step in range(5):
        disturb(model)
        averaged.update_parameters(model)
        tensors = dict(model.named_parameters()), dict(model.named_buffers())
        for is_buffer, named in enumerate(tensors):
            for name, value in named.items():
                value = value.detach().double()
                if step == 0 or (is_buffer and not update_buffers):
                    expected[name] = value
                elif step % interval == 0 and named[name].is_floating_point():
                    share = SHARES[kind](step, interval)
                    expected[name] = (1 - share) * expected[name] + share * value
    found = {
        **dict(averaged.module.named_parameters()),
        **dict(averaged.module.named_buffers()),
    }
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name].double(), value, rtol=1e-5, atol=1e-6, msg=name
        )
    if build is not shared_layers:
        assert any('P' in name for name in expected)


def test_a_state_dict_names_and_loads_what_is_shared():
    model = shared_positions()
    state = model.state_dict()
    assert list(state) == list(model.state_dict(keep_vars=True))
    for i in range(9):
        for name in ('P', 'SIG'):
            assert torch.equal(state[f'{i}.{name}'], getattr(model[0], name))
    memory = [state[f'{i}.P'].data_ptr() for i in range(9)]
    assert memory[0] == model[0].P.data_ptr()
    assert len(set(memory)) == 9
    assert model.state_dict(keep_vars=True)['8.P'] is model[0].P
    other = shared_positions()
    other.load_state_dict(state)
    assert other[8].P is other[0].P
    assert torch.equal(other[0].P, model[0].P)


def test_a_state_dict_of_meta_tensors():
    layers = [
        DCLSConv2d(2, 2, 3, kernel_count=3, dilated_kernel_size=5, device='meta')
        for _ in range(2)
    ]
    layers[1].share_positions(layers[0])
    state = nn.Sequential(*layers).state_dict()
    assert all(value.is_meta for value in state.values())


def averaged_model(runner):
    return next(hook.ema_model for hook in runner.hooks if hasattr(hook, 'ema_model'))


@pytest.mark.parametrize('kind', SHARES)
@pytest.mark.parametrize('update_buffers', [True, False])
def test_a_hook_of_a_config_averages_and_resumes(tmp_path, kind, update_buffers):
    """Every RTMDet config has such a hook; the Recorder provides the weights."""
    hook = dict(type='EMAHook', ema_type=kind, update_buffers=update_buffers)
    hook.update(ARGUMENTS[kind])
    runner, rows = train(tmp_path / 'whole', hook, max_epochs=2)
    expected = rows[0].positions.clone()
    for step, row in enumerate(rows[1:], 1):
        expected.lerp_(row.positions, SHARES[kind](step, 1))
    whole = averaged_model(runner)
    torch.testing.assert_close(whole.module.net[0].P.data, expected)

    train(tmp_path / 'parts', hook, max_epochs=1)
    resumed, _ = train(tmp_path / 'parts', hook, max_epochs=2, resume=True)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(averaged_model(resumed).state_dict()[name], value)
    # The file has the average as the model's weights, to start other trainings from.
    plain = copy.deepcopy(runner.model)
    load_checkpoint(plain, str(tmp_path / 'parts' / 'epoch_2.pth'), map_location='cpu')
    for name, value in whole.module.named_parameters():
        torch.testing.assert_close(dict(plain.named_parameters())[name].data, value)
