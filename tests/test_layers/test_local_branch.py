"""The local branch: one convolution that computes the sum of two."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from conftest import assert_close
from local_cases import (
    CASES,
    build,
    element_kernel,
    gradients,
    image,
    results,
    two_convolutions,
)
from torch import nn

from dcls_mm.functional import native_code
from dcls_mm.layers import DCLSConv2d, DCLSConvTranspose2d, switch_to_deploy
from dcls_mm.layers.folding import fold


@pytest.mark.parametrize('groups', [1, 2])
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


@pytest.mark.parametrize('case', ['plane', 'rectangles', 'odd in even', 'dense rows'])
@pytest.mark.parametrize('groups', [1, 2])
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
        groups=2,
        interpolation=interpolation,
        per_output_positions=not shared,
    )
    x = image(layer)
    expected = results(layer, x, 'construct')
    for formulation in ('direct', 'auto'):
        for got, wanted in zip(results(layer, x, formulation), expected):
            assert_close(got, wanted, factor=10)
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
    layer = build(case, torch.float32 if form == 'sparse' else torch.float64, groups=2)
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
    layer = build('plane', groups=2)
    rounded = fold(layer, round_positions=True).weight
    layer.round_positions()
    assert_close(rounded, element_kernel(layer) + F.pad(layer.local_weight, [2] * 4))
