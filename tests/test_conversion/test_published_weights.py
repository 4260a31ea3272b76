"""Converted layers compute what the published ones did, and convert back unchanged."""

import math

import pytest
import torch
from conftest import assert_close
from torch import nn

from dcls_mm.conversion import from_published, to_published
from dcls_mm.layers import DCLSConv1d, DCLSConv2d, DCLSConv3d, dropin

published = pytest.importorskip('DCLS.construct.modules')

LAYERS = {1: DCLSConv1d, 2: DCLSConv2d, 3: DCLSConv3d}
VERSIONS = ['v0', 'v1', 'max', 'gauss']


def published_layer(extent, version):
    """Build a layer with positions in steps of 1/8, so that whole shifts are exact."""
    name = f'Dcls{len(extent)}d'
    layer = getattr(published, name)(
        4, 6, 5, groups=2, padding=1, dilated_kernel_size=extent, version=version
    )
    return with_positions(layer)


def with_positions(layer):
    with torch.no_grad():
        layer.P.copy_(torch.randint(-40, 41, layer.P.shape) / 8 + 1 / 16)
        if layer.SIG is not None:
            nn.init.normal_(layer.SIG)
    return layer


def assert_same_state(actual, expected):
    """Check values and metadata."""
    assert set(actual) == set(expected)
    for key, value in expected.items():
        assert torch.equal(actual[key], value), key
    assert actual._metadata == expected._metadata


@pytest.mark.parametrize('version', VERSIONS)
@pytest.mark.parametrize(
    'extent', [(7,), (5, 5), (4, 9), (10, 3), (4, 4, 4), (3, 5, 8), (6, 8, 3)]
)
def test_computes_what_the_published_layer_did(extent, version):
    layer = published_layer(extent, version)
    state_dict = layer.state_dict()
    arguments = dict(version=version, dilated_kernel_size=extent)
    converted = from_published(state_dict, **arguments)
    ours = LAYERS[len(extent)](
        4,
        6,
        groups=2,
        padding=1,
        kernel_count=5,
        dilated_kernel_size=extent,
        interpolation=version,
    )
    ours.load_state_dict(converted)
    x = torch.randn(2, 4, *(11, 10, 9)[: len(extent)], dtype=torch.float64)
    assert_close(ours.double()(x), layer.double()(x))
    assert_same_state(to_published(converted, **arguments), state_dict)
    own = to_published(ours.float().state_dict(), **arguments)
    assert all(torch.equal(own[key], value) for key, value in state_dict.items())


@pytest.mark.parametrize('version', ['v1', 'max', 'gauss'])
def test_positions_along_the_last_axis(version):
    layer = published.Dcls3_1d(
        4, 2, 3, dense_kernel_size=(2, 3), dilated_kernel_size=6, version=version
    )
    state_dict = with_positions(layer).state_dict()
    converted = from_published(state_dict, version=version)
    ours = DCLSConv3d(
        4,
        2,
        kernel_count=3,
        dilated_kernel_size=(2, 3, 6),
        interpolation=version,
        position_axes=(2,),
    )
    ours.load_state_dict(converted)
    dropin.Dcls3_1d(
        4, 2, 3, dense_kernel_size=(2, 3), dilated_kernel_size=6, version=version
    ).load_state_dict(converted)
    x = torch.randn(2, 4, 4, 5, 8, dtype=torch.float64)
    assert_close(ours.double()(x), layer.double()(x))
    assert_same_state(to_published(converted, version=version), state_dict)


@pytest.mark.parametrize('flat_dim', [0, 1])
def test_flat_kernels_stay_as_they_are(flat_dim):
    arguments = dict(dilated_kernel_size=7, version='max', flat_dim=flat_dim)
    state_dict = with_positions(published.Dcls2dK1d(4, 6, 3, **arguments)).state_dict()
    converted = from_published(state_dict, version='max')
    assert_same_state(converted, state_dict)
    assert_same_state(to_published(converted, version='max'), state_dict)
    dropin.Dcls2dK1d(4, 6, 3, **arguments).load_state_dict(converted)


def test_gauss_width_of_the_published_2_1d():
    """It is |SIG| + 1.0, worked by hand; ours has |SIG| + 0.27."""
    layer = dropin.Dcls2_1d(1, 1, 1, dilated_kernel_size=5)
    state_dict = layer.state_dict()
    del state_dict._metadata['']['position_axes']
    state_dict['weight'].fill_(1.0)
    state_dict['P'].fill_(0.5)
    state_dict['SIG'].fill_(-0.2)
    converted = from_published(state_dict, version='gauss')
    layer.load_state_dict(converted)
    taps = [math.exp(-(((i - 0.5) / 1.2) ** 2) / 2) for i in (-2, -1, 0, 1, 2)]
    assert_close(
        layer.kernel(), torch.tensor(taps)[None, None, None] / sum(taps), factor=5
    )
    back = to_published(converted, version='gauss')
    assert_close(back['SIG'], torch.full_like(back['SIG'], 0.2), factor=5)
    converted['SIG'].fill_(0.5)
    with pytest.raises(ValueError, match='SIG must be at least 0.73 pixels'):
        to_published(converted, version='gauss')


def published_model():
    model = nn.Sequential(
        nn.Sequential(published_layer((5, 5), 'v1'), nn.BatchNorm2d(6)),
        nn.Sequential(published_layer((5, 5), 'v1'), nn.BatchNorm2d(6)),
    )
    model[1][0].P = model[0][0].P
    return model


def test_whole_models_and_prefixes():
    """Every layer is converted, even with a shared P; the rest and the input stay."""
    state_dict = published_model().state_dict()
    before = {key: value.clone() for key, value in state_dict.items()}
    converted = from_published(state_dict, version='v1', dilated_kernel_size=5)
    for key, value in state_dict.items():
        assert torch.equal(value, before[key]), key
        expected = value.flip(0) if key in ('0.0.P', '1.0.P') else value
        assert torch.equal(converted[key], expected), key
    axes = {k: v['position_axes'] for k, v in converted._metadata.items() if len(v) > 1}
    assert axes == {'0.0': (0, 1), '1.0': (0, 1)}
    assert converted._metadata['0.1'] == state_dict._metadata['0.1'] == {'version': 2}
    assert state_dict._metadata['0.0'] == {'version': 1}

    second = from_published(
        state_dict, version='v1', dilated_kernel_size=5, prefix='1.'
    )
    assert second['0.0.P'] is state_dict['0.0.P']
    assert torch.equal(second['1.0.P'], state_dict['1.0.P'].flip(0))


def test_without_metadata_the_function_name_tells():
    plain = dict(published_layer((5, 5), 'v1').state_dict())
    arguments = dict(version='v1', dilated_kernel_size=5)
    converted = from_published(plain, **arguments)
    assert converted._metadata['']['position_axes'] == (0, 1)
    back = to_published(dict(converted), **arguments)
    assert torch.equal(back['P'], plain['P'])
    with pytest.raises(RuntimeError, match=r'axes \(1, 0\), here for \(0, 1\)'):
        DCLSConv2d(
            4, 6, groups=2, kernel_count=5, dilated_kernel_size=5, interpolation='v1'
        ).load_state_dict(back)


@pytest.mark.parametrize('extent', [(5, 5), (4, 9)])
def test_drop_in_layers_become_published_ones(extent):
    """Their rows are in the published order already, as their metadata say."""
    arguments = dict(groups=2, dilated_kernel_size=extent, version='gauss')
    layer = with_positions(dropin.Dcls2d(4, 6, 5, **arguments))
    theirs = published.Dcls2d(4, 6, 5, **arguments)
    theirs.load_state_dict(
        to_published(layer.state_dict(), version='gauss', dilated_kernel_size=extent)
    )
    x = torch.randn(1, 4, 10, 11, dtype=torch.float64)
    assert_close(theirs.double()(x), layer.double()(x))


def changed(extent=(5, 5), version='gauss', **changes):
    """Return a published layer's state_dict with changed or removed (None) values."""
    state_dict = published_layer(extent, version).state_dict()
    for key, value in changes.items():
        state_dict.pop(key, None)
        if value is not None:
            state_dict[key] = value
    return state_dict


def mixed_model(version):
    return nn.Sequential(
        published_layer((5, 5), version), published_layer((4, 4, 4), version)
    ).state_dict()


GAUSS = dict(version='gauss', dilated_kernel_size=5)


@pytest.mark.parametrize('convert', [from_published, to_published])
@pytest.mark.parametrize(
    ('state_dict', 'arguments', 'message'),
    [
        (lambda: changed(), dict(GAUSS, version='v2'), "version must be .* got 'v2'"),
        (lambda: changed(), dict(GAUSS, version='v1'), 'has SIG, .*version can.t be'),
        (lambda: changed(SIG=None), GAUSS, 'lacks SIG, .*version can.t be .gauss'),
        (lambda: changed(SIG=torch.ones(2, 6, 2, 4)), GAUSS, 'SIG must be shaped like'),
        (
            lambda: changed(P=torch.ones(2, 2, 5)),
            GAUSS,
            r'P must have the shape \(rows',
        ),
        (lambda: changed(P=torch.ones(4, 6, 2, 5)), GAUSS, 'P must .* 1 to 3 rows'),
        (lambda: changed(), dict(version='gauss'), 'dilated_kernel_size must be given'),
        (
            lambda: changed((4, 4, 4), 'v0'),
            dict(version='v0'),
            'dilated_kernel_size must be given for P, whose 3 rows',
        ),
        (lambda: changed(), dict(GAUSS, prefix='a.'), "P and weight .*prefix 'a.'"),
        (lambda: changed(P=None), GAUSS, 'state_dict has no layer with P and weight'),
        (
            lambda: mixed_model('v1'),
            dict(version='v1', dilated_kernel_size=(5, 5)),
            r'dilated_kernel_size \(5, 5\) does not fit 1\.P, which has 3 rows',
        ),
    ],
)
def test_refusals(convert, state_dict, arguments, message):
    state_dict = state_dict()
    if convert is to_published:
        del state_dict._metadata
    with pytest.raises(ValueError, match=message):
        convert(state_dict, **arguments)


def test_what_is_converted_already_is_refused():
    published_state = changed()
    with pytest.raises(ValueError, match='P is of the published package already'):
        to_published(published_state, **GAUSS)
    converted = from_published(published_state, **GAUSS)
    with pytest.raises(ValueError, match='P is of a layer of dcls_mm already'):
        from_published(converted, **GAUSS)


def test_layers_that_the_published_package_lacks_are_refused():
    layer = DCLSConv2d(
        4, 4, kernel_count=3, dilated_kernel_size=(5, 2), position_axes=(0,)
    )
    with pytest.raises(ValueError, match=r'P is for the axes \(0,\)'):
        to_published(layer.state_dict(), version='v0')
