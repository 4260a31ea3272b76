"""Every path of DCLS against the loops, on generated cases.

Outputs and the gradients of all inputs are compared, even where the profiles have
kinks: positions at whole and half pixels, at and beyond the border, sigma zero and
negative.
"""

from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from cases import cases, leaf, random
from conftest import TOLERANCE
from hypothesis import given, settings
from hypothesis import strategies as st

from dcls_mm import layers
from dcls_mm.functional import (
    INTERPOLATIONS,
    construct_kernel,
    convolve,
    sampled_convolution,
    sampling,
)
from dcls_mm.functional.reference import (
    reference_convolution,
    reference_kernel,
    reference_sampled_convolution,
    reference_transposed_convolution,
)
from dcls_mm.layers.published import published_axes

# Derandomised: every run has the same cases.
generated = settings(max_examples=150, deadline=None, derandomize=True, database=None)


def assert_same(actual, inputs, expected, expected_inputs):
    """Check that outputs and the gradients of all inputs are equal."""
    seed = torch.randn(expected.shape, dtype=torch.float64)
    assert_all_close(
        [actual, *gradients(actual, inputs, seed)],
        [expected, *gradients(expected, expected_inputs, seed)],
    )


def assert_all_close(actual, expected):
    """Check that outputs and gradients are equal up to rounding.

    Errors are relative to at least 1: a gradient may be a difference of larger terms
    that cancel, where a normalised element has a single tap.
    """
    assert actual[0].shape == expected[0].shape
    assert len(actual) == len(expected)
    for index, (one, other) in enumerate(zip(actual, expected)):
        what = 'the output' if index == 0 else f'the gradient of input {index - 1}'
        allowed = TOLERANCE[one.dtype] * max(1.0, other.abs().max().item())
        # As a tensor, shared positions have one more axis than as a parameter.
        error = (one.double().view_as(other) - other).abs()
        assert error.le(allowed).all(), f'{what}: {error} exceeds {allowed:.2g}'


def gradients(y, inputs, seed):
    inputs = [t for t in inputs if t is not None]
    if not y.requires_grad:
        # All that the loops would have summed is dropped or padding.
        return [torch.zeros_like(t) for t in inputs]
    grads = torch.autograd.grad(y, inputs, seed.to(y.dtype), allow_unused=True)
    return [torch.zeros_like(t) if g is None else g for g, t in zip(grads, inputs)]


def loops_kernel(weight, positions, sigma, extent, interpolation):
    """Return the reference kernel, for shared positions too."""
    positions, sigma = (
        None if t is None else t.expand(-1, *weight.shape) for t in (positions, sigma)
    )
    return reference_kernel(
        weight, positions, sigma, kernel_size=extent, interpolation=interpolation
    )


def loops_convolution(case, x, elements, bias):
    return reference_convolution(
        case.padded(x),
        loops_kernel(*elements, case.extent, case.interpolation),
        bias,
        stride=case.stride,
        padding=(0,) * case.ndim,
        groups=case.groups,
    )


def arguments_of(case):
    """Return x, (weight, positions, sigma) and bias of a convolution."""
    channels, out = case.channels
    x = random(2, channels, *case.size)
    return x, case.elements(out, case.group_in), case.bias()


@generated
@given(cases())
def test_construct_kernel(case):
    elements = case.elements(case.group_out, case.group_in)
    kernel = construct_kernel(
        *elements, kernel_size=case.extent, interpolation=case.interpolation
    )
    expected = loops_kernel(*elements, case.extent, case.interpolation)
    assert_same(kernel, elements, expected, elements)


@generated
@given(cases(interpolations=['bilinear', 'triangle']))
def test_construct_kernel_in_torch_func(case):
    """torch.func's transforms only understand torch's operators, not our scatter."""
    elements = case.elements(case.group_out, case.group_in)
    expected = loops_kernel(*elements, case.extent, case.interpolation)
    kernel, pull_back = torch.func.vjp(
        lambda *tensors: construct_kernel(
            *tensors, kernel_size=case.extent, interpolation=case.interpolation
        ),
        *[t.detach() for t in elements[:2]],
    )
    seed = torch.randn(expected.shape, dtype=torch.float64)
    assert_all_close(
        [kernel, *pull_back(seed)], [expected, *gradients(expected, elements, seed)]
    )


@generated
@given(cases())
def test_construct_and_convolve(case):
    x, elements, bias = arguments_of(case)
    kernel = construct_kernel(
        *elements, kernel_size=case.extent, interpolation=case.interpolation
    )
    y = convolve(x, kernel, bias, backend='native', **case.convolution)
    inputs = [x, *elements, bias]
    assert_same(y, inputs, loops_convolution(case, x, elements, bias), inputs)


def layer_of(case, kind='DCLSConv', **options):
    return getattr(layers, f'{kind}{case.ndim}d')(
        *case.channels,
        kernel_count=case.count,
        dilated_kernel_size=case.extent,
        stride=case.stride,
        groups=case.groups,
        bias=case.has_bias,
        interpolation=case.interpolation,
        dtype=torch.float64,
        **options,
    )


def load(layer, weight, positions, sigma, bias):
    """Give ``layer`` these values; return its parameters, to differentiate by."""
    parameters = [layer.weight, layer.P, layer.SIG, layer.bias]
    values = (weight, positions, sigma, bias)
    with torch.no_grad():
        for parameter, value in zip(parameters, values):
            if parameter is not None:
                parameter.copy_(value.view_as(parameter))
    return parameters


@generated
@given(cases(), st.sampled_from(['construct', 'sample']))
def test_layer(case, formulation):
    if formulation == 'sample':
        case = case._replace(interpolation='bilinear')
    x, (weight, positions, sigma), bias = arguments_of(case)
    layer = layer_of(
        case,
        padding=case.padding,
        padding_mode=case.padding_mode,
        per_output_positions=not case.shared,
        formulation=formulation,
    )
    parameters = load(layer, weight, positions, sigma, bias)
    expected = loops_convolution(case, x, (weight, positions, sigma), bias)
    inputs = [x, weight, positions, sigma, bias]
    assert_same(layer(x), [x, *parameters], expected, inputs)


@generated
@given(cases(interpolations=['bilinear']), st.sampled_from([1, 50, 2**20]))
def test_sampled_convolution(case, step_pixels):
    """It works in steps of one element, of several, or in a single step."""
    x, (weight, positions, _), bias = arguments_of(case)
    shared = positions.squeeze(1) if case.shared else positions
    options = dict(kernel_size=case.extent)
    with mock.patch.object(sampling, 'STEP_PIXELS', step_pixels):
        y = sampled_convolution(x, weight, shared, bias, **options, **case.convolution)
    expected = reference_sampled_convolution(
        case.padded(x),
        weight,
        shared,
        bias,
        stride=case.stride,
        padding=(0,) * case.ndim,
        groups=case.groups,
        **options,
    )
    inputs = [x, weight, positions, bias]
    assert_same(y, inputs, expected, inputs)


@generated
@given(cases(), st.data())
def test_transposed_layer(case, data):
    padding = case.padding if isinstance(case.padding, tuple) else (1,) * case.ndim
    # The output must have at least one pixel.
    size = tuple(
        max(n - k + 1, -((k - 2 * p - 1) // s) + 1, 1)
        for n, k, p, s in zip(case.size, case.extent, padding, case.stride)
    )
    more = tuple(data.draw(st.integers(0, step - 1)) for step in case.stride)
    case = case._replace(shared=False, size=size)
    channels, _ = case.channels
    x = random(2, channels, *case.size)
    elements, bias = case.elements(channels, case.group_out), case.bias()
    layer = layer_of(case, 'DCLSConvTranspose', padding=padding, output_padding=more)
    options = dict(
        stride=case.stride, padding=padding, output_padding=more, groups=case.groups
    )
    kernel = loops_kernel(*elements, case.extent, case.interpolation)
    expected = reference_transposed_convolution(x, kernel, bias, **options)
    inputs = [x, *load(layer, *elements, bias)]
    assert_same(layer(x), inputs, expected, [x, *elements, bias])


@generated
@given(
    cases(interpolations=['bilinear', 'triangle'], axes=(2, 3)),
    st.sampled_from(['construct', 'sample']),
    st.data(),
)
def test_dense_axes(case, formulation, data):
    """They equal elements with positions on all axes, fixed on taps in dense ones."""
    some = data.draw(st.integers(1, case.ndim - 1))
    learned = tuple(data.draw(st.permutations(range(case.ndim)))[:some])
    if formulation == 'sample':
        case = case._replace(interpolation='bilinear')
    case = case._replace(shared=False, count=min(case.count, 3))
    dense = [axis for axis in range(case.ndim) if axis not in learned]
    channels, out = case.channels
    kernels = (out, case.group_in, *(case.extent[axis] for axis in dense))
    x, bias = random(2, channels, *case.size), case.bias()
    weight, positions, _ = case.elements(*kernels)
    rows = leaf(positions[list(learned)])

    places = []
    for axis in range(case.ndim):
        if axis in learned:
            places.append(rows[learned.index(axis)])
            continue
        taps = torch.arange(case.extent[axis]) - case.extent[axis] // 2
        shape = [1] * weight.ndim
        shape[2 + dense.index(axis)] = -1
        places.append(taps.view(shape).expand_as(weight))
    elements = weight.flatten(2), torch.stack(places).flatten(3), None
    expected = loops_convolution(case, x, elements, bias)

    layer = layer_of(
        case,
        padding=case.padding,
        padding_mode=case.padding_mode,
        position_axes=learned,
        formulation=formulation,
    )
    inputs = [x, *load(layer, weight, rows, None, bias)]
    assert_same(layer(x), inputs, expected, [x, weight, rows, bias])


@pytest.mark.parametrize('ndim', [1, 2, 3])
@pytest.mark.parametrize('interpolation', INTERPOLATIONS)
@settings(generated, max_examples=15)
@given(data=st.data())
def test_published_package(ndim, interpolation, data):
    """On cubes of odd extent, its axes only have a different order."""
    modules = pytest.importorskip('DCLS.construct.modules')
    case = data.draw(cases([interpolation], [ndim]))
    size = data.draw(st.sampled_from([1, 3, 5]))
    case = case._replace(extent=(size,) * ndim, shared=False)
    elements = case.elements(case.group_out, case.group_in)
    options = dict(kernel_size=case.extent, interpolation=case.interpolation)
    kernel = construct_kernel(*elements, **options)
    version = {'bilinear': 'v0', 'triangle': 'v1'}.get(interpolation, interpolation)
    published = getattr(modules, f'ConstructKernel{ndim}d')(
        case.group_out, case.group_in, 1, case.count, case.extent, version
    )
    axes = list(published_axes(interpolation, ndim))
    weight, *placed = elements
    placed = [None if t is None else t[axes] for t in placed]
    expected = published(weight, *placed)
    assert_same(kernel, elements, expected, elements)


@generated
@given(st.data())
def test_cpu_depthwise(data):
    """The reference is torch's own convolution in float64."""
    draw = data.draw
    batch, channels = draw(st.integers(1, 2)), draw(st.integers(1, 4))
    extent = tuple(draw(st.integers(11, 17)) for _ in range(2))
    # The backend requires padding below the kernel size.
    padding = tuple(draw(st.integers(0, k - 1)) for k in extent)
    size = [
        max(1, k - 2 * p) + draw(st.integers(0, 9)) for k, p in zip(extent, padding)
    ]
    torch.manual_seed(draw(st.integers(0, 2**16)))
    shapes = (batch, channels, *size), (channels, 1, *extent), (channels,)
    inputs = [torch.randn(shape, requires_grad=True) for shape in shapes]
    doubles = [leaf(t.double()) for t in inputs]
    options = dict(padding=padding, groups=channels)
    y = convolve(*inputs, backend='cpu_depthwise', **options)
    assert_same(y, inputs, F.conv2d(*doubles, **options), doubles)
