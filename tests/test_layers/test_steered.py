"""Layers that turn their kernels with the image."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from conftest import assert_close
from test_rotated import BASE, INTERPOLATIONS, turn
from torch import nn

from dcls_mm import DCLSConv2d, SteeredDCLSConv2d, switch_to_deploy
from dcls_mm.functional.reference import reference_convolution, reference_kernel
from dcls_mm.layers import fold
from dcls_mm.layers.noted import StateDictError
from dcls_mm.visualization import depthwise_kernels

KINDS = {
    'dense': dict(in_channels=3, out_channels=6),
    'grouped': dict(in_channels=4, out_channels=8, groups=2, directions=2),
    'depthwise': dict(in_channels=8, out_channels=8, groups=8, directions=4),
}


def build(kind='dense', **options):
    torch.manual_seed(0)
    arguments = dict(
        kernel_count=4, dilated_kernel_size=7, padding=3, dtype=torch.float64
    )
    layer = SteeredDCLSConv2d(**{**arguments, **KINDS[kind], **options})
    nn.init.uniform_(layer.P, -3, 3)
    if layer.SIG is not None:
        nn.init.normal_(layer.SIG, mean=0.4)
    return layer


def images(layer, *size, batch=2):
    return torch.randn(batch, layer.in_channels, *size, dtype=layer.P.dtype)


@pytest.mark.parametrize('interpolation', INTERPOLATIONS)
@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('quarters', [1, 2, 3])
def test_quarter_turns_are_exact(kind, interpolation, quarters):
    layer = build(kind, interpolation=interpolation)
    x = images(layer, 12, 9)
    expected = torch.rot90(layer(x), quarters, dims=(2, 3))
    assert_close(layer(torch.rot90(x, quarters, dims=(2, 3))), expected)


def direction(layer, image, part):
    """The documented mean, pixel by pixel, of the inner pixels."""
    count = layer.directions
    u = torch.einsum('c,chw->hw', layer.mixtures[part], image)
    w = torch.einsum('c,chw->hw', layer.mixtures[count + part], image)
    total, of_u, of_w = torch.zeros(2, dtype=torch.float64), 0.0, 0.0
    height, width = u.shape
    for i in range(1, height - 1):
        for j in range(1, width - 1):
            slope = torch.stack([w[i + 1, j] - w[i - 1, j], w[i, j + 1] - w[i, j - 1]])
            total = total + u[i, j].relu() * slope
            of_u, of_w = of_u + u[i, j].relu() ** 2, of_w + (slope**2).sum()
    return total / (total.square().sum() + 1e-4 * of_u * of_w).sqrt()


@pytest.mark.parametrize('interpolation', INTERPOLATIONS)
@pytest.mark.parametrize('kind', ['grouped', 'depthwise'])
def test_against_loops(kind, interpolation):
    layer = build(kind, interpolation=interpolation)
    x = images(layer, 6, 5)
    y = layer(x)
    for image, output in zip(x, y):
        turns = [direction(layer, image, part) for part in range(layer.directions)]
        kernels = []
        for channel in range(layer.out_channels):
            c, s = turns[channel * layer.directions // layer.out_channels]
            rows, columns = layer.P[:, channel]
            lengths = (rows**2 + columns**2).sqrt()
            rows, columns = ((3 / lengths).clamp(max=1) * p for p in (rows, columns))
            places = torch.stack([c * rows - s * columns, s * rows + c * columns])
            sigma = None
            if layer.SIG is not None:
                base = BASE[interpolation]
                high, wide = (layer.SIG[:, channel].abs() + base) ** 2
                rest = (1 - c**2 - s**2) * (high + wide) / 2
                sigma = torch.stack(
                    [
                        c**2 * high + s**2 * wide + rest,
                        s**2 * high + c**2 * wide + rest,
                    ]
                ).sqrt()
                sigma = sigma - base
            kernels.append(
                reference_kernel(
                    layer.weight[channel],
                    places,
                    sigma,
                    kernel_size=(7, 7),
                    interpolation=interpolation,
                )
            )
        expected = reference_convolution(
            image[None],
            torch.stack(kernels),
            layer.bias,
            stride=(1, 1),
            padding=(3, 3),
            groups=layer.groups,
        )
        assert_close(output[None], expected, factor=1000)


def test_a_direction_turns_with_the_image():
    layer = build(directions=3)
    x = F.interpolate(images(layer, 8, 8), (64, 64), mode='bicubic')
    # Nothing at the border, which turns away.
    rows = torch.linspace(-1, 1, 64, dtype=torch.float64)
    x = x * (1 - rows[:, None] ** 2 - rows**2).clamp(min=0)
    for degrees in (30, 77, 180):
        c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        rows, columns = layer.image_directions(x)
        expected = torch.stack([c * rows - s * columns, s * rows + c * columns])
        found = layer.image_directions(turn(x, degrees))
        assert (found - expected).abs().max() < 0.05


def test_without_a_direction_the_elements_are_in_the_centre():
    layer = build(bias=False)
    x = torch.ones(1, 3, 9, 9, dtype=torch.float64)
    assert layer.image_directions(x).abs().max() == 0
    centre = layer.weight.sum(-1)[:, :, None, None]
    assert_close(layer(x), F.conv2d(x, centre))
    layer(x).sum().backward()
    assert all(p.grad.isfinite().all() for p in layer.parameters())


def test_each_image_has_its_own_kernel():
    layer = build('depthwise')
    x = images(layer, 12, 9, batch=3)
    y = layer(x)
    for image, output in zip(x, y):
        assert_close(layer(image), output)
    assert layer(x[:0]).shape == (0, 8, 12, 9)
    strided = build('grouped', stride=2)
    assert strided(images(strided, 12, 9)).shape == (2, 8, 6, 5)


def test_gradients_and_direct_formulation():
    grads = []
    for formulation in ('construct', 'auto'):
        layer = build('depthwise', formulation=formulation, dtype=torch.float32)
        x = images(layer, 20, 20).requires_grad_()
        layer(x).sin().sum().backward()
        grads.append([x.grad, *(p.grad for p in layer.parameters())])
    for one, other in zip(*grads):
        assert_close(one, other, factor=100)
    layer = build(interpolation='gauss', kernel_count=2)
    x = torch.randn(2, 3, 5, 5, dtype=torch.float64, requires_grad=True)
    parameters = dict(layer.named_parameters())
    assert list(parameters) == ['weight', 'P', 'SIG', 'mixtures', 'bias']

    def call(x, *values):
        return torch.func.functional_call(layer, dict(zip(parameters, values)), (x,))

    assert torch.autograd.gradcheck(call, (x, *parameters.values()))


def test_autocast():
    layer = build('depthwise', dtype=torch.float32)
    x = images(layer, 12, 9)
    with torch.autocast('cpu', torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    assert (y.float() - layer(x)).std() < 0.05 * layer(x).std()


def test_it_can_not_be_folded():
    layer = build().eval()
    with pytest.raises(NotImplementedError, match='turns its kernel with each image'):
        fold(layer)
    model = nn.Sequential(layer)
    before = copy.deepcopy(model)
    with pytest.raises(ValueError, match="0 can't be folded.*with each image"):
        switch_to_deploy(model)
    x = images(layer, 9, 9)
    assert_close(model(x), before(x))


def test_a_plain_layer_does_not_load_it():
    layer = build('depthwise')
    plain = DCLSConv2d(8, 8, kernel_count=4, dilated_kernel_size=7, groups=8)
    with pytest.raises(StateDictError, match='mixtures: .* build a SteeredDCLSConv2d'):
        plain.load_state_dict(layer.state_dict(), strict=False)


def test_pictures_of_kernels_leave_it_out():
    plain = DCLSConv2d(8, 8, kernel_count=4, dilated_kernel_size=7, groups=8)
    model = nn.Sequential(build('depthwise'), plain)
    assert list(depthwise_kernels(model)) == ['1']
