"""Layers whose filters exist in several orientations."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from conftest import assert_close
from torch import nn

from dcls_mm import DCLSConv2d, RotatedDCLSConv2d, switch_to_deploy
from dcls_mm.backbones import ConvNeXtDCLS, replace_convs
from dcls_mm.functional.reference import reference_kernel
from dcls_mm.layers import fold
from dcls_mm.layers.noted import StateDictError

INTERPOLATIONS = ['bilinear', 'triangle', 'max', 'gauss']
BASE = {'max': 1.0, 'gauss': 0.27}  # what is added to |sigma|, by the papers' formulas

# How channels are connected -> arguments, and whether the input has orientations.
KINDS = {
    'lifting': (dict(in_channels=3, out_channels=8), False),
    'group': (dict(in_channels=8, out_channels=8, input_orientations=4), True),
    'grouped': (
        dict(in_channels=8, out_channels=16, input_orientations=4, groups=2),
        True,
    ),
    'depthwise': (dict(in_channels=8, out_channels=8, groups=8), True),
}


def build(kind='lifting', **options):
    torch.manual_seed(0)
    arguments = dict(
        kernel_count=4, dilated_kernel_size=7, padding=3, dtype=torch.float64
    )
    arguments |= KINDS[kind][0]
    layer = RotatedDCLSConv2d(**{**arguments, **options})
    nn.init.uniform_(layer.P, -3, 3)  # some of them beyond the disc
    if layer.SIG is not None:
        nn.init.normal_(layer.SIG, mean=0.4)
    return layer


def moved_on(channels, by=1, orientations=4):
    """Move the orientations of a feature map on, as a turn of the input does."""
    return channels.unflatten(1, (-1, orientations)).roll(by, 2).flatten(1, 2)


def quarter_turn(x, quarters=1, has_orientations=True, orientations=4):
    x = torch.rot90(x, quarters, dims=(2, 3))
    by = quarters * orientations // 4
    return moved_on(x, by, orientations) if has_orientations else x


@pytest.mark.parametrize('interpolation', INTERPOLATIONS)
@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('quarters', [1, 2, 3])
def test_quarter_turns_are_exact(kind, interpolation, quarters):
    layer = build(kind, interpolation=interpolation)
    arguments, with_orientations = KINDS[kind]
    x = torch.randn(2, arguments['in_channels'], 12, 9, dtype=torch.float64)
    turned = layer(quarter_turn(x, quarters, with_orientations))
    assert_close(turned, quarter_turn(layer(x), quarters))


@pytest.mark.parametrize('interpolation', INTERPOLATIONS)
@pytest.mark.parametrize('orientations', [1, 3, 8])
def test_kernel_is_that_of_turned_elements(interpolation, orientations):
    """Against loops over the elements, for angles beside multiples of 90 degrees."""
    layer = build(
        out_channels=2 * orientations,
        orientations=orientations,
        interpolation=interpolation,
    )
    kernel = layer.kernel()
    for channel in range(layer.out_channels):
        filter, orientation = divmod(channel, orientations)
        angle = 2 * math.pi * orientation / orientations
        c, s = math.cos(angle), math.sin(angle)
        rows, columns = layer.P[:, filter]
        lengths = (rows**2 + columns**2).sqrt()
        rows, columns = ((3 / lengths).clamp(max=1) * p for p in (rows, columns))
        places = torch.stack([c * rows - s * columns, s * rows + c * columns])
        sigma = None
        if layer.SIG is not None:
            base = BASE[interpolation]
            high, wide = (layer.SIG[:, filter].abs() + base) ** 2
            sigma = torch.stack(
                [(c**2 * high + s**2 * wide) ** 0.5, (s**2 * high + c**2 * wide) ** 0.5]
            )
            sigma = sigma - base
        expected = reference_kernel(
            layer.weight[filter],
            places,
            sigma,
            kernel_size=(7, 7),
            interpolation=interpolation,
        )
        assert_close(kernel[channel], expected, factor=100)


def test_orientations_of_the_input_are_relative():
    """Filter k reads orientation l of the input with the kernel for l - k."""
    layer = build('group')
    with torch.no_grad():
        layer.P.zero_()  # a 1x1 convolution, which turns nothing
    taps = layer.kernel()[:, :, 3, 3].view(2, 4, 2, 4)
    weights = layer.weight.sum(-1).view(2, 2, 4)
    for k in range(4):
        for each in range(4):
            expected = weights[:, :, (each - k) % 4]
            torch.testing.assert_close(taps[:, k, :, each], expected)


def turn(x, degrees):
    """Turn images by any angle, as rot90 does, interpolating between pixels."""
    angle = math.radians(degrees)
    c, s = math.cos(angle), math.sin(angle)
    theta = torch.tensor([[c, -s, 0], [s, c, 0]], dtype=x.dtype)[None]
    grid = F.affine_grid(theta, [1, *x.shape[1:]], align_corners=True)
    grid = grid.expand(len(x), -1, -1, -1)
    return F.grid_sample(x, grid, mode='bicubic', align_corners=True)


def test_turning_agrees_with_rot90():
    x = torch.randn(1, 2, 9, 9, dtype=torch.float64)
    assert_close(turn(x, 90), torch.rot90(x, dims=(2, 3)), factor=100)


@pytest.mark.parametrize(
    'interpolation, most', [('bilinear', 0.02), ('triangle', 0.02), ('gauss', 0.015)]
)
def test_other_turns_are_close(interpolation, most):
    """Smooth images by 45 degrees, with the channels moved on and not."""
    torch.manual_seed(0)
    size = 64
    x = F.interpolate(
        torch.randn(2, 3, 10, 10, dtype=torch.float64), (size, size), mode='bicubic'
    )
    layer = RotatedDCLSConv2d(
        *(3, 16),
        orientations=8,
        kernel_count=9,
        dilated_kernel_size=9,
        padding=4,
        interpolation=interpolation,
        initial_positions='even',
        bias=False,
        dtype=torch.float64,
    )
    inside = slice(20, -20)  # far from the border, which turns away
    y = layer(turn(x, 45))[..., inside, inside]
    expected = moved_on(turn(layer(x), 45), 1, 8)[..., inside, inside]
    unmoved = turn(layer(x), 45)[..., inside, inside]
    scale = expected.std()
    assert (y - expected).std() < most * scale
    assert (y - unmoved).std() > 0.3 * scale


def test_a_network_of_such_layers_is_equivariant():
    torch.manual_seed(0)
    options = dict(dtype=torch.float64, initial_positions='even')
    network = nn.Sequential(
        RotatedDCLSConv2d(3, 16, 3, padding=1, dilated_kernel_size=7, **options),
        nn.GELU(),
        RotatedDCLSConv2d(16, 16, 3, padding=1, groups=16, **options),
        RotatedDCLSConv2d(16, 32, 1, input_orientations=4, **options),
        nn.GELU(),
        RotatedDCLSConv2d(32, 8, 5, padding='same', input_orientations=4, **options),
    )
    x = torch.randn(1, 3, 12, 16, dtype=torch.float64)
    assert_close(network(quarter_turn(x, 1, False)), quarter_turn(network(x)))
    pooled, turned = (network(v).mean((2, 3)) for v in (x, quarter_turn(x, 1, False)))
    assert (pooled - turned).abs().max() > 1e-4
    invariant = [v.unflatten(1, (-1, 4)).mean(2) for v in (pooled, turned)]
    assert_close(*invariant)


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('bias', [True, False])
def test_folds_into_a_plain_convolution(kind, bias):
    layer = build(kind, bias=bias).eval()
    model = nn.Sequential(copy.deepcopy(layer))
    switch_to_deploy(model)
    assert type(model[0]) is nn.Conv2d
    x = torch.randn(2, layer.in_channels, 12, 9, dtype=torch.float64)
    assert_close(model(x), layer(x))


def test_gradients_and_direct_formulation():
    """Depthwise layers convolve with their elements, with the same gradients."""
    grads = []
    for formulation in ('construct', 'auto', 'sample'):
        layer = build('depthwise', formulation=formulation, dtype=torch.float32)
        x = torch.linspace(-1, 1, 8 * 20 * 20).view(1, 8, 20, 20).requires_grad_()
        (layer(x).sin().sum()).backward()
        grads.append([x.grad, *(p.grad for p in layer.parameters())])
    for expected, *others in zip(*grads):
        for other in others:
            assert_close(other, expected, factor=30)
    layer = build('group', interpolation='gauss', kernel_count=2)
    x = torch.randn(1, 8, 5, 5, dtype=torch.float64, requires_grad=True)
    parameters = dict(layer.named_parameters())

    def call(x, *values):
        return torch.func.functional_call(layer, dict(zip(parameters, values)), (x,))

    assert torch.autograd.gradcheck(call, (x, *parameters.values()))


def test_parameters_are_those_of_the_filters():
    layer = build('grouped')
    assert layer.weight.shape == (4, 4, 4) and layer.P.shape == (2, 4, 4, 4)
    assert layer.bias.shape == (4,)
    assert list(layer.state_dict()) == ['weight', 'P', 'bias']
    assert 'orientations=4, input_orientations=4' in repr(layer)


@pytest.mark.parametrize('start', ['uniform', 'even', 'normal'])
def test_positions_start_in_the_disc(start):
    layer = RotatedDCLSConv2d(
        *(1, 64), kernel_count=50, dilated_kernel_size=17, initial_positions=start
    )
    lengths = layer.P.square().sum(0).sqrt()
    assert lengths.max() <= 8 + 1e-5
    if start != 'normal':
        assert lengths.mean() > 4  # 16 / 3 if they cover it
        assert (lengths > 7.99).float().mean() < 0.05


def test_clamping_keeps_the_direction():
    layer = build()
    with torch.no_grad():
        layer.P.fill_(30.0)
    layer.clamp_positions()
    assert_close(layer.P, torch.full_like(layer.P, 3 / 2**0.5))


def test_rounded_positions_are_whole_pixels():
    layer = build(integer_positions=True, orientations=8).eval()
    assert (layer.elements()[1] % 1 == 0).all()
    assert (fold(layer).weight != 0).sum((2, 3)).max() <= 4


def test_spacing_scales_the_turned_positions():
    layer = build('depthwise')
    plain = layer.elements()[1]
    layer.spacing = 2.0
    assert_close(layer.elements()[1], 2 * plain)
    x = torch.randn(1, 8, 12, 9, dtype=torch.float64)
    assert_close(layer(quarter_turn(x)), quarter_turn(layer(x)))


def test_autocast_and_half_precision():
    layer = build(dtype=torch.float32)
    x = torch.randn(1, 3, 12, 9)
    with torch.autocast('cpu', torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    assert_close(y.float(), layer(x), torch.bfloat16)
    halved = copy.deepcopy(layer).bfloat16()
    assert halved(x.bfloat16()).dtype == torch.bfloat16


def test_state_dict_tells_the_orientations():
    saved, loaded = build(), build()
    loaded.reset_parameters()
    loaded.load_state_dict(saved.state_dict())
    assert_close(loaded.kernel(), saved.kernel())
    state_dict = saved.state_dict()
    plain = dict(kernel_count=4, dilated_kernel_size=7)
    with pytest.raises(StateDictError, match='a RotatedDCLSConv2d with orientations=4'):
        build(out_channels=4, orientations=2).load_state_dict(state_dict)
    with pytest.raises(StateDictError, match='a RotatedDCLSConv2d with orientations=4'):
        DCLSConv2d(3, 2, **plain).load_state_dict(state_dict)
    with pytest.raises(StateDictError, match='build a DCLSConv2d'):
        saved.load_state_dict(DCLSConv2d(3, 2, **plain).state_dict())
    saved.load_state_dict(dict(DCLSConv2d(3, 2, **plain).state_dict()))  # no metadata


def test_an_empty_layer_gets_its_angles_with_its_initial_values():
    with torch.device('meta'):
        layer = build()
    layer.to_empty(device='cpu')
    layer.reset_parameters()
    torch.testing.assert_close(layer.turns, build().turns)


def test_in_a_backbone_and_in_another_model():
    backbone = ConvNeXtDCLS(
        dict(depths=[1, 1, 1, 1], dims=[8, 16, 24, 32]),
        depthwise_cfg=dict(
            type='RotatedDCLSConv2d', kernel_count=9, dilated_kernel_size=11
        ),
    )
    outputs = backbone(torch.randn(1, 3, 64, 64))
    assert [y.shape[1] for y in outputs] == [8, 16, 24, 32]
    layers = [m for m in backbone.modules() if isinstance(m, RotatedDCLSConv2d)]
    assert len(layers) == 4 and layers[0].weight.shape == (2, 1, 9)
    model = nn.Sequential(nn.Conv2d(3, 8, 5, padding=2), nn.ReLU())
    replace_convs(model, RotatedDCLSConv2d, start='fresh', dilated_kernel_size=9)
    assert isinstance(model[0], RotatedDCLSConv2d)
    assert model(torch.zeros(1, 3, 16, 16)).shape == (1, 8, 16, 16)


def test_one_orientation_is_a_plain_layer():
    layer = build(orientations=1, out_channels=4)
    layer.clamp_positions()
    plain = DCLSConv2d(
        *(3, 4), kernel_count=4, dilated_kernel_size=7, padding=3, dtype=torch.float64
    )
    plain.load_state_dict(dict(layer.state_dict()))
    assert_close(layer.kernel(), plain.kernel())
