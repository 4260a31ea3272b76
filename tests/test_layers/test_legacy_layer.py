"""LegacyDcls2d, against torch's dilated convolution and against loops."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from conftest import assert_close
from torch import nn

from dcls_mm.layers.dropin import LegacyDcls2d

FORMULATIONS = ['construct', 'sample']


def within(place, last):
    """Clamp with a gradient on the border, which torch 2.15's own clamp lacks."""
    return place if 0 <= place <= last else place.detach().clamp(0, last)


def kernel_by_loops(weight, places, dilation, gain):
    """Add one element at a time; ``places`` is P, expanded to all outputs."""
    out, group_in, *size = weight.shape
    extent = [d * (k - 1) + 1 for d, k in zip(dilation, size)]
    kernel = torch.zeros(out, group_in, *extent, dtype=weight.dtype)
    for o, c, *tap in itertools.product(*map(range, weight.shape)):
        at = [
            within(tap[a] * dilation[a] + gain * places[(a, o, c, *tap)], extent[a] - 1)
            for a in (0, 1)
        ]
        first = [int(place.floor()) for place in at]
        part = [place - place.detach().floor() for place in at]
        for step in itertools.product((0, 1), (0, 1)):
            where = [f + s for f, s in zip(first, step)]
            if all(w < e for w, e in zip(where, extent)):
                share = [p if s else 1 - p for p, s in zip(part, step)]
                spot = torch.zeros_like(kernel)
                spot[(o, c, *where)] = 1
                kernel = kernel + weight[(o, c, *tap)] * share[0] * share[1] * spot
    return kernel


@pytest.mark.parametrize('formulation', FORMULATIONS)
@pytest.mark.parametrize(
    'arguments',
    [
        dict(kernel_size=3, dilation=4, stride=2, gain=10),
        dict(kernel_size=(3, 5), padding=(2, 4), dilation=(3, 2), groups=2),
        dict(kernel_size=3, dilation=2, padding=2, padding_mode='circular', bias=False),
        dict(kernel_size=(1, 4)),
    ],
)
def test_is_the_dilated_convolution_where_p_is_zero(arguments, formulation):
    layer = LegacyDcls2d(4, 6, **arguments, formulation=formulation)
    nn.init.zeros_(layer.P)
    conv = nn.Conv2d(4, 6, **{k: v for k, v in arguments.items() if k != 'gain'})
    with torch.no_grad():
        conv.weight.copy_(layer.weight)
        if conv.bias is not None:
            conv.bias.copy_(layer.bias)
    x = torch.randn(2, 4, 20, 17)
    assert_close(layer(x), conv(x), factor=5)


@pytest.mark.parametrize('pixels', [0, 2.5])
@pytest.mark.parametrize('formulation', FORMULATIONS)
@pytest.mark.parametrize('groups', [1, 2])
def test_equals_the_loops(groups, formulation, pixels):
    """Positions move by some pixels, some beyond the extent, or not at all."""
    layer = LegacyDcls2d(
        4,
        2,
        (3, 2),
        padding=1,
        dilation=(3, 2),
        groups=groups,
        gain=0.5,
        formulation=formulation,
    ).double()
    outputs = 2 if formulation == 'construct' else 1
    scale = 0.5 * math.sqrt(3 * 2 * (4 // groups) * outputs)
    nn.init.normal_(layer.P, std=pixels / scale)

    x = torch.randn(2, 4, 8, 6, dtype=torch.float64, requires_grad=True)
    inputs = [x, layer.weight, layer.P, layer.bias]
    places = layer.P if formulation == 'construct' else layer.P.unsqueeze(1)
    places = places.expand(2, *layer.weight.shape)
    kernel = kernel_by_loops(layer.weight, places, (3, 2), scale)
    expected = F.conv2d(x, kernel, layer.bias, padding=1, groups=groups)
    y = layer(x)
    assert_close(y, expected)
    assert_close(layer.kernel(), kernel)
    seed = torch.randn_like(y)
    grads = torch.autograd.grad(y, inputs, seed)
    for grad, expected_grad in zip(grads, torch.autograd.grad(expected, inputs, seed)):
        assert_close(grad, expected_grad)

    taps = torch.tensor([0.0, 3, 6]).double()[:, None].expand(3, 2)
    rows = taps + layer.P[0] * scale
    beyond = (rows < 0) | (rows > 6)
    assert beyond.any() == (pixels > 0)
    assert not grads[2][0][beyond].any()
    assert grads[2][0][~beyond].all()


def test_parameters_and_first_values():
    layer = LegacyDcls2d(64, 32, (3, 5), dilation=(4, 1), groups=2, gain=2.0)
    assert layer.weight.shape == (32, 32, 3, 5)
    assert layer.P.shape == (2, 32, 32, 3, 5)
    pixels = layer.P * 2.0 * math.sqrt(32 * 32 * 3 * 5)
    assert pixels[0].std().item() == pytest.approx(2.0, rel=0.05)
    assert pixels[1].std().item() == pytest.approx(0.5, rel=0.05)
    bound = 1 / math.sqrt(32 * 3 * 5)
    assert 0.95 * bound < layer.weight.abs().max() <= bound
    assert layer.bias.abs().max() <= bound
    shared = LegacyDcls2d(64, 32, (3, 5), groups=2, formulation='sample')
    assert shared.P.shape == (2, 32, 3, 5)
    assert set(shared.state_dict()) == {'weight', 'P', 'bias'}


def test_repr_tells_the_arguments():
    layer = LegacyDcls2d(2, 4, 3, dilation=4, gain=10, formulation='sample')
    assert repr(layer) == (
        'LegacyDcls2d(2, 4, kernel_size=(3, 3), stride=(1, 1), dilation=(4, 4), '
        "gain=10, formulation='sample')"
    )


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(gain=0), 'gain must be a positive number, got 0'),
        (dict(gain=float('nan')), 'gain must be finite, got nan'),
        (dict(formulation='im2col'), r"formulation must be one of .*got 'im2col'"),
        (dict(kernel_size=(3, 3, 3)), 'kernel_size must be one integer or 2'),
        (dict(dilation=0), 'dilation must be at least 1, got 0'),
        (dict(groups=3), 'groups must divide in_channels'),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        LegacyDcls2d(4, 4, **{'kernel_size': 3, **arguments})
