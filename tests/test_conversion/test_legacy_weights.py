"""From LegacyDcls2d to DCLSConv2d and back."""

import pytest
import torch
from conftest import assert_close
from torch import nn

from dcls_mm.conversion import from_legacy, to_legacy
from dcls_mm.layers import DCLSConv2d
from dcls_mm.layers.dropin import LegacyDcls2d

SHAPE = dict(kernel_size=(3, 2), dilation=(3, 5))
GAIN = dict(gain=2.0, dilation=(3, 5))


def legacy_layer(formulation='construct', std=None):
    """Build a layer with its initial positions, or some so far that they clamp."""
    layer = LegacyDcls2d(4, 6, **SHAPE, groups=2, gain=2.0, formulation=formulation)
    if std is not None:
        nn.init.normal_(layer.P, std=std)
    return layer


def successor(formulation='construct'):
    return DCLSConv2d(
        4,
        6,
        **SHAPE,
        groups=2,
        formulation=formulation,
        per_output_positions=formulation == 'construct',
    )


@pytest.mark.parametrize('formulation', ['construct', 'sample'])
@pytest.mark.parametrize('std', [None, 1.0])
def test_computes_what_the_legacy_layer_did(formulation, std):
    layer = legacy_layer(formulation, std).double()
    state_dict = layer.state_dict()
    before = {key: value.clone() for key, value in state_dict.items()}
    converted = from_legacy(state_dict, **GAIN, formulation=formulation)
    ours = successor(formulation).double()
    ours.load_state_dict(converted)
    x = torch.randn(2, 4, 12, 11, dtype=torch.float64)
    assert_close(ours(x), layer(x))
    assert all(torch.equal(state_dict[key], value) for key, value in before.items())
    assert 'position_axes' not in state_dict._metadata['']


@pytest.mark.parametrize('formulation', ['construct', 'sample'])
def test_round_trips(formulation):
    """Positions inside return up to rounding; clamped ones keep the function."""
    arguments = dict(**GAIN, formulation=formulation)
    layer = legacy_layer(formulation, 0.02).double()
    with torch.no_grad():  # move the first and the last tap of an axis inwards
        layer.P.abs_()
        layer.P[0, ..., -1, :].neg_()
        layer.P[1, ..., -1].neg_()
    state_dict = layer.state_dict()
    converted = from_legacy(state_dict, **arguments)
    assert converted._metadata[''] == {
        'version': 1,
        'position_axes': (0, 1),
        'interpolation': 'bilinear',
        'extent': layer.extent,
    }
    back = to_legacy(converted, kernel_size=(3, 2), **arguments)
    assert list(back) == list(state_dict)
    assert back._metadata == state_dict._metadata
    for key, value in state_dict.items():
        assert_close(back[key], value)

    clamped = from_legacy(legacy_layer(formulation, 1.0).state_dict(), **arguments)
    again = from_legacy(
        to_legacy(clamped, kernel_size=(3, 2), **arguments), **arguments
    )
    for key, value in clamped.items():
        assert_close(again[key], value)


def test_several_layers_under_a_prefix():
    model = nn.Sequential(legacy_layer(), nn.BatchNorm2d(6), legacy_layer())
    state_dict = model.state_dict()
    converted = from_legacy(state_dict, **GAIN, prefix='2.')
    assert converted['0.P'] is state_dict['0.P']
    assert converted['2.P'].shape == (2, 6, 2, 6)
    assert converted['2.weight'].shape == (6, 2, 6)
    assert converted._metadata['1'] == {'version': 2}
    successor().load_state_dict(
        {key[2:]: value for key, value in converted.items() if key.startswith('2.')}
    )


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(gain=-1.0), 'gain must be a positive number, got -1.0'),
        (dict(dilation=0), 'dilation must be at least 1'),
        (dict(formulation='im2col'), "formulation must be .*got 'im2col'"),
        (dict(formulation='sample'), r"P must .*\(2, 2, 3, 2\) in .*'sample'"),
        (dict(prefix='backbone.'), "no layer with P and weight .*'backbone.'"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        from_legacy(legacy_layer().state_dict(), **{**GAIN, **arguments})


def test_other_state_dicts_are_refused():
    own = successor().state_dict()
    with pytest.raises(ValueError, match='P is of a layer of dcls_mm already'):
        from_legacy(own, **GAIN)
    with pytest.raises(
        ValueError, match=r'weight must .*\(out, in // groups, kh, kw\)'
    ):
        from_legacy(dict(own), **GAIN)
    with pytest.raises(ValueError, match=r'weight must .*\(out, in // groups, count\)'):
        to_legacy(legacy_layer().state_dict(), kernel_size=(3, 2), **GAIN)
    with pytest.raises(ValueError, match=r'kernel_size \(3, 3\) has 9 elements, .* 6'):
        to_legacy(own, kernel_size=3, **GAIN)
    columns_first = DCLSConv2d(4, 6, **SHAPE, position_axes=(1, 0)).state_dict()
    with pytest.raises(ValueError, match=r'P must stand for the axes \(0, 1\)'):
        to_legacy(columns_first, kernel_size=(3, 2), **GAIN)
    own['P'][0].fill_(3.01)
    with pytest.raises(ValueError, match='P has positions beyond the extent'):
        to_legacy(own, kernel_size=(3, 2), **GAIN)
