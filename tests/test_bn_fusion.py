"""mmcv's fuse_conv_bn on models with layers of dcls_mm: outputs stay as they are."""

import copy

import mmcv.cnn
import pytest
import torch
from conftest import assert_close
from mmcv.cnn.utils import fuse_conv_bn
from torch import nn

import dcls_mm  # noqa: F401
from dcls_mm.layers import DCLSConv2d, FlexConv2d, LargeKernelConv2d
from dcls_mm.reparameterize import switch_to_deploy


def norm():
    norm = nn.BatchNorm2d(4)
    for tensor in (norm.running_mean, norm.weight, norm.bias):
        nn.init.normal_(tensor)
    nn.init.uniform_(norm.running_var, 0.5, 2)
    return norm


def conv(*_):
    return nn.Conv2d(4, 4, 3, padding=1)


LAYERS = {
    'dcls': lambda: DCLSConv2d(4, 4, 3, padding=1),
    'flex': lambda: FlexConv2d(4, 4, 3, padding=1),
    'large': lambda: LargeKernelConv2d(4, 4, 3, padding=1),
}

# How conv, layer and norm stand in a model, and how many norms can be fused.
MODELS = {
    'between': (lambda layer: [conv(), layer, norm()], 0),
    'before': (lambda layer: [layer, conv(), norm()], 1),
    'behind': (lambda layer: [conv(), norm(), layer, norm()], 1),
    'inside': (lambda layer: [conv(), nn.Sequential(layer), norm()], 0),
    'deep': (
        lambda layer: [
            conv(),
            nn.Sequential(nn.Sequential(conv(), norm(), layer), conv(), norm()),
            norm(),
        ],
        2,
    ),
    'elsewhere': (lambda layer: [layer, nn.Sequential(conv(), norm())], 1),
}


@torch.no_grad()
@pytest.mark.parametrize('layer', LAYERS)
@pytest.mark.parametrize('model', MODELS)
@pytest.mark.parametrize('fuse', [fuse_conv_bn, mmcv.cnn.fuse_conv_bn])
def test_the_outputs_stay(model, layer, fuse):
    build, fused = MODELS[model]
    plain = nn.Sequential(*build(LAYERS[layer]())).double().eval()
    x = torch.randn(2, 4, 9, 9, dtype=torch.float64)
    result = fuse(copy.deepcopy(plain))
    assert_close(result(x), plain(x))
    assert [name for name, _ in result.named_modules()] == [
        name for name, _ in plain.named_modules()
    ]
    identities = sum(isinstance(m, nn.Identity) for m in result.modules())
    assert identities == fused


@torch.no_grad()
def test_folded_layers_are_fused():
    plain = nn.Sequential(conv(), LAYERS['dcls'](), norm()).double().eval()
    x = torch.randn(2, 4, 9, 9, dtype=torch.float64)
    y = plain(x)
    switch_to_deploy(plain)
    assert_close(fuse_conv_bn(plain)(x), y)
    assert isinstance(plain[2], nn.Identity)


def test_models_without_layers_are_mmcvs():
    plain = nn.Sequential(conv(), norm(), nn.Sequential(conv(), norm())).eval()
    x = torch.randn(2, 4, 9, 9)
    y = plain(x)
    assert_close(fuse_conv_bn(plain)(x), y, factor=5)
    assert isinstance(plain[2][1], nn.Identity)
