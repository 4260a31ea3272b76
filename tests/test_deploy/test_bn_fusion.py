"""mmcv's fuse_conv_bn keeps the outputs of models with layers of dcls_mm."""

import copy
import functools
import importlib

import mmcv.cnn
import pytest
import torch
from conftest import assert_close
from torch import nn

from dcls_mm.deploy import bn_fusion
from dcls_mm.layers import DCLSConv2d, FlexConv2d, LargeKernelConv2d
from dcls_mm.layers.folding import switch_to_deploy

# Where mmcv has its function. Each test takes it from there: importing it by name would
# happen before dcls_mm is imported, and get the unguarded one.
PLACES = [
    importlib.import_module('mmcv.cnn.utils.fuse_conv_bn'),
    mmcv.cnn.utils,
    mmcv.cnn,
]


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

# Name -> how conv, layer and norm are arranged, and how many norms can be fused.
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
@pytest.mark.parametrize('place', PLACES, ids=lambda place: place.__name__)
def test_the_outputs_stay(model, layer, place):
    build, fused = MODELS[model]
    plain = nn.Sequential(*build(LAYERS[layer]())).double().eval()
    x = torch.randn(2, 4, 9, 9, dtype=torch.float64)
    result = place.fuse_conv_bn(copy.deepcopy(plain))
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
    assert_close(mmcv.cnn.fuse_conv_bn(plain)(x), y)
    assert isinstance(plain[2], nn.Identity)


def test_models_without_layers_are_mmcvs():
    plain = nn.Sequential(conv(), norm(), nn.Sequential(conv(), norm())).eval()
    x = torch.randn(2, 4, 9, 9)
    y = plain(x)
    assert_close(mmcv.cnn.fuse_conv_bn(plain)(x), y, factor=5)
    assert isinstance(plain[2][1], nn.Identity)


@pytest.fixture
def restored(monkeypatch):
    for place in PLACES:
        monkeypatch.setattr(place, 'fuse_conv_bn', place.fuse_conv_bn)


@torch.no_grad()
def test_another_packages_wrapper_is_heeded_too(restored):
    """It calls what was there before, and is called by what is there afterwards."""
    original, calls = mmcv.cnn.fuse_conv_bn.args[0], []

    @functools.wraps(original)
    def wrapper(module):
        calls.append(module)
        return original(module)

    for place in PLACES:
        place.fuse_conv_bn = wrapper
    for _ in range(2):  # the second call finds it installed
        bn_fusion.guard_mmcv()
    model = nn.Sequential(conv(), LAYERS['dcls'](), norm()).double().eval()
    x = torch.randn(2, 4, 9, 9, dtype=torch.float64)
    assert_close(mmcv.cnn.fuse_conv_bn(copy.deepcopy(model))(x), model(x))
    assert calls and mmcv.cnn.fuse_conv_bn.args == (wrapper,)


def test_importing_again_guards_once(restored):
    original = mmcv.cnn.fuse_conv_bn.args[0]
    importlib.reload(bn_fusion).guard_mmcv()
    for place in PLACES:
        assert place.fuse_conv_bn.args == (original,)
        assert place.fuse_conv_bn.func is bn_fusion.fuse_conv_bn
    assert mmcv.cnn.fuse_conv_bn.__doc__ == original.__doc__
