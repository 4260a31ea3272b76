"""Layers whose positions are multiplied where they are used."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from conftest import assert_close
from torch import nn

from dcls_mm import DCLSConv1d, DCLSConv2d, DCLSConv3d, DCLSConvTranspose2d
from dcls_mm.backbones import ConvNeXtDCLS
from dcls_mm.functional.reference import (
    reference_convolution,
    reference_kernel,
    reference_transposed_convolution,
)
from dcls_mm.layers import fold, switch_to_deploy

KINDS = {1: DCLSConv1d, 2: DCLSConv2d, 3: DCLSConv3d}

# What 'max' and 'gauss' add to |sigma|, by the papers' formulas.
BASE = {'max': 1.0, 'gauss': 0.27}


def build(ndim=2, kind=None, std=1.5, **options):
    torch.manual_seed(0)
    arguments = dict(
        kernel_count=3, dilated_kernel_size=5, padding=2, groups=2, dtype=torch.float64
    )
    layer = (kind or KINDS[ndim])(2, 2, **{**arguments, **options})
    nn.init.normal_(layer.P, std=std)
    layer.clamp_positions()
    if layer.SIG is not None:
        nn.init.normal_(layer.SIG, mean=0.4)
    return layer


def taps_needed(size, factor):
    """Count taps as the documentation says: the same more on both sides."""
    more = -size
    for tap in (-(size // 2), size - 1 - size // 2):
        more = max(more, math.ceil(abs(tap) * factor) - abs(tap))
    return size + 2 * more


def expected_kernel(layer, factors, extent=None):
    """The loops' kernel at scaled positions, for layers that learn along all axes."""
    rows = [factors[axis] for axis in layer.position_axes]
    order = sorted(range(len(rows)), key=lambda i: layer.position_axes[i])
    scaled = torch.stack([p * f for p, f in zip(layer.P, rows)])[order]
    sigma = None
    if layer.SIG is not None:
        base = BASE[layer.interpolation]
        wide = [f * (base + s.abs()) - base for s, f in zip(layer.SIG, rows)]
        sigma = torch.stack(wide)[order].clamp(min=0)
    weight = layer.weight
    if not layer.per_output_positions:
        scaled = scaled.unsqueeze(1).expand(-1, *weight.shape)
        sigma = sigma if sigma is None else sigma.unsqueeze(1).expand_as(scaled)
    if layer.integer_positions and not layer.training:
        scaled = scaled.round()
    extent = extent or [taps_needed(*pair) for pair in zip(layer.extent, factors)]
    return reference_kernel(
        weight,
        scaled,
        sigma,
        kernel_size=tuple(extent),
        interpolation=layer.interpolation,
    )


@pytest.mark.parametrize('interpolation', ['bilinear', 'triangle', 'max', 'gauss'])
@pytest.mark.parametrize(
    'spacing, options',
    [
        (2.0, {}),
        (0.6, {}),
        ((1.5, 0.5), {}),
        (1.7, dict(per_output_positions=False)),
        ((2.0, 1.0), dict(position_axes=(1, 0))),
        (1.5, dict(integer_positions=True)),
        ((0.5, 2.0), dict(dilated_kernel_size=(4, 6), padding='same')),
        (2, dict(ndim=1)),
        (0.5, dict(ndim=3, dilated_kernel_size=3, padding=1)),
    ],
)
def test_kernel_and_gradients_are_the_loops(interpolation, spacing, options):
    layer = build(interpolation=interpolation, spacing=spacing, **options).eval()
    factors = spacing if isinstance(spacing, tuple) else (spacing,) * layer.ndim
    assert layer.spacing == factors
    kernels = layer.kernel(), expected_kernel(layer, factors)
    assert_close(kernels[0], kernels[1])
    learned = [p for p in (layer.weight, layer.P, layer.SIG) if p is not None]
    cotangent = torch.randn_like(kernels[0])
    found, expected = (
        torch.autograd.grad(kernel, learned, cotangent, allow_unused=True)
        for kernel in kernels
    )
    for one, other in zip(found, expected):
        if one is not None or other is not None:
            assert_close(one, torch.zeros_like(one) if other is None else other)


@pytest.mark.parametrize('formulation', ['auto', 'construct', 'direct', 'sample'])
@pytest.mark.parametrize('padding', [2, (3, 1), 0, 'same', 'valid'])
@pytest.mark.parametrize('spacing', [2.0, 0.5, (1.0, 1.5)])
def test_outputs_are_the_loops_and_keep_their_size(formulation, padding, spacing):
    layer = build(formulation=formulation, padding=padding).float()
    x = torch.randn(1, 2, 9, 8)
    size = layer(x).shape
    layer.spacing = spacing
    kernel = expected_kernel(layer, layer.spacing, extent=(9, 9))
    given = {'same': (2, 2), 'valid': (0, 0), 2: (2, 2), 0: (0, 0)}.get(padding)
    sides = [n + 2 for n in given or padding]
    expected = reference_convolution(
        x, kernel, layer.bias, stride=(1, 1), padding=sides, groups=2
    )
    assert layer(x).shape == size == expected.shape
    assert_close(layer(x), expected.float(), factor=10)
    with torch.no_grad():
        assert_close(layer.eval()(x), expected.float(), factor=10)


@pytest.mark.parametrize('spacing', [2.0, 0.5])
@pytest.mark.parametrize('padding', [0, 1])
def test_transposed(spacing, padding):
    layer = build(kind=DCLSConvTranspose2d, padding=padding, stride=2, spacing=spacing)
    x = torch.randn(1, 2, 4, 3, dtype=torch.float64)
    kernel = expected_kernel(layer, layer.spacing, extent=(9, 9))
    expected = reference_transposed_convolution(
        x,
        kernel,
        layer.bias,
        stride=(2, 2),
        padding=(padding + 2,) * 2,
        output_padding=(0, 0),
        groups=2,
    )
    assert_close(layer(x), expected)
    assert_close(layer(x, output_size=expected.shape[2:]), expected)


def test_dense_axes_keep_their_taps():
    options = dict(
        kernel_size=(3, 5), padding=(1, 2), position_axes=(1,), kernel_count=None
    )
    layer = build(spacing=2.0, **options)
    assert layer.spacing == (1.0, 2.0) and layer.kernel_extent == (3, 9)
    twin = build(dilated_kernel_size=(3, 9), **{**options, 'padding': (1, 2)})
    with torch.no_grad():
        twin.weight.copy_(layer.weight)
        twin.P.copy_(2 * layer.P)
    assert_close(layer.kernel(), twin.kernel())


@pytest.mark.parametrize('size', [1, 2, 4, 5])
@pytest.mark.parametrize('factor', [0.3, 0.5, 1.0, 1.2, 2.0, 3.3])
def test_no_element_in_the_extent_loses_a_tap(size, factor):
    layer = build(1, kernel_count=size, dilated_kernel_size=size, padding='same')
    layer.spacing = factor
    with torch.no_grad():
        first, last = layer.position_limits(0)
        layer.P.copy_(torch.arange(first, last + 1))
        assert_close(layer.kernel().sum(-1), layer.weight.sum(-1))
    assert layer.kernel_extent == (taps_needed(size, factor),)


def test_one_is_as_before():
    plain, spaced = build(), build(spacing=1)
    x = torch.randn(1, 2, 9, 8, dtype=torch.float64)
    assert spaced.kernel_extent == spaced.extent
    assert torch.equal(spaced(x), plain(x))
    assert repr(spaced) == repr(plain) and 'spacing' not in repr(plain)
    assert 'spacing=(2.0, 2.0)' in repr(build(spacing=2))
    spaced.spacing = 2.0
    assert not torch.equal(spaced(x), plain(x))
    spaced.spacing = 1.0
    assert torch.equal(spaced(x), plain(x))


def test_a_kept_kernel_is_made_anew():
    layer = build().eval()
    x = torch.randn(1, 2, 9, 8, dtype=torch.float64)
    with torch.no_grad():
        before = layer(x)
        layer.spacing = 2.0
        after = layer(x)
        assert not torch.equal(before, after)
        assert torch.equal(copy.deepcopy(layer)(x), after)


def test_checkpoints_do_not_depend_on_it():
    plain, spaced = build(), build(spacing=2.0)
    with torch.no_grad():
        plain.P.add_(0.25)
    saved = plain.state_dict()
    assert spaced.notes() == plain.notes() and spaced.extent == (5, 5)
    spaced.load_state_dict(saved)
    assert torch.equal(spaced.P, plain.P) and spaced.spacing == (2.0, 2.0)
    plain.load_state_dict(spaced.state_dict())
    spaced.share_positions(plain)
    assert not torch.equal(
        spaced.kernel().sum(0), F.pad(plain.kernel(), [2] * 4).sum(0)
    )


@pytest.mark.parametrize('spacing', [2.0, 0.5])
@pytest.mark.parametrize('form', ['dense', 'sparse'])
def test_folds(form, spacing):
    layer = build(spacing=spacing).float()
    x = torch.randn(1, 2, 9, 8)
    folded = fold(layer, form=form)
    assert_close(folded(x), layer(x), factor=10)
    layer.integer_positions = True
    assert_close(fold(layer, round_positions=True)(x), layer.eval()(x), factor=10)


def test_exports():
    layer = build(spacing=2.0).float().eval()
    x = torch.randn(1, 2, 9, 8)
    with torch.no_grad():
        program = torch.export.export(layer, (x,))
        assert_close(program.module()(x), layer(x), factor=10)


@pytest.mark.parametrize('interpolation', ['bilinear', 'triangle', 'max', 'gauss'])
def test_an_enlarged_image_gives_the_enlarged_output(interpolation):
    """Of a smooth image, away from the border."""
    y, x = torch.meshgrid(torch.arange(48.0), torch.arange(48.0), indexing='ij')
    image = ((x + 0.3 * y) / 3).sin() + ((y - 0.2 * x) / 4).cos()
    image = image.expand(1, 2, -1, -1)
    options = dict(dilated_kernel_size=9, padding=4, std=3)
    layer = build(interpolation=interpolation, **options).float()

    def enlarged(images):
        return F.interpolate(images, scale_factor=2, mode='bicubic')

    def error():
        inside = (layer(enlarged(image)) - expected)[..., 24:-24, 24:-24]
        return inside.norm() / expected[..., 24:-24, 24:-24].norm()

    expected = enlarged(layer(image))
    before = error()
    layer.spacing = 2.0
    assert error() < 0.1 * before, (error(), before)


def test_a_backbone_takes_it_by_config():
    arguments = dict(type='DCLSConv2d', kernel_count=5, dilated_kernel_size=9)
    plain, spaced = (
        ConvNeXtDCLS(
            arch=dict(depths=[1, 1, 1, 1], dims=[4, 4, 4, 4]),
            depthwise_cfg=dict(arguments, **more),
        )
        for more in ({}, {'spacing': 2.0})
    )
    spaced.load_state_dict(plain.state_dict())
    images = torch.randn(1, 3, 64, 64)
    for one, other in zip(plain(images), spaced(images), strict=True):
        assert one.shape == other.shape
    folded = switch_to_deploy(spaced)
    assert {one.taps for one in folded} == {4 * 17 * 17}
