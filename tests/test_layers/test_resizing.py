"""Layers whose extent and elements change compute what they did."""

import copy
import io

import pytest
import torch
from torch import nn

from dcls_mm.conversion import without_extent
from dcls_mm.functional import native_code
from dcls_mm.layers import (
    DCLSConv1d,
    DCLSConv2d,
    DCLSConv3d,
    DCLSConvTranspose1d,
    fold,
)
from dcls_mm.layers.dropin import Dcls2d
from dcls_mm.layers.noted import StateDictError
from dcls_mm.layers.resizing import (
    Rearrangement,
    layers_by_positions,
    outermost_taps,
    rearrange_elements,
    resize_extent,
)

LAYERS = {1: DCLSConv1d, 2: DCLSConv2d, 3: DCLSConv3d}
CASES = [
    dict(ndim=1, extent=7),
    dict(ndim=1, extent=8, interpolation='triangle', padding='same'),
    dict(ndim=2, extent=(7, 8), groups=2, bias=False),
    dict(ndim=2, extent=9, per_output_positions=False, interpolation='triangle'),
    dict(ndim=2, extent=9, position_axes=(1, 0), padding_mode='circular'),
    dict(ndim=2, extent=(3, 9), position_axes=(1,), stride=2),
    dict(ndim=1, extent=7, formulation='sample', integer_positions=True),
    dict(ndim=2, extent=(9, 7), interpolation='max', initial_sigma=0.4),
    dict(ndim=1, extent=17, interpolation='gauss'),
]


def made(ndim, extent, **options):
    """Return a layer in float64, with positions of every kind inside the extent."""
    torch.manual_seed(0)
    arguments = dict(padding=4, groups=1, kernel_count=5)
    layer = LAYERS[ndim](
        4,
        4,
        kernel_size=extent,
        dilated_kernel_size=extent,
        dtype=torch.float64,
        **{**arguments, **options},
    )
    inside = 3.0 if layer.interpolation == 'gauss' else 1.5
    if layer.SIG is None:
        inside = min(layer.position_limits(axis)[1] for axis in layer.position_axes)
    with torch.no_grad():
        layer.P.uniform_(-inside, inside)
        layer.P[..., 0] = inside  # exactly on the border
        layer.P[..., 1] = 0.0
    return layer


def images(layer):
    return torch.randn(2, 4, *(19, 18)[: layer.ndim], dtype=torch.float64)


def grown(layer, by=4):
    return tuple(
        n + by * (axis in layer.position_axes) for axis, n in enumerate(layer.extent)
    )


@pytest.mark.parametrize('case', CASES, ids=str)
@pytest.mark.parametrize('training', [True, False])
def test_growing_and_cropping_change_nothing(case, training):
    layer = made(**case).train(training)
    x, before = images(layer), copy.deepcopy(layer)
    parameters = dict(layer.named_parameters())
    tolerance = 1e-6 if layer.interpolation == 'gauss' else 1e-12
    with torch.no_grad():
        expected = layer(x)  # keeps a kernel in evaluation
        resize_extent(layer, grown(layer))
        torch.testing.assert_close(layer(x), expected, rtol=0, atol=tolerance)
        assert layer.extent == grown(before)
        resize_extent(layer, before.extent)
        assert torch.equal(layer(x), expected)
    assert (layer.extent, layer.padding) == (before.extent, before.padding)
    assert all(parameters[name] is p for name, p in layer.named_parameters())


@pytest.mark.skipif(native_code.missing() is not None, reason='no compiled part')
def test_the_direct_convolution_changes_nothing_either():
    layer = made(2, 9, groups=4, formulation='direct').float()
    x = images(layer).float()
    expected = layer(x)
    resize_extent(layer, 25)
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-6)


def test_one_number_is_for_the_learned_axes():
    layer = made(2, (3, 9), position_axes=(1,))
    resize_extent(layer, 11)
    assert layer.extent == (3, 11)


@pytest.mark.parametrize('name', ['bilinear', 'triangle', 'max', 'gauss'])
def test_the_outermost_taps_are_those_that_are_not_zero(name):
    sigma = {} if name in ('bilinear', 'triangle') else dict(initial_sigma=0.7)
    layer = DCLSConv2d(
        3,
        2,
        dilated_kernel_size=(31, 33),
        kernel_count=3,
        padding=15,
        interpolation=name,
        dtype=torch.float64,
        **sigma,
    )
    with torch.no_grad():
        layer.P.uniform_(-5, 6)
        layer.P[:, 0, 0, 0] = torch.tensor([6.0, -5.0], dtype=torch.float64)
    written = layer.kernel().abs().amax((0, 1)) > 1e-9 * layer.weight.abs().max()
    for axis, bounds in enumerate(outermost_taps(layer)):
        taps = written.any(1 - axis).nonzero() - layer.extent[axis] // 2
        assert bounds == (taps.min(), taps.max())


def test_a_crop_keeps_every_tap_of_an_element():
    layer = made(1, 9)
    with torch.no_grad():
        layer.P.clamp_(-2.0, 2.0)
        layer.P[0, 0, 0, 0] = 2.1
    with pytest.raises(ValueError, match='extent 5 along axis 0 .* to 3 pixels'):
        resize_extent(layer, 5)
    assert layer.extent == (9,)
    resize_extent(layer, 7)
    layer.P.data[0, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match='too small'):
        resize_extent(layer, 5)


@pytest.mark.parametrize(
    'layer, extent, message',
    [
        (DCLSConv1d(2, 2, 7), 8, 'by an even number, .* got 8 for 7 along axis 0'),
        (DCLSConv1d(2, 2, 7, kernel_count=1), 5, 'padding .* too small'),
        (DCLSConv2d(2, 2, 3, position_axes=(1,)), (5, 3), 'stay 3 along axis 0'),
        (DCLSConvTranspose1d(2, 2, 3), 5, 'fixed: it is transposed'),
        (
            Dcls2d(2, 2, 3, dilated_kernel_size=5),
            (7, 7),
            'fixed: a Dcls2d has the sizes',
        ),
    ],
)
def test_what_can_not_be_resized(layer, extent, message):
    with torch.no_grad():
        layer.P.zero_()
    with pytest.raises(ValueError, match=message):
        resize_extent(layer, extent)


def shared_pair(**options):
    pair = nn.Sequential(*(made(1, 9, **options) for _ in range(2)))
    pair[1].share_positions(pair[0])
    return pair


@pytest.mark.parametrize(
    'options',
    [
        dict(),
        dict(per_output_positions=False),
        dict(groups=4, interpolation='max', initial_sigma=0.3),
    ],
    ids=str,
)
def test_elements_move_together(options):
    pair = shared_pair(**options)
    torch.manual_seed(1)
    x, parameters = images(pair[0]), dict(pair.named_parameters())
    source = torch.rand(*pair[0].P.shape[1:-1], 5).argsort(-1)
    dropped = source[..., -1:]
    with torch.no_grad():
        for layer in pair:
            index = dropped.expand(*layer.weight.shape[:-1], 1)
            layer.weight.scatter_(-1, index, 0.0)
        expected = pair(x)
    old = copy.deepcopy(pair)

    loss = pair(x).sum()  # held, with its graph, as by a hook that logs it
    loss.backward()
    fresh = torch.zeros_like(source, dtype=torch.bool)
    fresh[..., -1] = True
    places = torch.full((1, *source.shape), -4.0)
    changed = rearrange_elements(list(pair), Rearrangement(source, fresh), places)
    assert {id(p) for p in changed} <= {id(p) for p in parameters.values()}
    assert all(p.grad is None for p in changed)
    assert (pair[0].P[..., -1] == -4.0).all() and pair[0].P is pair[1].P
    torch.testing.assert_close(pair(x), expected, rtol=0, atol=1e-12)
    kept = old[1].weight.gather(-1, source.expand(old[1].weight.shape))[..., :4]
    assert torch.equal(pair[1].weight[..., :4], kept)
    if pair[0].SIG is not None:
        assert (pair[0].SIG[..., -1] == 0.3).all()

    fewer = torch.arange(4).expand(*source.shape[:-1], 4)
    rearrange_elements(list(pair), Rearrangement(fewer, torch.zeros_like(fewer) > 0))
    torch.testing.assert_close(pair(x), expected, rtol=0, atol=1e-12)
    assert [layer.kernel_count for layer in pair] == [4, 4]
    assert pair[1].element_shape == pair[1].weight.shape
    assert all(parameters[name] is p for name, p in pair.named_parameters())
    assert pair[0].P is pair[1].P
    pair(x).sum().backward()
    assert loss.requires_grad
    assert pair[0].weight.grad.shape == pair[0].weight.shape
    assert f'kernel_count={4}' in repr(pair[0])


def test_rearranging_refuses():
    pair = shared_pair()
    index = torch.arange(5).expand(4, 4, 5)
    kept = Rearrangement(index, torch.zeros_like(index) > 0)
    with pytest.raises(ValueError, match='share their positions'):
        rearrange_elements([pair[0], made(1, 9)], kept)
    with pytest.raises(ValueError, match=r'must be \(4, 4\) .*, got \(4, 5\)'):
        rearrange_elements(list(pair), Rearrangement(index[0], kept.fresh))
    with pytest.raises(ValueError, match=r'places must be \(1, 4, 4, 5\), got'):
        rearrange_elements(list(pair), kept, torch.zeros(2, 4, 4, 5))
    with pytest.raises(ValueError, match='transposed'):
        rearrange_elements([DCLSConvTranspose1d(2, 2, 3)], kept)


def test_layers_are_grouped_by_their_positions():
    pair = shared_pair()
    model = nn.ModuleDict(dict(stage=pair, other=made(1, 7), plain=nn.Conv1d(1, 1, 1)))
    groups = layers_by_positions(model)
    assert {name: [*map(id, group)] for name, group in groups.items()} == {
        'stage.0': [id(pair[0]), id(pair[1])],
        'other': [id(model['other'])],
    }


def adapted(**options):
    """Return two layers that share positions, with other sizes than when built."""
    pair = shared_pair(**options)
    for layer in pair:
        resize_extent(layer, 13)
    index = torch.arange(8).clamp(max=4).expand(4, 4, 8)
    places = torch.full((1, 4, 4, 8), 6.0, dtype=torch.float64)
    fresh = torch.arange(8).expand(4, 4, 8) > 4
    rearrange_elements(list(pair), Rearrangement(index, fresh), places)
    nn.init.normal_(pair[0].weight)
    return pair


@pytest.mark.parametrize('assign', [True, False])
@pytest.mark.parametrize('interpolation', ['triangle', 'max'])
def test_a_new_layer_takes_the_sizes_of_a_file(interpolation, assign):
    pair = adapted(interpolation=interpolation)
    file = io.BytesIO()
    torch.save(pair.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    new = shared_pair(interpolation=interpolation)
    nn.init.normal_(new[1].bias)
    new.load_state_dict(state, assign=assign)
    assert new[0].P is new[1].P
    assert (new[1].extent, new[1].padding, new[1].kernel_count) == ((13,), (6,), 8)
    x = images(pair[0])
    assert torch.equal(new(x), pair(x))
    assert torch.equal(fold(new[0])(x), fold(pair[0])(x))
    # What was loaded is saved with the same notes, and loads again.
    again = shared_pair(interpolation=interpolation)
    again.load_state_dict(new.state_dict())
    assert torch.equal(again(x), pair(x))


def test_without_the_note_another_size_stays_an_error():
    pair = adapted()
    state = pair.state_dict()
    for notes in state._metadata.values():
        notes.pop('adapted', None)
    with pytest.raises(StateDictError, match=r'of extent \(13,\), this one has \(9,\)'):
        shared_pair().load_state_dict(state)
    with pytest.raises(RuntimeError, match='size mismatch for 0.weight'):
        shared_pair().load_state_dict(without_extent(state))
    with pytest.raises(RuntimeError, match='size mismatch for 0.weight'):
        shared_pair().load_state_dict(dict(state))
    with pytest.raises(StateDictError, match=r'of extent \(9,\), this one has \(13,\)'):
        pair.load_state_dict(shared_pair().state_dict())


@pytest.mark.parametrize(
    'extent, message',
    [
        ((12,), 'adapted; extent must change by an even number'),
        ((13, 13), 'adapted; its extent'),
        ('13', 'adapted; its extent'),
        ((-1,), 'adapted; its extent'),
        (None, 'adapted; its extent'),
    ],
)
def test_notes_that_make_no_sense_are_refused(extent, message):
    state = adapted().state_dict()
    state._metadata['0']['extent'] = extent
    with pytest.raises(StateDictError, match=message):
        shared_pair().load_state_dict(state)


def test_other_channels_are_still_an_error():
    state = adapted().state_dict()
    other = DCLSConv1d(2, 2, kernel_count=5, dilated_kernel_size=9, padding=4)
    inner = {key[2:]: value for key, value in state.items() if key.startswith('0.')}
    inner = type(state)(inner)
    inner._metadata = {'': state._metadata['0']}
    with pytest.raises(RuntimeError, match='size mismatch for weight'):
        other.load_state_dict(inner)
