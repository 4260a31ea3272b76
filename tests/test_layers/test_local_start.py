"""Layers whose local branch starts as a plain convolution, computed or loaded."""

import copy
import pickle
import warnings

import pytest
import torch
from conftest import assert_close
from mmengine.runner.checkpoint import load_state_dict
from torch import nn

from dcls_mm import replace_convs
from dcls_mm.backbones import ConvNeXtDCLS
from dcls_mm.layers import (
    DCLSConv1d,
    DCLSConv2d,
    DCLSConv3d,
    DCLSConvTranspose2d,
)

LAYERS = {
    nn.Conv1d: DCLSConv1d,
    nn.Conv2d: DCLSConv2d,
    nn.Conv3d: DCLSConv3d,
    nn.ConvTranspose2d: DCLSConvTranspose2d,
}

# A plain convolution and the options of the layer that starts from it.
CONVS = {
    'line': (lambda: nn.Conv1d(4, 8, 3, 2, 1), dict(local_size=3)),
    'plane': (lambda: nn.Conv2d(4, 8, 5, padding=2, groups=4), dict(local_size=5)),
    'space': (lambda: nn.Conv3d(4, 4, 3, groups=2), dict(local_size=3)),
    'zeros around': (lambda: nn.Conv2d(4, 4, 3, padding=1), dict(local_size=7)),
    'dilated': (
        lambda: nn.Conv2d(4, 4, 3, dilation=(1, 3), padding=3),
        dict(local_size=(5, 7)),
    ),
    'reflected': (
        lambda: nn.Conv2d(4, 4, 3, padding=1, padding_mode='reflect', bias=False),
        dict(local_size=3),
    ),
    'dense columns': (
        lambda: nn.Conv2d(4, 4, (3, 4)),
        dict(local_size=3, position_axes=(0,)),
    ),
    'transposed': (
        lambda: nn.ConvTranspose2d(4, 6, 4, 2, 1, groups=2),
        dict(local_size=4, dilated_kernel_size=10),
    ),
}


def build(name, dtype=torch.float64):
    """Return a convolution, the options for a layer and an input."""
    make, options = CONVS[name]
    torch.manual_seed(2)
    conv = make().to(dtype)
    x = torch.randn(2, 4, *(13, 12, 14)[: conv.weight.ndim - 2], dtype=dtype)
    return conv, {'dilated_kernel_size': 11, 'kernel_count': 6, **options}, x


@pytest.mark.parametrize('interpolation', ['bilinear', 'triangle', 'max', 'gauss'])
@pytest.mark.parametrize('name', CONVS)
def test_layer_computes_what_the_convolution_does(name, interpolation):
    conv, options, x = build(name)
    torch.manual_seed(5)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        layer = LAYERS[type(conv)].from_conv(
            conv, interpolation=interpolation, initial_positions='uniform', **options
        )
    assert_close(layer(x), conv(x))
    assert layer.kernel_error == 0
    assert layer.local_weight.count_nonzero() == conv.weight.numel()
    # The elements start where they would, over the whole extent, and can learn.
    assert layer.P.shape[-1] == 6
    assert layer.P.abs().max() > 4
    assert not layer.weight.any()
    layer(x).square().sum().backward()
    assert layer.weight.grad.count_nonzero() == layer.weight.numel()


@pytest.mark.parametrize('how', ['torch', 'mmengine', 'assigned'])
@pytest.mark.parametrize('name', CONVS)
def test_loading_the_convolution_gives_the_same(name, how):
    conv, options, x = build(name)
    made = LAYERS[type(conv)].from_conv(conv, **options)
    arguments = {key: getattr(conv, key) for key in made.CONV_ARGUMENTS}
    bias = conv.bias is not None
    layer = type(made)(**arguments, bias=bias, dtype=torch.float64, **options)
    positions = layer.P.detach().clone()
    if how == 'mmengine':
        load_state_dict(layer, conv.state_dict(), strict=True)
    else:
        layer.load_state_dict(conv.state_dict(), assign=how == 'assigned')
    assert_close(layer(x), conv(x))
    assert_close(layer.P, positions)
    assert_close(layer.kernel(), made.kernel())


def test_a_start_without_it_is_still_on_the_taps():
    conv, _, _ = build('plane')
    layer = DCLSConv2d.from_conv(conv, dilated_kernel_size=11)
    assert layer.initial_positions == 'grid'
    assert layer.local_weight is None
    assert layer.P.abs().max() == 2


def test_replaced_convolutions_of_a_model():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 5, padding=2, groups=8)
    )
    model[2].requires_grad_(False)
    before = copy.deepcopy(model)
    with warnings.catch_warnings():
        warnings.simplefilter('error')  # no positions are stuck on the taps
        (replaced,) = replace_convs(
            model,
            DCLSConv2d,
            depthwise=True,
            dilated_kernel_size=17,
            kernel_count=9,
            interpolation='triangle',
            local_size=5,
        )
    assert replaced.error == 0
    assert not any(p.requires_grad for p in model[2].parameters())
    x = torch.randn(1, 3, 24, 24)
    assert_close(model(x), before(x))


@pytest.mark.parametrize(
    'copied', [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))]
)
def test_copies(copied):
    conv, options, x = build('plane')
    layer = DCLSConv2d.from_conv(conv, **options).eval()
    with torch.no_grad():
        layer(x)
        other = copied(layer)
        assert_close(other(x), layer(x))
        layer.local_weight.zero_()  # noticed, although a kernel was kept
        bias = conv.bias.view(-1, 1, 1)
        assert_close(layer(x), bias.expand_as(layer(x)))
        assert_close(other(x), conv(x))


def test_a_state_dict_has_it_and_loads_again():
    conv, options, x = build('plane')
    layer = DCLSConv2d.from_conv(conv, **options)
    assert list(layer.state_dict()) == ['weight', 'P', 'local_weight', 'bias']
    other = DCLSConv2d(4, 8, 5, padding=2, groups=4, dtype=torch.float64, **options)
    other.load_state_dict(layer.state_dict())
    assert_close(other(x), layer(x))
    assert 'local_size=(5, 5)' in repr(other)


def test_elements_that_start_with_weight_0():
    """They learn at once, and their places as soon as they have weights."""
    layer = DCLSConv2d(
        *(4, 4, 7),
        padding=3,
        groups=4,
        kernel_count=5,
        dilated_kernel_size=17,
        local_size=7,
        elements_from_zero=True,
    )
    x = torch.randn(2, 4, 20, 20)
    expected = nn.functional.conv2d(x, layer.local_weight, layer.bias, 1, 3, 1, 4)
    assert_close(layer(x), expected, factor=5)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    before = layer.P.clone()
    for step in (1, 2):
        optimizer.zero_grad()
        layer(x).sin().sum().backward()
        assert (layer.weight.grad != 0).all()
        assert (layer.P.grad == 0).all() == (step == 1)
        optimizer.step()
    assert not torch.equal(layer.P, before)
    layer.reset_parameters()
    assert (layer.weight == 0).all() and (layer.local_weight != 0).any()


def test_a_backbone_starts_as_the_plain_one():
    small = dict(depths=[1, 1, 2, 1], dims=[4, 8, 12, 16])
    plain = ConvNeXtDCLS(small, depthwise_cfg=dict(type='Conv2d', kernel_size=7)).eval()
    beside = ConvNeXtDCLS(
        small,
        depthwise_cfg=dict(
            type='DCLSConv2d',
            kernel_count=9,
            dilated_kernel_size=17,
            local_size=7,
            elements_from_zero=True,
        ),
    ).eval()
    beside.load_state_dict(
        {
            key.replace('dwconv.weight', 'dwconv.local_weight'): value
            for key, value in plain.state_dict().items()
        },
        strict=False,
    )
    assert all((s[0].dwconv.weight == 0).all() for s in beside.stages)
    x = torch.randn(1, 3, 64, 64)
    for ours, theirs in zip(beside(x), plain(x)):
        assert_close(ours, theirs, factor=10)
