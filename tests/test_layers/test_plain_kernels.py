"""Layers that start from the kernel of a plain convolution, computed or loaded."""

import copy
import warnings

import numpy as np
import pytest
import torch
from conftest import assert_close
from mmengine.runner.checkpoint import load_state_dict
from torch import nn

from dcls_mm.functional.reference import reference_kernel
from dcls_mm.layers import (
    DCLSConv1d,
    DCLSConv2d,
    DCLSConv3d,
    DCLSConvTranspose1d,
    DCLSConvTranspose2d,
    DCLSConvTranspose3d,
    dropin,
)
from dcls_mm.layers.noted import StateDictError

LAYERS = {
    nn.Conv1d: DCLSConv1d,
    nn.Conv2d: DCLSConv2d,
    nn.Conv3d: DCLSConv3d,
    nn.ConvTranspose1d: DCLSConvTranspose1d,
    nn.ConvTranspose2d: DCLSConvTranspose2d,
    nn.ConvTranspose3d: DCLSConvTranspose3d,
}

# Interpolations whose elements stay on one tap, and those that spread.
EXACT = [('bilinear', None), ('triangle', None), ('max', None), ('max', 0.0)]
SPREAD = [('max', 0.3), ('gauss', 0.0), ('gauss', None), ('gauss', 0.4)]

EXTENT_6 = dict(dilated_kernel_size=(5, 6))


def in_extent(weight, extent, dilation):
    """Return a plain kernel in the middle of a larger extent of zeros."""
    kernel = weight.new_zeros(*weight.shape[:2], *extent)
    spans = [step * (n - 1) + 1 for n, step in zip(weight.shape[2:], dilation)]
    firsts = [size // 2 - span // 2 for size, span in zip(extent, spans)]
    places = tuple(
        slice(first, first + span, step)
        for first, span, step in zip(firsts, spans, dilation)
    )
    kernel[(slice(None), slice(None), *places)] = weight
    return kernel


def least_squares(layer, wanted):
    """Fit the weights of a layer without dense axes by numpy; return them and the rest.

    The kernel of each element comes from the loops of the reference.
    """
    count = layer.kernel_count
    rows = [list(layer.position_axes).index(axis) for axis in range(layer.ndim)]
    positions = layer.P[rows][:, :1, :1]
    sigma = layer.SIG[rows][:, :1, :1]
    columns = [
        reference_kernel(
            torch.ones(1, 1, 1, dtype=torch.float64),
            positions[..., i : i + 1].double(),
            sigma[..., i : i + 1].double(),
            kernel_size=layer.extent,
            interpolation=layer.interpolation,
        ).numpy(force=True)
        for i in range(count)
    ]
    matrix = np.stack(columns).reshape(count, -1).T
    targets = wanted.double().numpy(force=True).reshape(-1, matrix.shape[0]).T
    weights = np.linalg.lstsq(matrix, targets, rcond=None)[0]
    rest = np.linalg.norm(matrix @ weights - targets) / np.linalg.norm(targets)
    return weights.T.reshape(*wanted.shape[:2], count), rest


@pytest.mark.parametrize(('interpolation', 'sigma'), SPREAD)
@pytest.mark.parametrize(
    ('kind', 'arguments', 'options'),
    [
        (nn.Conv1d, dict(kernel_size=5, groups=2), dict(dilated_kernel_size=9)),
        (nn.Conv2d, dict(kernel_size=3, groups=4), dict(dilated_kernel_size=7)),
        (nn.Conv2d, dict(kernel_size=3), dict(position_axes=(1, 0))),
        (nn.Conv2d, dict(kernel_size=(3, 5)), dict(dilated_kernel_size=(5, 7))),
        (nn.Conv2d, dict(kernel_size=3, dilation=2), dict(dilated_kernel_size=7)),
        (nn.Conv2d, dict(kernel_size=1), dict(dilated_kernel_size=5, kernel_count=9)),
        (nn.Conv2d, dict(kernel_size=(1, 2)), dict(kernel_count=12, **EXTENT_6)),
        (nn.Conv3d, dict(kernel_size=2), dict(dilated_kernel_size=4)),
        (nn.ConvTranspose2d, dict(kernel_size=4, stride=2), {}),
    ],
)
def test_spread_elements_are_the_least_squares_fit(
    kind, arguments, options, interpolation, sigma
):
    conv = kind(4, 8, **arguments).double()
    layer = LAYERS[kind].from_conv(
        conv, interpolation=interpolation, initial_sigma=sigma, **options
    )
    wanted = in_extent(conv.weight, layer.extent, conv.dilation)
    weights, rest = least_squares(layer, wanted)
    np.testing.assert_allclose(layer.weight.numpy(force=True), weights, atol=1e-9)
    assert layer.kernel_error == pytest.approx(rest, rel=1e-6, abs=1e-9)
    made = (layer.kernel() - wanted).norm() / wanted.norm()
    assert layer.kernel_error == pytest.approx(made.item(), rel=1e-6, abs=1e-9)
    assert f'kernel_error={layer.kernel_error:.2g}' in repr(layer)


def test_spread_elements_along_dense_axes_too():
    conv = nn.Conv3d(2, 4, (3, 2, 5)).double()
    options = dict(position_axes=(2,), interpolation='gauss')
    layer = DCLSConv3d.from_conv(conv, dilated_kernel_size=9, **options)
    wanted = in_extent(conv.weight, layer.extent, conv.dilation)
    # Each dense tap is a convolution of its own along the last axis.
    alone = nn.Conv1d(2 * 6, 4, 5).double()
    with torch.no_grad():
        alone.weight.copy_(conv.weight.permute(0, 1, 2, 3, 4).reshape(4, 12, 5))
    line = DCLSConv1d.from_conv(alone, dilated_kernel_size=9, interpolation='gauss')
    assert_close(layer.weight.reshape(4, 12, 5), line.weight)
    error = (layer.kernel() - wanted).norm() / wanted.norm()
    assert layer.kernel_error == pytest.approx(error.item())


def test_narrower_elements_fit_better():
    conv = nn.Conv2d(8, 8, 7, groups=8)
    errors = [
        DCLSConv2d.from_conv(
            conv, interpolation='gauss', initial_sigma=sigma, dilated_kernel_size=17
        ).kernel_error
        for sigma in (0.0, 0.05, 0.23)
    ]
    assert errors == sorted(errors)
    assert errors[0] < 0.002 and errors[1] < 0.01 and errors[2] < 0.15


def test_wide_elements_get_no_huge_weights():
    conv = nn.Conv2d(8, 8, 7, groups=8)
    layer = DCLSConv2d.from_conv(
        conv, interpolation='gauss', initial_sigma=3.0, dilated_kernel_size=17
    )
    assert layer.weight.abs().max() < 200 * conv.weight.abs().max()
    assert 0.5 < layer.kernel_error < 1


@pytest.mark.parametrize('position_axes', [(0, 1), (1, 0), (1,)])
@pytest.mark.parametrize('rings', [1, 2])
@pytest.mark.parametrize('interpolation', ['bilinear', 'triangle', 'max', 'gauss'])
def test_elements_for_rings_around_the_kernel(interpolation, rings, position_axes):
    conv = nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=4).double()
    arguments = dict(groups=4, dilated_kernel_size=(13, 13))
    if len(position_axes) == 1:
        conv = nn.Conv2d(4, 4, (3, 5), padding=(1, 2), groups=4).double()
        arguments['dilated_kernel_size'] = (3, 13)
    size = [
        n + 2 * rings * (i in position_axes) for i, n in enumerate(conv.kernel_size)
    ]
    options = dict(
        kernel_count=int(np.prod([size[axis] for axis in position_axes])),
        dilated_kernel_size=arguments['dilated_kernel_size'],
        position_axes=position_axes,
        interpolation=interpolation,
    )
    layer = DCLSConv2d.from_conv(conv, **options)
    wanted = in_extent(conv.weight, layer.extent, conv.dilation)
    error = (layer.kernel() - wanted).norm() / wanted.norm()
    assert layer.kernel_error == pytest.approx(error.item(), rel=1e-6, abs=1e-12)
    if interpolation == 'gauss':
        del options['kernel_count']
        alone = DCLSConv2d.from_conv(conv, **options)
        assert layer.kernel_error <= alone.kernel_error
        options['kernel_count'] = layer.kernel_count
    else:
        assert layer.kernel_error == 0
        assert (layer.weight == 0).sum() >= layer.weight.numel() - conv.weight.numel()
    places = {tuple(p) for p in layer.P.flatten(1).T.tolist()}
    assert len(places) == layer.kernel_count  # each has a place of its own
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        other = DCLSConv2d.from_conv(
            nn.Conv2d(
                4,
                4,
                conv.kernel_size,
                **{'padding': conv.padding, 'dilation': conv.dilation, 'groups': 4},
            ).double(),
            **options,
        )
        other.load_state_dict(conv.state_dict())
    assert_close(other.kernel(), layer.kernel())


def test_a_kernel_of_zeros_is_exact():
    conv = nn.Conv2d(4, 4, 3, groups=4)
    nn.init.zeros_(conv.weight)
    layer = DCLSConv2d.from_conv(conv, interpolation='gauss')
    assert layer.kernel_error == 0 and not layer.kernel().any()


def loaded(layer, conv, how):
    state_dict = conv.state_dict()
    if how == 'mmengine':
        load_state_dict(layer, state_dict, strict=True)
    elif how == 'without metadata':
        layer.load_state_dict(dict(state_dict))
    else:
        layer.load_state_dict(state_dict, assign=how == 'assigned')
    return layer


@pytest.mark.parametrize('how', ['torch', 'mmengine', 'without metadata', 'assigned'])
@pytest.mark.parametrize(('interpolation', 'sigma'), EXACT + SPREAD)
@pytest.mark.parametrize('kind', list(LAYERS))
def test_a_plain_kernel_is_loaded_as_from_conv_takes_it(
    kind, interpolation, sigma, how
):
    conv = kind(4, 8, 3, padding=1, dilation=2, groups=2)
    options = dict(
        dilated_kernel_size=9, interpolation=interpolation, initial_sigma=sigma
    )
    if interpolation in ('bilinear', 'triangle'):
        del options['initial_sigma']
    layer = LAYERS[kind](4, 8, 3, padding=1, dilation=2, groups=2, **options)
    if layer.SIG is not None:
        nn.init.normal_(layer.SIG)  # learned, and replaced by what it starts from
    expected = LAYERS[kind].from_conv(conv, **options)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        loaded(layer, conv, how)
    for key, value in expected.state_dict().items():
        torch.testing.assert_close(layer.state_dict()[key], value, rtol=0, atol=0)
    assert layer.kernel_error == expected.kernel_error
    said = [str(w.message) for w in caught if 'relative error' in str(w.message)]
    assert len(said) == bool(expected.kernel_error)
    if not expected.kernel_error:
        x = torch.randn(2, 4, *(12, 13, 11)[: layer.ndim])
        assert_close(layer(x), conv(x), factor=5)
    layer.load_state_dict(expected.state_dict())
    assert layer.kernel_error == 0


def test_a_count_alone_says_that_the_kernel_is_not_dilated():
    conv = nn.Conv2d(4, 4, 7, padding=3, groups=4)
    layer = DCLSConv2d(
        4, 4, padding=8, groups=4, kernel_count=49, dilated_kernel_size=17
    )
    layer.load_state_dict(conv.state_dict())
    x = torch.randn(1, 4, 20, 20)
    assert_close(layer(x), conv(x))


def test_plain_and_learned_layers_of_one_model():
    def model(*layers):
        return nn.Sequential(*layers, nn.BatchNorm2d(4))

    plain = nn.Conv2d(4, 4, 3, padding=1, bias=False)
    learned = DCLSConv2d(4, 4, 3, padding=1, dilated_kernel_size=5, bias=False)
    source = model(plain, learned)
    target = model(copy.deepcopy(learned), copy.deepcopy(learned))
    target[1].reset_parameters()
    state_dict = source.state_dict()
    keys = list(state_dict)
    target.load_state_dict(state_dict)
    assert list(state_dict) == keys  # the caller's is left as it was
    x = torch.randn(2, 4, 9, 9)
    assert_close(target.eval()(x), source.eval()(x))


def test_layers_that_share_positions_load_plain_kernels():
    plain = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3))
    layers = nn.Sequential(
        *(DCLSConv2d(4, 4, 3, dilated_kernel_size=5) for _ in range(2))
    )
    layers[1].share_positions(layers[0])
    layers.load_state_dict(plain.state_dict())
    assert layers[1].P is layers[0].P
    for layer, conv in zip(layers, plain):
        assert_close(layer.kernel(), in_extent(conv.weight, (5, 5), (1, 1)))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_kernels_of_other_dtypes(dtype):
    conv = nn.Conv2d(4, 4, 3).to(dtype)
    for interpolation in ('bilinear', 'gauss'):
        layer = DCLSConv2d(4, 4, 3, interpolation=interpolation)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            layer.load_state_dict(conv.state_dict())
        expected = DCLSConv2d.from_conv(conv.float(), interpolation=interpolation)
        assert layer.weight.dtype == layer.P.dtype == torch.float32
        assert_close(layer.weight, expected.weight)


def test_other_state_dicts_are_refused_as_before():
    layer = DCLSConv2d(4, 4, kernel_count=9, dilated_kernel_size=7)
    with pytest.raises(
        StateDictError, match='3x5 kernel of a plain .*_count 15 .* got 9'
    ):
        layer.load_state_dict(nn.Conv2d(4, 4, (3, 5)).state_dict())
    with pytest.raises(StateDictError, match='axis 0 has 7 for 9'):
        DCLSConv2d(4, 4, 9, dilated_kernel_size=7, padding=1).load_state_dict(
            nn.Conv2d(4, 4, 9).state_dict()
        )
    with pytest.raises(RuntimeError, match='size mismatch for weight'):
        layer.load_state_dict(nn.Conv2d(6, 4, 3).state_dict())
    # A DCLS layer's own weight without its positions is no plain kernel.
    line = DCLSConv1d(4, 4, 3)
    state_dict = line.state_dict()
    del state_dict['P']
    with pytest.raises(RuntimeError, match=r'Missing key.*"P"'):
        line.load_state_dict(state_dict)
    published = dropin.Dcls2d(4, 4, kernel_count=9, dilated_kernel_size=7)
    with pytest.raises(RuntimeError, match='size mismatch for weight'):
        published.load_state_dict(nn.Conv2d(4, 4, 3).state_dict())
