"""Replacing convolutions in stock models keeps the function, or the error says why."""

import copy
import warnings

import pytest
import torch
from conftest import assert_close
from mmcv.cnn.bricks.conv_ws import ConvAWS2d
from mmcv.cnn.bricks.wrappers import Conv2d as WrappedConv2d
from mmengine.registry import MODELS
from torch import nn

import dcls_mm  # noqa: F401
from dcls_mm.backbones.conv_replacement import describe, replace_convs
from dcls_mm.layers import (
    DCLSConv1d,
    DCLSConv2d,
    DCLSConvTranspose2d,
    FlexConv2d,
    LargeKernelConv2d,
)

DILATED = dict(strides=(1, 2, 2, 1, 1, 1, 1), dilations=(1, 1, 1, 2, 2, 4, 4))

# config, choice of convolutions, (how many are chosen, how many sets of positions)
MODEL_CASES = {
    'mmdet mobilenet': (
        dict(type='mmdet.MobileNetV2', widen_factor=0.25),
        dict(depthwise=True, dilated_kernel_size=9),
        (17, 17),
    ),
    'mmseg mobilenet, dilated': (
        dict(type='mmseg.MobileNetV2', widen_factor=0.25, **DILATED),
        dict(
            depthwise=True,
            kernel_size=3,
            share_positions=r'layer(\d)',
            dilated_kernel_size=13,
        ),
        (17, 10),  # the first block of some stages has other channels or dilation
    ),
    'mmdet resnet': (
        dict(type='mmdet.ResNet', depth=18, base_channels=8),
        dict(
            name=r'layer[34].*conv2',
            per_output_positions=False,
            formulation='sample',
            dilated_kernel_size=7,
        ),
        (4, 4),
    ),
    'mmdet resnext': (
        dict(type='mmdet.ResNeXt', depth=50, base_channels=8, groups=2),
        dict(name='layer2', kernel_size=(3, 3)),
        (4, 4),
    ),
    'mmseg resnet, dilated': (
        dict(
            type='mmseg.ResNetV1c',
            depth=50,
            base_channels=8,
            strides=(1, 2, 1, 1),
            dilations=(1, 1, 2, 4),
            contract_dilation=True,
        ),
        dict(
            depthwise=False,
            name=r'layer\d',
            kernel_size=3,
            dilated_kernel_size=9,
            share_positions=r'layer(\d)',
        ),
        (16, 6),  # the first block of a dilated stage is dilated half as much
    ),
    'convnext': (
        dict(
            type='ConvNeXtDCLS',
            arch=dict(depths=[1, 2], dims=[8, 16]),
            depthwise_cfg=dict(type='Conv2d', kernel_size=7),
            layer_scale_init_value=1.0,
            out_indices=(0, 1),
        ),
        dict(kernel_size=7, share_positions=r'stages\.(\d)', dilated_kernel_size=17),
        (3, 2),
    ),
}


def dcls_layers(model):
    return {n: m for n, m in model.named_modules() if isinstance(m, DCLSConv2d)}


def run(model, images):
    """Return the outputs, after a backward pass that tells them apart."""
    outputs = model(images)
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(y.shape, generator=generator).to(y) for y in outputs]
    sum((w * y).sum() for w, y in zip(weights, outputs)).backward()
    return outputs


@pytest.mark.parametrize('case', MODEL_CASES)
def test_function_is_preserved(case):
    cfg, choice, (count, sets) = MODEL_CASES[case]
    plain = MODELS.build(cfg).double()
    plain.eval()  # returns nothing, in mmdet and mmseg
    swapped = copy.deepcopy(plain)
    report = replace_convs(swapped, DCLSConv2d, **choice)
    layers = dcls_layers(swapped)
    assert [r.name for r in report] == list(layers)
    assert len(layers) == count
    assert len({id(layer.P) for layer in layers.values()}) == sets
    assert [r.shares is None for r in report].count(True) == sets

    images = torch.randn(2, 3, 64, 48, dtype=torch.double)
    expected = run(plain, images)
    for actual, wanted in zip(run(swapped, images), expected):
        assert_close(actual, wanted, factor=100)
    for name, layer in layers.items():
        conv = plain.get_submodule(name)
        assert_close(layer.weight.grad, conv.weight.grad.flatten(2), factor=1000)
        assert layer.P.grad.abs().max() > 0
        assert not layer.training


def small_model():
    """Build two plain convolutions, one mmcv wrapper in two places, and a dense one."""
    torch.manual_seed(0)
    twice = WrappedConv2d(4, 4, 5, padding=2, groups=4)
    return nn.ModuleDict(
        dict(
            stem=nn.Conv2d(3, 4, 3, stride=2),
            a=nn.Sequential(nn.Conv2d(4, 4, 5, padding=2, groups=4), twice),
            b=nn.Sequential(twice, twice),
            line=nn.Conv1d(4, 4, 5, padding=2, groups=4),
        )
    )


def test_what_is_chosen_and_said():
    model = small_model()
    before = dict(model.named_modules(remove_duplicate=False))
    report = replace_convs(model, DCLSConv2d, kernel_size=5, dilated_kernel_size=9)
    assert [str(r) for r in report] == [
        'a.0: Conv2d 5x5, 4 groups -> DCLSConv2d 9x9, 4 groups',
        'a.1: Conv2d 5x5, 4 groups -> DCLSConv2d 9x9, 4 groups',
    ]
    assert model.a[1] is model.b[0] is model.b[1]
    assert isinstance(model.a[1], DCLSConv2d)
    assert model.stem is before['stem'] and model.line is before['line']
    x = torch.randn(1, 4, 9, 9)
    for name in ('a.0', 'b.1'):
        assert_close(model.get_submodule(name)(x), before[name](x), factor=5)

    # Any of its names chooses a convolution, in all its places.
    model = small_model()
    replace_convs(model, DCLSConv2d, name=r'^b\.1$')
    assert isinstance(model.a[1], DCLSConv2d) and model.a[1] is model.b[0]
    assert type(model.a[0]) is nn.Conv2d


def test_other_dimensions_and_sharing():
    model = small_model()
    (line,) = replace_convs(model, DCLSConv1d, dilated_kernel_size=11)
    assert (line.name, line.became) == ('line', 'DCLSConv1d 11, 4 groups')
    *_, twice = replace_convs(model, DCLSConv2d, depthwise=True, share_positions='')
    assert str(twice).endswith('positions of a.0')
    assert model.a[1].P is model.a[0].P
    assert model.a[1].weight is not model.a[0].weight


def test_description():
    conv = nn.Conv2d(4, 8, (3, 5), dilation=(1, 2), groups=2)
    assert describe(conv) == 'Conv2d 3x5 dilated by 1x2, 2 groups'


def test_positions_that_would_not_learn_are_told_of():
    x = torch.randn(1, 4, 9, 9)
    for interpolation, sigma in (
        ('triangle', None),
        ('max', None),
        ('max', 0.3),
        ('gauss', None),
        ('bilinear', None),
    ):
        model = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, groups=4))
        expected = model(x)
        options = dict(interpolation=interpolation, dilated_kernel_size=7)
        if sigma is not None:
            options['initial_sigma'] = sigma
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter('always')
            (replaced,) = replace_convs(model, DCLSConv2d, **options)
        spread = interpolation == 'gauss' or sigma is not None
        assert (replaced.error > 0) == spread
        assert replaced.error == model[0].kernel_error
        if spread:
            assert str(replaced).endswith(f', kernel within {replaced.error:.2g}')
        else:
            assert_close(model(x), expected, factor=5)
        model(x).square().sum().backward()
        stuck = not model[0].P.grad.any()
        assert stuck == (interpolation != 'bilinear' and not spread)
        said = [str(w.message) for w in caught]
        assert sum('puts the positions on whole' in m for m in said) == stuck
        assert sum('no longer computes what it did' in m for m in said) == spread
        assert len(said) == stuck + spread


def test_a_fresh_start_takes_no_plain_kernel():
    model = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, groups=4))
    state_dict = model.state_dict()
    replace_convs(model, DCLSConv2d, start='fresh', dilated_kernel_size=7)
    with pytest.raises(RuntimeError, match='size mismatch for 0.weight'):
        model.load_state_dict(state_dict)


@pytest.mark.parametrize('layer', [DCLSConv2d, FlexConv2d, LargeKernelConv2d])
def test_fresh_start(layer):
    model = nn.Sequential(
        nn.Conv2d(4, 6, (3, 5), 2, (1, 2), groups=2, bias=False, padding_mode='reflect')
    ).double()
    plain = model[0]
    options = {
        DCLSConv2d: dict(dilated_kernel_size=9, interpolation='gauss'),
        FlexConv2d: dict(dilated_kernel_size=9),
        LargeKernelConv2d: {},
    }[layer]
    replace_convs(model, layer, start='fresh', **options)
    (new,) = model
    assert type(new) is layer
    assert new.bias is None and new.padding_mode == 'reflect'
    assert new.extent == ((9, 9) if options else (3, 5))
    x = torch.randn(2, 4, 12, 13, dtype=torch.double)
    assert new(x).shape == plain(x).shape
    assert not torch.equal(new(x), plain(x))
    if layer is DCLSConv2d:
        assert not torch.equal(new.P, new.P.round())  # not the convolution's grid


def test_frozen_convolutions_become_frozen_layers():
    model = small_model()
    model.a[0].requires_grad_(False)
    model.stem.weight.requires_grad_(False)
    model.eval()
    replace_convs(
        model,
        DCLSConv2d,
        start='fresh',
        interpolation='gauss',
        learn_sigma=False,
        dilated_kernel_size=9,
    )
    trained = {
        name: {key for key, p in layer.named_parameters() if p.requires_grad}
        for name, layer in dcls_layers(model).items()
    }
    assert trained == {'stem': {'bias'}, 'a.0': set(), 'a.1': {'weight', 'P', 'bias'}}
    assert not any(m.training for m in model.modules())


def weight_standardized():
    return nn.Sequential(nn.Conv2d(4, 4, 3), ConvAWS2d(4, 4, 3))


def weight_normalized():
    return nn.Sequential(nn.Conv2d(4, 4, 3), nn.utils.weight_norm(nn.Conv2d(4, 4, 3)))


def parametrized():
    conv = nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 4, 3))
    return nn.Sequential(nn.Conv2d(4, 4, 3), conv)


def tied():
    convs = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3))
    convs[1].weight = convs[0].weight
    return convs


def half_frozen():
    convs = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3))
    convs[0].requires_grad_(False)
    return convs


@pytest.mark.filterwarnings('ignore:.*weight_norm')
@pytest.mark.parametrize(
    'make, layer, choice, error, message',
    [
        (
            *(small_model, DCLSConv2d, dict(kernel_size=7), ValueError),
            r'kernel_size=7.*none of the 3 Conv2d.*stem \(Conv2d 3x3\); a\.0 \(Conv',
        ),
        (nn.ReLU, DCLSConv2d, {}, ValueError, 'the model has no Conv2d to replace'),
        (
            *(lambda: nn.Conv2d(4, 4, 3), DCLSConv2d, {}, ValueError),
            r'itself a convolution.*DCLSConv2d\.from_conv',
        ),
        (small_model, nn.Conv2d, {}, TypeError, 'layer must be a class .*got Conv2d'),
        (small_model, 'DCLSConv2d', {}, TypeError, "layer must be .*'DCLSConv2d'"),
        (small_model, DCLSConvTranspose2d, {}, TypeError, 'not transposed'),
        (
            *(small_model, DCLSConv2d, dict(start='weights'), ValueError),
            r"start must be one of \['conv', 'fresh'\], got 'weights'",
        ),
        (
            *(small_model, LargeKernelConv2d, {}, ValueError),
            "needs a layer with a method from_conv.*start='fresh'",
        ),
        (
            *(small_model, DCLSConv2d, dict(name='a('), ValueError),
            'name must be a regular expression',
        ),
        (
            *(small_model, DCLSConv2d, dict(name=3), TypeError),
            'name must be a regular expression, got 3',
        ),
        (
            *(small_model, DCLSConv2d, dict(kernel_size=(3, 3, 3)), ValueError),
            'kernel_size must be one integer or 2',
        ),
        (
            *(small_model, DCLSConv2d, dict(depthwise='yes'), TypeError),
            "depthwise must be True, False or None, got 'yes'",
        ),
        (
            *(small_model, DCLSConv2d, dict(share_positions='stage'), ValueError),
            "share_positions='stage' matches none of the names .* such as stem",
        ),
        (
            *(small_model, LargeKernelConv2d),
            *(dict(start='fresh', share_positions='a'), ValueError),
            'share_positions must be left out: a LargeKernelConv2d has no positions',
        ),
        (
            *(half_frozen, DCLSConv2d, dict(share_positions=''), ValueError),
            'joins 0 and 1, of which only one is frozen',
        ),
        (
            *(small_model, DCLSConv2d, dict(dilated_kernel_size=8), ValueError),
            "stem can't become a DCLSConv2d: dilated_kernel_size .* odd number",
        ),
        (
            *(small_model, DCLSConv2d, dict(dilated_kernel_size=3), ValueError),
            "a.0 can't become a DCLSConv2d: .*need a dilated_kernel_size equal to its",
        ),
        (
            *(small_model, DCLSConv2d),
            *(dict(start='fresh', dilated_kernel_size=1), ValueError),
            "stem can't become a DCLSConv2d: padding .* is too small",
        ),
        (
            *(small_model, DCLSConv2d, dict(padding=3), ValueError),
            "stem can't become a DCLSConv2d: .*padding",
        ),
        (
            *(weight_standardized, DCLSConv2d, {}, ValueError),
            "1 can't be replaced because it is a ConvAWS2d, .*exclude it by name",
        ),
        (
            *(weight_normalized, DCLSConv2d, {}, ValueError),
            '1 .* computes its weight from bias, weight_g, weight_v',
        ),
        (parametrized, DCLSConv2d, {}, ValueError, '1 .* is a ParametrizedConv2d'),
        (tied, DCLSConv2d, {}, ValueError, '0 .* shares its weight with 1'),
    ],
)
def test_mistakes_leave_the_model_as_it_is(make, layer, choice, error, message):
    model = make()
    before = dict(model.named_modules())
    with pytest.raises(error, match=message):
        replace_convs(model, layer, **choice)
    after = dict(model.named_modules())
    assert list(after) == list(before)
    assert all(after[name] is before[name] for name in before)


def test_what_computes_more_can_be_left_out_by_name():
    model = weight_standardized()
    (replaced,) = replace_convs(model, DCLSConv2d, name='^0$')
    assert replaced.name == '0' and type(model[1]) is ConvAWS2d
