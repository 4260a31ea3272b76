"""The local branch: one convolution that computes the sum of two."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from conftest import assert_close
from torch import nn

from dcls_mm.functional import native_code
from dcls_mm.functional.reference import reference_kernel
from dcls_mm.layers import (
    DCLSConv1d,
    DCLSConv2d,
    DCLSConv3d,
    DCLSConvTranspose2d,
    switch_to_deploy,
)
from dcls_mm.layers.folding import fold

LAYERS = {1: DCLSConv1d, 2: DCLSConv2d, 3: DCLSConv3d}
CONVOLVE = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}

# Arguments of a layer with 4 channels along so many axes.
CASES = {
    'line': (1, dict(dilated_kernel_size=9, local_size=3, padding=4)),
    'plane': (2, dict(dilated_kernel_size=9, local_size=5, padding=4)),
    'space': (3, dict(dilated_kernel_size=5, local_size=3, padding=2)),
    'whole extent': (2, dict(dilated_kernel_size=5, local_size=5)),
    'one tap': (2, dict(dilated_kernel_size=3, padding=1, local_size=1)),
    'rectangles': (
        2,
        dict(dilated_kernel_size=(7, 5), local_size=(3, 5), padding=(3, 0)),
    ),
    'odd in even': (
        2,
        dict(dilated_kernel_size=8, local_size=(3, 5), padding='same'),
    ),
    'even in even': (1, dict(dilated_kernel_size=8, local_size=4)),
    'strides': (
        2,
        dict(dilated_kernel_size=7, padding=3, local_size=3, stride=(2, 3)),
    ),
    'reflected': (
        2,
        dict(dilated_kernel_size=7, padding=2, local_size=3, padding_mode='reflect'),
    ),
    'circular': (
        1,
        dict(dilated_kernel_size=7, padding=3, local_size=3, padding_mode='circular'),
    ),
    'dense rows': (
        2,
        dict(dilated_kernel_size=(2, 7), position_axes=(1,), local_size=3),
    ),
    'dense planes': (
        3,
        dict(dilated_kernel_size=(3, 2, 5), position_axes=(2, 0), local_size=(3, 1, 3)),
    ),
    'columns first': (
        2,
        dict(dilated_kernel_size=(7, 5), position_axes=(1, 0), local_size=3, padding=3),
    ),
}


def build(case, dtype=torch.float64, **options):
    ndim, arguments = CASES[case]
    torch.manual_seed(1)
    layer = LAYERS[ndim](4, 8, kernel_count=3, dtype=dtype, **arguments, **options)
    nn.init.normal_(layer.P, std=2)  # some lie outside
    return layer


def image(layer):
    return torch.randn(2, 4, *(9, 11, 10)[: layer.ndim], dtype=layer.weight.dtype)


def element_kernel(layer):
    """Construct the kernel of the elements by the loops of the reference."""
    weight, positions, sigma = layer.elements()
    positions = positions.expand(-1, *weight.shape)
    sigma = None if sigma is None else sigma.expand_as(positions)
    axes = sorted(layer.position_axes)
    kernel = reference_kernel(
        weight,
        positions,
        sigma,
        kernel_size=[layer.extent[axis] for axis in axes],
        interpolation=layer.interpolation,
    )
    dense = [axis for axis in range(layer.ndim) if axis not in axes]
    kernel = kernel.to(weight.dtype)
    made = [2 + (dense + axes).index(axis) for axis in range(layer.ndim)]
    return kernel.permute(0, 1, *made)


def padded(layer, x):
    """Return ``x`` padded for a kernel of the layer's extent, by torch."""
    padding = layer.padding
    if padding == 'same':
        sides = [((n - 1) // 2, n // 2) for n in layer.extent]
    else:
        sides = [(n, n) for n in padding]
    mode = 'constant' if layer.padding_mode == 'zeros' else layer.padding_mode
    return F.pad(x, [n for pair in reversed(sides) for n in pair], mode)


def two_convolutions(layer, x):
    """Return the outputs of the elements and of the local branch, each by torch."""
    x = padded(layer, x)
    convolve, options = CONVOLVE[layer.ndim], dict(stride=layer.stride)
    options['groups'] = layer.groups
    # What is before the local kernel's first tap, and behind its last, it never sees.
    seen = x
    for axis, (size, extent) in enumerate(zip(layer.local_size, layer.extent)):
        first = extent // 2 - size // 2
        length = x.shape[2 + axis] - extent + size
        seen = seen.narrow(2 + axis, first, length)
    return (
        convolve(x, element_kernel(layer), **options),
        convolve(seen, layer.local_weight, **options),
    )


def gradients(layer, x, y, direction):
    learned = [p for p in layer.parameters() if p.requires_grad]
    return torch.autograd.grad((y * direction).sum(), [x, *learned], retain_graph=True)


@pytest.mark.parametrize('groups', [1, 4])
@pytest.mark.parametrize('case', CASES)
def test_one_convolution_computes_the_sum_of_two(case, groups):
    layer = build(case, groups=groups)
    x = image(layer).requires_grad_()
    expected = sum(two_convolutions(layer, x))
    expected = expected + layer.bias.view(-1, *(1,) * layer.ndim)
    y = layer(x)
    assert_close(y, expected)
    direction = torch.randn_like(y)
    for got, wanted in zip(
        gradients(layer, x, y, direction), gradients(layer, x, expected, direction)
    ):
        assert_close(got, wanted)
    with torch.no_grad():
        assert_close(layer.eval()(x), expected)


@pytest.mark.parametrize('shared', [False, True])
@pytest.mark.parametrize('interpolation', ['bilinear', 'triangle', 'max', 'gauss'])
def test_any_interpolation(interpolation, shared):
    layer = build('line', interpolation=interpolation, per_output_positions=not shared)
    x = image(layer).requires_grad_()
    expected = sum(two_convolutions(layer, x)) + layer.bias[:, None]
    y = layer(x)
    assert_close(y, expected)
    direction = torch.randn_like(y)
    for got, wanted in zip(
        gradients(layer, x, y, direction), gradients(layer, x, expected, direction)
    ):
        assert_close(got, wanted)


def results(layer, x, formulation):
    layer.formulation = formulation
    x = x.clone().requires_grad_()
    y = layer(x)
    direction = torch.arange(y.numel()).view_as(y) % 7 - 1
    return y, *gradients(layer, x, y, direction)


@pytest.mark.parametrize('case', ['plane', 'rectangles', 'odd in even', 'dense rows'])
@pytest.mark.parametrize('groups', [1, 4])
def test_sampling_gives_the_same(case, groups):
    layer = build(case, groups=groups)
    x = image(layer)
    for got, wanted in zip(results(layer, x, 'sample'), results(layer, x, 'construct')):
        assert_close(got, wanted)


@pytest.mark.skipif(
    native_code.missing() is not None, reason=str(native_code.missing())
)
@pytest.mark.parametrize('interpolation', ['bilinear', 'triangle'])
@pytest.mark.parametrize('shared', [False, True])
@pytest.mark.parametrize(
    'case', ['line', 'plane', 'rectangles', 'whole extent', 'odd in even', 'dense rows']
)
def test_the_direct_convolution_gives_the_same(case, interpolation, shared):
    layer = build(
        case,
        torch.float32,
        groups=4,
        interpolation=interpolation,
        per_output_positions=not shared,
    )
    x = image(layer)
    expected = results(layer, x, 'construct')
    for formulation in ('direct', 'auto'):
        for got, wanted in zip(results(layer, x, formulation), expected):
            assert_close(got, wanted)
    layer.eval()
    with torch.no_grad():
        assert_close(layer(x), expected[0])


def test_a_transposed_layer_has_one_too():
    torch.manual_seed(1)
    layer = DCLSConvTranspose2d(
        4, 6, 4, 2, 1, groups=2, dilated_kernel_size=8, local_size=4
    ).double()
    nn.init.normal_(layer.P, std=2)
    x = torch.randn(2, 4, 5, 6, dtype=torch.float64)
    far = F.conv_transpose2d(x, element_kernel(layer), layer.bias, 2, 3, groups=2)
    near = F.conv_transpose2d(x, layer.local_weight, None, 2, 1, groups=2)
    assert_close(layer(x), far + near)


def test_values_at_the_start():
    layer = DCLSConv2d(16, 32, 7, groups=4, dilated_kernel_size=17, local_size=5)
    bound = 1 / math.sqrt(4 * 25)
    assert 0.95 * bound < layer.local_weight.abs().max() <= bound
    assert [name for name, _ in layer.named_parameters()] == [
        *('weight', 'P', 'local_weight', 'bias')
    ]


@pytest.mark.parametrize('form', ['dense', 'sparse'])
@pytest.mark.parametrize('case', ['plane', 'odd in even', 'line', 'reflected'])
def test_it_folds_into_one_convolution(case, form):
    layer = build(case, torch.float32 if form == 'sparse' else torch.float64, groups=4)
    layer.eval()
    x = image(layer)
    model = nn.Sequential(copy.deepcopy(layer))
    (folded,) = switch_to_deploy(model, form=form)
    assert folded.form == form
    assert 'local' not in ' '.join(model.state_dict())
    expected = sum(two_convolutions(layer, x))
    expected = expected + layer.bias.view(-1, *(1,) * layer.ndim)
    with torch.no_grad():
        assert_close(model(x), expected)


def test_rounding_the_elements_leaves_it_as_it_is():
    layer = build('plane', groups=4)
    rounded = fold(layer, round_positions=True).weight
    layer.round_positions()
    assert_close(rounded, element_kernel(layer) + F.pad(layer.local_weight, [2] * 4))
