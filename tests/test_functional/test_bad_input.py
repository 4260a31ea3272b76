"""Values that should not occur have defined effects, which don't spread."""

import math

import pytest
import torch
from conftest import assert_close
from torch import nn

from dcls_mm.conversion import without_extent
from dcls_mm.functional import (
    INTERPOLATIONS,
    construct_kernel,
    convolve,
    sampled_convolution,
)
from dcls_mm.layers import DCLSConv1d, DCLSConv2d, DCLSConv3d, DCLSConvTranspose2d

NOT_FINITE = [math.nan, math.inf, -math.inf]
WITH_SIGMA = [name for name, row in INTERPOLATIONS.items() if row.has_sigma]


def elements(interpolation, kernels=(3, 2), count=4):
    """Return weight, positions and sigma (or None), all requiring gradients."""
    positions = torch.rand(2, *kernels, count) * 4 - 2
    sigma = torch.rand_like(positions) if interpolation in WITH_SIGMA else None
    tensors = torch.randn(*kernels, count), positions, sigma
    return [None if t is None else t.requires_grad_() for t in tensors]


def spoil(tensor, bad, index):
    with torch.no_grad():
        tensor[index] = bad


def assert_nan_only_at(values, index):
    """Check that ``values[index]`` is NaN and everything else finite."""
    expected = torch.zeros_like(values, dtype=torch.bool)
    expected[index] = True
    assert torch.equal(values.isnan(), expected)
    assert values[~expected].isfinite().all()


@pytest.mark.parametrize('bad', NOT_FINITE)
@pytest.mark.parametrize('axis', [0, 1])
@pytest.mark.parametrize('interpolation', INTERPOLATIONS)
def test_a_kernel_is_nan_where_a_position_is_not_finite(interpolation, axis, bad):
    """All other kernels, and the gradients of their elements, stay finite."""
    inputs = elements(interpolation)
    spoil(inputs[1], bad, (axis, 1, 0, 2))
    check_one_nan_kernel(inputs, interpolation)


@pytest.mark.parametrize('bad', NOT_FINITE)
@pytest.mark.parametrize('axis', [0, 1])
@pytest.mark.parametrize('interpolation', WITH_SIGMA)
def test_a_kernel_is_nan_where_sigma_is_not_finite(interpolation, axis, bad):
    inputs = elements(interpolation)
    spoil(inputs[2], bad, (axis, 1, 0, 2))
    check_one_nan_kernel(inputs, interpolation)


def check_one_nan_kernel(inputs, interpolation):
    kernel = construct_kernel(*inputs, kernel_size=5, interpolation=interpolation)
    assert_nan_only_at(kernel, (1, 0))
    kernel.sum().backward()
    for tensor in inputs:
        if tensor is not None:
            others = tensor.grad.clone()
            others[..., 1, 0, :] = 0
            assert others.isfinite().all()


@pytest.mark.parametrize('bad', NOT_FINITE)
@pytest.mark.parametrize(
    ('extent', 'backend'),
    [(5, 'native'), (11, 'native'), (11, 'cpu_depthwise')],
)
def test_convolutions_keep_channels_apart(extent, backend, bad):
    weight, positions, _ = elements('bilinear', kernels=(20, 1))
    spoil(positions, bad, (0, 7, 0, 0))
    x = torch.randn(2, 20, 13, 13, requires_grad=True)
    kernel = construct_kernel(weight, positions, kernel_size=extent)
    y = convolve(x, kernel, padding=extent // 2, groups=20, backend=backend)
    assert_nan_only_at(y, (slice(None), 7))
    y.square().sum().backward()
    assert_nan_only_at(x.grad, (slice(None), 7))
    for tensor in (weight, positions):
        others = tensor.grad.clone()
        others[..., 7, 0, :] = 0
        assert others.isfinite().all()


@pytest.mark.parametrize('bad', NOT_FINITE)
@pytest.mark.parametrize('groups', [1, 2])
def test_sampled_convolution_is_nan_where_a_position_is_not_finite(groups, bad):
    """Only the outputs that use it are NaN: one of them, or all that share it."""
    x = torch.randn(2, 4, 9, 9, requires_grad=True)
    kernels = (4, 4 // groups)
    weight, positions, _ = elements('bilinear', kernels)
    options = dict(kernel_size=5, padding=2, groups=groups)
    spoil(positions, bad, (1, 1, 0, 2))
    y = sampled_convolution(x, weight, positions, **options)
    assert_nan_only_at(y, (slice(None), 1))
    y.sum().backward()
    assert weight.grad[[0, 2, 3]].isfinite().all()
    assert positions.grad[:, [0, 2, 3]].isfinite().all()
    group = slice(4 // groups)
    assert x.grad[:, 4 // groups :].isfinite().all()
    assert x.grad[:, group].isnan().any()

    y = sampled_convolution(x, weight, positions[:, 1], **options)
    assert y.isnan().all()


LAYERS = {
    'bilinear': (DCLSConv2d, dict()),
    'triangle': (DCLSConv2d, dict(interpolation='triangle')),
    'max': (DCLSConv2d, dict(interpolation='max')),
    'gauss': (DCLSConv2d, dict(interpolation='gauss')),
    'dense axis': (DCLSConv2d, dict(position_axes=(1,))),
    'large': (DCLSConv2d, dict(dilated_kernel_size=11, groups=4)),
    'sample': (DCLSConv2d, dict(formulation='sample')),
    'transposed': (DCLSConvTranspose2d, dict(groups=4)),
}


@pytest.fixture(params=LAYERS)
def layer(request):
    kind, options = LAYERS[request.param]
    return kind(4, 4, 3, padding=1, **options)


@pytest.mark.parametrize('bad', NOT_FINITE)
@pytest.mark.parametrize('training', [True, False])
def test_a_layer_is_nan_in_the_outputs_that_use_a_bad_value(layer, bad, training):
    x = torch.randn(1, 4, 8, 8)
    for parameter in (layer.P, layer.SIG):
        if parameter is None:
            continue
        good = parameter[0, 1].clone()
        spoil(parameter, bad, (0, 1, 0))
        with torch.set_grad_enabled(training):
            y = layer.train(training)(x)
        # A transposed kernel goes from input 1 to its own output only, here.
        assert y[:, [0, 2, 3]].isfinite().all()
        assert y[:, 1].isnan().all()
        spoil(parameter, good, (0, 1))


def test_an_input_of_integers_is_refused(layer):
    """torch's own convolution refuses it too, as outputs would need rounding."""
    with pytest.raises((RuntimeError, TypeError, ValueError), match='(?i)dtype|type'):
        layer(torch.ones(1, 4, 8, 8, dtype=torch.long))


def test_positions_shared_among_outputs_spoil_them_all():
    for formulation in ('construct', 'sample'):
        layer = DCLSConv2d(2, 4, 3, per_output_positions=False, formulation=formulation)
        spoil(layer.P, math.inf, (0, 1, 0))
        assert layer(torch.randn(1, 2, 8, 8)).isnan().all()


@pytest.mark.parametrize('interpolation', WITH_SIGMA)
def test_sigma_zero_is_the_narrowest_profile_and_stays(interpolation):
    weight, positions, sigma = elements(interpolation)
    sigma.data.zero_()
    options = dict(kernel_size=5, interpolation=interpolation)
    kernel = construct_kernel(weight, positions, sigma, **options)
    kernel.square().sum().backward()
    assert torch.equal(sigma.grad, torch.zeros_like(sigma))
    assert positions.grad.isfinite().all()

    spread = [
        construct_kernel(
            torch.ones(1, 1, 1), torch.full((2, 1, 1, 1), 0.3), s, **options
        )
        .square()
        .sum()
        for s in (torch.full((2, 1, 1, 1), width) for width in (0.0, 0.01, -0.01))
    ]
    assert spread[0] > spread[1] == spread[2]


def test_max_with_sigma_zero_is_triangle():
    weight, positions, sigma = elements('max')
    kernel = construct_kernel(
        weight, positions, 0 * sigma, kernel_size=5, interpolation='max'
    )
    expected = construct_kernel(
        weight, positions, kernel_size=5, interpolation='triangle'
    )
    assert_close(kernel, expected)


@pytest.mark.parametrize('interpolation', INTERPOLATIONS)
@pytest.mark.parametrize(
    ('beyond', 'bilinear', 'normalised'),
    # Pixels beyond the last tap, weight that remains in bilinear, and in the others.
    [(0.0, 1, 1), (0.25, 0.75, 1), (0.75, 0.25, 1), (40.0, 0, 0)],
)
def test_weight_beyond_the_border(interpolation, beyond, bilinear, normalised):
    place = torch.tensor([2 + beyond, 0.0]).view(2, 1, 1, 1)
    sigma = torch.zeros_like(place) if interpolation in WITH_SIGMA else None
    kernel = construct_kernel(
        torch.ones(1, 1, 1), place, sigma, kernel_size=5, interpolation=interpolation
    )
    left = bilinear if interpolation == 'bilinear' else normalised
    assert kernel.sum().item() == pytest.approx(left, rel=1e-3)
    assert kernel[0, 0].argmax() == (4 * 5 + 2 if left else 0)


def test_far_outside_a_layer_does_nothing_and_learns_nothing(layer):
    x = torch.randn(1, 4, 8, 8, requires_grad=True)
    with torch.no_grad():
        layer.P.fill_(60.0)
        layer.P[:, ::2] = -60.0
        layer.P[:, 0] = 1e30
    y = layer(x)
    assert torch.equal(y, layer.bias.view(-1, 1, 1).expand_as(y))
    y.square().sum().backward()
    assert layer.bias.grad.all()
    for tensor in (x, layer.weight, layer.P, layer.SIG):
        if tensor is not None:
            assert torch.equal(tensor.grad, torch.zeros_like(tensor))

    layer.clamp_positions()
    layer.zero_grad()
    layer(x).square().sum().backward()
    assert layer.weight.grad.all()


@pytest.mark.parametrize(
    ('layer', 'limits'),
    [
        (DCLSConv1d(1, 1, kernel_count=3, dilated_kernel_size=6), [(-3, 2)]),
        (
            DCLSConv2d(
                1, 1, kernel_count=3, dilated_kernel_size=(5, 8), position_axes=(1, 0)
            ),
            [(-4, 3), (-2, 2)],
        ),
        (
            DCLSConv3d(
                1, 1, kernel_count=3, dilated_kernel_size=(3, 5, 7), position_axes=(2,)
            ),
            [(-3, 3)],
        ),
        (
            DCLSConvTranspose2d(1, 1, kernel_count=3, dilated_kernel_size=(1, 4)),
            [(0, 0), (-2, 1)],
        ),
    ],
)
def test_clamped_positions(layer, limits):
    """Infinity moves to the border like any number; NaN stays visible."""
    for values in ([-60.0, 0.0, 60.0], [-math.inf, math.nan, math.inf]):
        with torch.no_grad():
            layer.P.copy_(torch.tensor(values))
        layer.clamp_positions()
        for row, (first, last) in zip(layer.P.flatten(1, -2), limits):
            wanted = torch.tensor([first, values[1], last]).expand_as(row)
            assert torch.equal(row.nan_to_num(9), wanted.nan_to_num(9))


def source(**changes):
    options = dict(kernel_size=3, padding=3, dilated_kernel_size=7)
    return nn.Sequential(DCLSConv2d(4, 4, **{**options, **changes}))


ROWS = dict(kernel_size=(5, 3), dilated_kernel_size=(5, 7))


@pytest.mark.parametrize('strict', [True, False])
@pytest.mark.parametrize(
    ('saved', 'loading', 'message'),
    [
        (
            dict(interpolation='gauss'),
            dict(),
            r"0\.SIG: the state_dict is of a layer with sigma.*this one is 'bilinear'",
        ),
        (
            dict(position_axes=(1, 0)),
            dict(),
            r'0\.P: .*stand for the spatial axes \(1, 0\), here for \(0, 1\)',
        ),
        (
            dict(position_axes=(1,), **ROWS),
            dict(position_axes=(0,), kernel_size=(3, 5), dilated_kernel_size=(7, 5)),
            r'0\.P: .*stand for the spatial axes \(1,\), here for \(0,\)',
        ),
        (
            dict(position_axes=(1,), **ROWS),
            dict(),
            r'0\.P: .*stand for the spatial axes \(1,\), here for \(0, 1\)',
        ),
        (
            dict(kernel_count=5),
            dict(),
            r'(?s)mismatch for 0\.weight.*mismatch for 0\.P',
        ),
        (
            dict(position_axes=(1,), **ROWS),
            dict(position_axes=(1,), kernel_size=3, dilated_kernel_size=(3, 7)),
            r'0\.P: .* of a layer of extent \(5, 7\), this one has \(3, 7\)',
        ),
        (dict(per_output_positions=False), dict(), r'mismatch for 0\.P'),
    ],
)
def test_a_state_dict_that_does_not_fit(saved, loading, message, strict):
    state = source(**saved).state_dict()
    with pytest.raises(RuntimeError, match=message):
        source(**loading).load_state_dict(state, strict=strict)


def test_a_state_dict_without_sigma():
    """Its notes tell; without notes, sigma is a missing key."""
    state = source().state_dict()
    layer = source(interpolation='gauss', position_axes=(0, 1))
    for strict in (True, False):
        with pytest.raises(RuntimeError, match="0.P: .*'bilinear', .* of 'gauss'"):
            layer.load_state_dict(state, strict=strict)
    state = dict(state)
    with pytest.raises(RuntimeError, match=r'Missing key.*"0\.SIG"'):
        layer.load_state_dict(state)
    assert layer.load_state_dict(state, strict=False).missing_keys == ['0.SIG']
    assert (layer[0].SIG == 0.23).all()


def test_positions_load_into_another_extent_on_purpose():
    """They are in pixels from the centre, so the kernel gains a margin."""
    small, large = source(), source(dilated_kernel_size=9)
    with pytest.raises(RuntimeError, match='extent.*without_extent'):
        large.load_state_dict(small.state_dict())
    large.load_state_dict(without_extent(small.state_dict()))
    assert_close(large[0].kernel()[..., 1:-1, 1:-1], small[0].kernel())


@pytest.mark.parametrize('strict', [True, False])
@pytest.mark.parametrize(
    ('ndim', 'interpolation', 'axes'),
    [
        (1, 'triangle', None),
        (1, 'gauss', None),
        (2, 'bilinear', None),
        (2, 'triangle', (1, 0)),
        (2, 'max', (1, 0)),
        (2, 'gauss', (1, 0)),
        (3, 'bilinear', (0, 2, 1)),
        (3, 'gauss', (2, 1, 0)),
    ],
)
def test_a_state_dict_of_the_published_package(ndim, interpolation, axes, strict):
    """It loads if its rows of P mean the same, or if the layer has the same axes."""
    modules = pytest.importorskip('DCLS.construct.modules')
    version = {'bilinear': 'v0', 'triangle': 'v1'}.get(interpolation, interpolation)
    published = getattr(modules, f'Dcls{ndim}d')(
        4, 6, 3, dilated_kernel_size=5, padding=2, version=version
    )
    options = dict(
        kernel_count=3, dilated_kernel_size=5, padding=2, interpolation=interpolation
    )
    kind = {1: DCLSConv1d, 2: DCLSConv2d, 3: DCLSConv3d}[ndim]
    state = published.state_dict()
    if axes is not None:
        message = r'(?s)P: .*\(.*{}\), here for .*dcls_mm\.conversion\.from_published'
        with pytest.raises(RuntimeError, match=message.format(str(axes)[1:-1])):
            kind(4, 6, **options).load_state_dict(state, strict=strict)
        options['position_axes'] = axes
    layer = kind(4, 6, **options)
    layer.load_state_dict(state, strict=strict)
    x = torch.randn(2, 4, *[7] * ndim)
    assert_close(layer(x), published(x), factor=5)
