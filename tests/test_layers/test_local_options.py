"""A local branch in a layer with a spacing, and in one whose sizes change."""

import copy

import pytest
import torch
import torch.nn.functional as F
from conftest import assert_close
from local_cases import CASES, CONVOLVE, LAYERS, build

from dcls_mm.functional import native_code
from dcls_mm.functional.reference import reference_kernel
from dcls_mm.layers import fold
from dcls_mm.layers.resizing import outermost_taps, resize_extent

NATIVE = pytest.param(
    'direct',
    marks=pytest.mark.skipif(
        native_code.missing() is not None, reason=str(native_code.missing())
    ),
)
SPACED = ['line', 'plane', 'rectangles', 'odd in even', 'dense rows', 'columns first']


def local_kernel(layer):
    """The loops' kernel of the local taps, moved apart: each is a bilinear element."""
    taps = [torch.arange(-(n // 2), n - n // 2) for n in layer.local_size]
    places = torch.cartesian_prod(*taps).view(-1, layer.ndim).T.to(layer.P)
    places *= torch.tensor(layer.spacing, dtype=places.dtype)[:, None]
    if layer.integer_positions and not layer.training:
        places = places.round()
    weight = layer.local_weight.flatten(2)
    places = places[:, None, None].expand(-1, *weight.shape)
    return reference_kernel(
        weight,
        places,
        kernel_size=layer.kernel_extent,
        interpolation='bilinear',
    )


@pytest.mark.parametrize('formulation', ['construct', NATIVE, 'sample'])
@pytest.mark.parametrize('spacing', [2.0, 1.5, 0.6])
@pytest.mark.parametrize('case', SPACED)
def test_spacing_moves_the_local_taps_too(case, spacing, formulation):
    layer = spaced(case, spacing, formulation)
    elements = copy.deepcopy(layer)
    with torch.no_grad():
        elements.local_weight.zero_()
    assert_close(layer.kernel() - elements.kernel(), local_kernel(layer), factor=10)
    x = torch.randn(2, 2, *(12,) * layer.ndim, dtype=layer.P.dtype)
    with torch.no_grad():
        plain = fold(layer)
    y = layer(x)
    assert_close(y, plain(x), factor=10)
    assert y.shape == spaced(case, 1.0, formulation)(x).shape
    y.sum().backward()
    assert layer.local_weight.grad.abs().sum() > 0


def spaced(case, spacing, formulation):
    """A layer of a case, in float32 and depthwise where 'direct' needs it."""
    layer = build(case, formulation='construct')
    if formulation == 'direct':
        ndim, arguments = CASES[case]
        layer = LAYERS[ndim](2, 2, groups=2, kernel_count=3, **arguments)
        torch.nn.init.normal_(layer.P, std=2)
    layer.formulation = formulation
    layer.spacing = spacing
    return layer


def test_spacing_with_norms_and_rounded_positions():
    layer = build('plane', branch_norms=True, integer_positions=True, spacing=1.5)
    x = torch.randn(4, 2, 12, 12, dtype=torch.float64)
    for formulation in ('construct', 'sample'):
        layer.formulation = formulation
        layer.train()
        near = F.conv2d(x, local_kernel(layer), padding=layer.kernel_padding)
        with torch.no_grad():
            far = F.conv2d(x, layer._element_kernel(), padding=layer.kernel_padding)
        norms = layer.branch_norms
        expected = norms['elements'](far) + norms['local'](near)
        assert_close(layer(x), expected + layer.bias.view(-1, 1, 1), factor=10)
        layer.eval()
        near, far = local_kernel(layer), layer._element_kernel()
        scale = [
            (norm.weight / (norm.running_var + norm.eps).sqrt()).view(-1, 1, 1, 1)
            for norm in (norms['elements'], norms['local'])
        ]
        assert_close(layer.kernel(), far * scale[0] + near * scale[1], factor=10)


@pytest.mark.parametrize('case', ['line', 'plane', 'space'])
def test_the_extent_keeps_room_for_the_local_branch(case):
    layer = build(case)
    with torch.no_grad():
        layer.P.zero_()
    size = layer.local_size[0]
    side = (-(size // 2), size // 2)
    assert outermost_taps(layer) == [side] * layer.ndim
    x = torch.randn(1, 2, *(11,) * layer.ndim, dtype=torch.float64)
    before = layer(x)
    for extent in (layer.extent[0] + 4, size):
        resize_extent(layer, extent)
        assert_close(layer(x), before)
        padding = layer.padding
        whole = CONVOLVE[layer.ndim](x, layer.kernel(), layer.bias, padding=padding)
        assert_close(whole, before)
    with pytest.raises(ValueError, match='extent 1 along axis 0 is too small'):
        resize_extent(layer, 1)


def test_sizes_stay_while_there_is_a_spacing():
    layer = build('plane', spacing=2.0)
    with pytest.raises(ValueError, match=r'its spacing is \(2.0, 2.0\)'):
        resize_extent(layer, 11)


def test_what_was_adapted_loads_with_a_spacing():
    layer = build('plane')
    resize_extent(layer, 13)
    other = build('plane', spacing=2.0)
    other.load_state_dict(layer.state_dict())
    assert other.extent == (13, 13) and other.kernel_extent == (25, 25)
