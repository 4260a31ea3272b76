"""Folded layers compute the same as before, as torch's own convolutions."""

import pytest
import torch
from conftest import assert_close
from torch import nn

from dcls_mm.backbones import ConvNeXtDCLS
from dcls_mm.layers import (
    ConstructedConvNd,
    DCLSConv1d,
    DCLSConv2d,
    DCLSConv3d,
    DCLSConvTranspose2d,
    FlexConv1d,
    LargeKernelConv2d,
)
from dcls_mm.layers.dropin import Dcls2d
from dcls_mm.layers.folding import fold, switch_to_deploy

LAYERS = {
    '1d': (lambda: DCLSConv1d(4, 6, 3, dilated_kernel_size=9), (4, 20)),
    'strided': (
        lambda: DCLSConv2d(4, 6, 3, 2, 1, dilated_kernel_size=(9, 7)),
        (4, 20, 17),
    ),
    'depthwise': (
        lambda: DCLSConv2d(
            *(4, 4, 7),
            padding=3,
            groups=4,
            dilated_kernel_size=17,
            interpolation='gauss',
        ),
        (4, 20, 18),
    ),
    'circular': (
        lambda: DCLSConv2d(
            *(4, 4, 3), padding=1, padding_mode='circular', dilated_kernel_size=5
        ),
        (4, 12, 12),
    ),
    'sampled': (
        lambda: DCLSConv2d(
            *(4, 6, 3, 1, 1),
            dilated_kernel_size=9,
            formulation='sample',
            per_output_positions=False,
        ),
        (4, 14, 12),
    ),
    'columns': (
        lambda: DCLSConv2d(4, 6, 3, position_axes=(1,), dilated_kernel_size=7),
        (4, 14, 12),
    ),
    '3d': (
        lambda: DCLSConv3d(2, 3, 3, dilated_kernel_size=5, interpolation='max'),
        (2, 8, 9, 7),
    ),
    'transposed': (
        lambda: DCLSConvTranspose2d(
            *(4, 6, 3), stride=2, output_padding=1, dilated_kernel_size=7
        ),
        (4, 6, 5),
    ),
    'large': (lambda: LargeKernelConv2d(4, 4, 17, padding=8, groups=4), (4, 20, 18)),
    'published': (
        lambda: Dcls2d(4, 6, kernel_count=3, dilated_kernel_size=7, padding=3),
        (4, 14, 12),
    ),
}


@pytest.mark.parametrize('name', LAYERS)
def test_folded_layer(name):
    torch.manual_seed(0)
    make, shape = LAYERS[name]
    layer = make().double().eval()
    x = torch.randn(2, *shape, dtype=torch.double)
    model = nn.Sequential(layer)
    expected = model(x)
    (found,) = switch_to_deploy(model)
    assert type(model[0]) is getattr(
        nn, f'Conv{"Transpose" * layer.transposed}{layer.ndim}d'
    )
    assert_close(model(x), expected)
    assert found.name == '0'
    assert found.taps == model[0].weight.numel()
    assert found.used == (model[0].weight != 0).sum()


def test_a_layer_in_two_places_stays_one():
    conv = DCLSConv2d(4, 4, 3, dilated_kernel_size=5)
    model = nn.ModuleDict({'a': conv, 'b': nn.Sequential(conv)})
    assert [found.name for found in switch_to_deploy(model)] == ['a']
    assert model['a'] is model['b'][0]


def test_backbone():
    torch.manual_seed(0)
    backbone = ConvNeXtDCLS(dict(depths=[1, 1, 2, 1], dims=[8, 8, 16, 16])).eval()
    images = torch.randn(1, 3, 64, 96)
    expected = backbone(images)
    backbone.switch_to_deploy()
    assert not any(isinstance(m, ConstructedConvNd) for m in backbone.modules())
    for actual, wanted in zip(backbone(images), expected):
        assert_close(actual, wanted, factor=20)
    plain = ConvNeXtDCLS(
        dict(depths=[1, 1, 2, 1], dims=[8, 8, 16, 16]),
        depthwise_cfg=dict(type='Conv2d', kernel_size=17),
    )
    plain.load_state_dict(backbone.state_dict())


@pytest.mark.parametrize(
    ('frozen', 'learned'),
    [
        ([], ['weight', 'bias']),
        (['weight', 'P', 'bias'], []),
        (['P'], ['weight', 'bias']),
        (['weight'], ['bias']),
        (['bias'], ['weight']),
    ],
)
def test_what_is_frozen_stays_frozen(frozen, learned):
    layer = DCLSConv2d(4, 4, 3, dilated_kernel_size=5)
    for name in frozen:
        getattr(layer, name).requires_grad_(False)
    conv = fold(layer)
    assert [n for n, p in conv.named_parameters() if p.requires_grad] == learned


@pytest.mark.parametrize('frozen', [True, False])
def test_frozen_kernels_of_other_parameters(frozen):
    """A network with its own padding, and a parametrized weight."""
    layers = [
        FlexConv1d(2, 2, 5, padding='causal'),
        nn.utils.parametrizations.weight_norm(LargeKernelConv2d(2, 2, 5)),
    ]
    for layer in layers:
        layer.requires_grad_(not frozen)
        wanted = {p.requires_grad for p in fold(layer).parameters()}
        assert wanted == {not frozen}


def test_frozen_stages_of_a_backbone():
    backbone = ConvNeXtDCLS(
        dict(depths=[1, 1, 1], dims=[8, 8, 16]), out_indices=2, frozen_stages=2
    )
    backbone.switch_to_deploy()
    for part in (*backbone.stages[:2], backbone.downsample_layers[1]):
        assert not any(p.requires_grad for p in part.parameters())
    assert all(p.requires_grad for p in backbone.stages[2].parameters())


def test_rounded_elements_have_one_tap_each():
    torch.manual_seed(0)
    layer = DCLSConv2d(
        4, 4, 7, padding=3, groups=4, dilated_kernel_size=17, kernel_count=9
    )
    nn.init.uniform_(layer.P, -7, 7)
    kernel = fold(layer, round_positions=True).weight
    expected = torch.zeros_like(kernel)
    for channel in range(4):
        for element in range(9):
            row, column = layer.P[:, channel, 0, element].round().int() + 8
            expected[channel, 0, row, column] += layer.weight[channel, 0, element]
    assert_close(kernel, expected)
    assert not layer.integer_positions and layer.training


@pytest.mark.parametrize('version', ['v0', 'v1'])
def test_a_sigma_that_is_not_read_is_no_hindrance_to_rounding(version):
    layer = Dcls2d(4, 4, 3, dilated_kernel_size=5, groups=4, version='gauss')
    layer.version = version
    kernel = fold(layer, round_positions=True).weight
    rounded = Dcls2d(4, 4, 3, dilated_kernel_size=5, groups=4, version=version)
    rounded.load_state_dict(
        {key: value for key, value in layer.state_dict().items() if key != 'SIG'}
    )
    rounded.round_positions()
    assert_close(kernel, rounded.kernel())
    assert (kernel.flatten(1) != 0).sum(1).max() <= 3


@pytest.mark.parametrize(
    'model, message',
    [
        (nn.Sequential(nn.Conv2d(1, 1, 1)), 'has no DCLS layers to fold'),
        (DCLSConv2d(1, 1, 3), r'folding\.fold'),
    ],
)
def test_nothing_to_fold(model, message):
    with pytest.raises(ValueError, match=message):
        switch_to_deploy(model)


class OfItsInput(DCLSConv2d):
    """A layer whose kernel isn't known in advance."""

    def kernel(self):
        raise NotImplementedError('its kernel depends on the input')


def test_a_layer_that_cannot_be_folded_leaves_the_model_as_it_is():
    model = nn.Sequential(DCLSConv2d(2, 2, 3), OfItsInput(2, 2, 3))
    layers = list(model)
    with pytest.raises(ValueError, match="1 can't be folded: its kernel dep"):
        switch_to_deploy(model)
    assert list(model) == layers


def test_wide_elements_cannot_be_rounded():
    model = nn.Sequential(DCLSConv2d(2, 2, 3, interpolation='gauss'))
    with pytest.raises(ValueError, match="0 can't be folded: .*got 'gauss'"):
        switch_to_deploy(model, round_positions=True)
