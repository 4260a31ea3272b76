"""Statistics of positions against hand-worked ones; advice on models that need it."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from dcls_mm.analysis import (
    RULES,
    advise,
    as_json,
    as_markdown,
    as_text,
    collect_elements,
    compute_statistics,
)
from dcls_mm.analysis.statistics import even_border
from dcls_mm.backbones import ConvNeXtDCLS
from dcls_mm.functional.repulsion import repulsion
from dcls_mm.layers import DCLSConv1d, DCLSConv2d, DCLSConvTranspose2d


def layer_at(*places, extent=17, **options):
    """Build a layer of one kernel with elements at these (row, column) places."""
    options = dict(kernel_count=len(places), dilated_kernel_size=extent, **options)
    layer = DCLSConv2d(1, 1, **options)
    layer.P.data = torch.tensor(places).T.reshape(layer.P.shape).float()
    return layer


def statistics_of(layer):
    return compute_statistics(collect_elements(nn.ModuleDict({'a': layer})))['a']


def test_figures_of_a_few_elements():
    """The limit is 8; (0, 0.6) is 0.6 from the first one but nearer to another tap."""
    found = statistics_of(
        layer_at((0.0, 0.0), (0.0, 0.6), (7.6, 3.0), (-9.0, -3.0), (4.0, -4.0))
    )
    assert (found.kernels, found.count, found.extent) == (1, 5, (17, 17))
    assert found.border == pytest.approx(2 / 5)
    assert found.lost == pytest.approx(1 / 5)
    assert found.crowded == pytest.approx(2 / 5)
    assert found.distinct == 5
    assert found.even_border == pytest.approx(1 - (15 / 16) ** 2)
    rows = np.array([0, 0, 7.6, -9, 4])
    columns = np.array([0, 0.6, 3, -3, -4])
    assert found.spread == pytest.approx(((rows.var() + columns.var()) / 2) ** 0.5)
    assert found.reach == pytest.approx(np.percentile(np.abs(rows), 99) / 8)
    assert found.held_extent == 2 * 9 + 1
    assert found.histograms[0] == tuple(
        {-8: 1, 0: 2, 4: 1, 8: 1}.get(tap, 0) for tap in range(-8, 9)
    )
    assert sum(found.histograms[1]) == 5
    assert found.sigma is None and found.block_difference is None


def test_crowding_is_where_repulsion_acts():
    """Only elements of the same kernel that are less than 1 apart count."""
    layer = DCLSConv2d(1, 2, kernel_count=2, dilated_kernel_size=9)
    layer.P.data.zero_()
    layer.P.data[0, 0, 0, 1] = 1.0
    assert statistics_of(layer).crowded == 0.5
    assert repulsion(layer.P[:, :1]) == 0 and repulsion(layer.P[:, 1:]) == 1


def test_even_border_is_what_even_positions_have():
    for extent in ((17, 17), (5, 9), (4, 7), (1, 3)):
        layer = DCLSConv2d(
            1,
            1,
            kernel_count=20000,
            dilated_kernel_size=extent,
            initial_positions='uniform',
        )
        elements = collect_elements(nn.ModuleDict({'a': layer}))['a']
        first, last = np.array(elements.limits).T
        border = (elements.positions < first + 0.5) | (elements.positions > last - 0.5)
        assert even_border(extent) == pytest.approx(border.any(-1).mean(), abs=0.01)


@pytest.mark.parametrize(
    'layer, shape',
    [
        (dict(), (6, 3, 2)),
        (dict(per_output_positions=False), (3, 3, 2)),
        (dict(position_axes=(1, 0)), (6, 3, 2)),
        (dict(position_axes=(1,), kernel_size=5), (30, 3, 1)),
    ],
)
def test_elements_of_any_layer(layer, shape):
    layer = DCLSConv2d(
        3, 2, **{'kernel_size': None, **layer}, kernel_count=3, dilated_kernel_size=5
    )
    with torch.no_grad():
        for row, axis in enumerate(layer.position_axes):
            layer.P[row] = axis + 0.25
    found = collect_elements(nn.ModuleDict({'a': layer}))['a']
    assert found.positions.shape == shape
    for along, axis in zip(np.moveaxis(found.positions, -1, 0), found.axes):
        assert (along == axis + 0.25).all()
    (magnitudes,) = found.magnitudes
    weight = layer.weight.detach().abs()
    expected = weight if layer.per_output_positions else weight.mean(0)
    np.testing.assert_allclose(magnitudes.ravel(), expected.ravel(), rtol=1e-6)


def test_shared_positions_count_once_and_transposed_layers_count():
    model = nn.Sequential(
        *(DCLSConv1d(1, 1, 3, dilated_kernel_size=9) for _ in range(3)),
        DCLSConvTranspose2d(1, 1, 3, dilated_kernel_size=9),
        nn.Conv1d(1, 1, 3),
    )
    model[2].share_positions(model[0])
    found = collect_elements(model)
    assert {name: layer.layers for name, layer in found.items()} == {
        '0': ('0', '2'),
        '1': ('1',),
        '3': ('3',),
    }


@pytest.mark.parametrize('parameter', ['P', 'SIG'])
def test_infinite_positions(parameter):
    layer = layer_at((0.0, 0.0), interpolation='gauss')
    getattr(layer, parameter).data.view(-1)[0] = torch.inf
    with pytest.raises(ValueError, match='^a has .* NaN or infinite'):
        collect_elements(nn.ModuleDict({'a': layer}))


def test_no_layers():
    assert collect_elements(nn.Conv2d(1, 1, 3)) == {}
    with pytest.raises(ValueError, match='elements is empty'):
        compute_statistics({})


def model_of(positions, shared=True, weight=None, **options):
    """Build two layers of 60 kernels of 10 elements in 17x17 pixels.

    ``positions`` makes values from a shape; ``weight`` makes them from the positions
    and the number of the layer.
    """
    options = {'kernel_count': 10, 'dilated_kernel_size': 17, **options}
    model = nn.ModuleList(DCLSConv2d(60, 60, groups=60, **options) for _ in range(2))
    if shared:
        model[1].share_positions(model[0])
    for number, layer in enumerate(model):
        layer.P.data = (
            positions(layer.P.shape) if number == 0 or not shared else (model[0].P.data)
        )
        if weight is not None:
            layer.weight.data = weight(layer.P.data, number)
    return model


def even(shape, reach=8.0):
    return (torch.rand(shape) * 2 - 1) * reach


def half_stuck(shape):
    return torch.where(torch.rand(shape) < 0.3, 8.0, even(shape))


def far(shape):
    return torch.where(torch.rand(shape) < 0.01, 12.0, even(shape, 7.4))


def pairs(shape):
    places = even(shape)
    places[..., 1::2] = places[..., ::2] + 0.1
    return places.clamp(-8, 8)


def centred(positions, number):
    """Weight what is near the centre in the first layer, what is far in the second."""
    near = positions[0].abs() < 4
    return (near if number == 0 else ~near).float()


def zero_sigma(shape):
    return even(shape)


CASES = {
    'positions have not moved': dict(positions=lambda shape: torch.randn(shape) / 2),
    'elements beyond the extent': dict(positions=far),
    'extent too small': dict(positions=half_stuck),
    'extent too large': dict(positions=lambda shape: even(shape, 3.9)),
    'count too high': dict(positions=pairs),
    'sigma stays at zero': dict(positions=even, interpolation='max'),
    'positions could be shared': dict(positions=even, shared=False),
    'sharing may hold the layers back': dict(positions=even, weight=centred),
}


@pytest.mark.parametrize('name', CASES)
def test_each_rule_is_shown_by_a_model_made_for_it(name):
    found = advise(compute_statistics(collect_elements(model_of(**CASES[name]))))
    names = [one.name for one in found]
    # In a quarter of the area, the elements are closer together.
    beside = {'extent too large': ['count too high']}
    assert names[0] == name
    assert set(names[1:]) <= set(beside.get(name, []))
    assert list(found[0].findings) in (['0'], ['0', '1'])


def test_every_rule_has_a_case():
    assert list(CASES) == [rule.name for rule in RULES]


@pytest.mark.parametrize(
    'options',
    [
        dict(),
        dict(interpolation='gauss', dilated_kernel_size=23),
        dict(shared=False, positions=lambda shape: torch.rand(shape) * 16 - 8),
    ],
)
def test_healthy_model_gets_no_advice(options):
    """Positions are even; where not shared, the layers' weights lie elsewhere."""
    reach = (options.get('dilated_kernel_size', 17) - 1) / 2 * 0.99
    options = {'positions': lambda shape: even(shape, reach), **options}
    if not options.get('shared', True):
        options['weight'] = centred
    assert advise(compute_statistics(collect_elements(model_of(**options)))) == []


def test_published_count_is_no_crowd_when_even():
    """The rule's reason states this figure."""
    found = compute_statistics(collect_elements(model_of(even, kernel_count=34)))
    assert found['0'].crowded == pytest.approx(1 / 3, abs=0.04)


def test_grid_is_judged_only_once_it_has_moved():
    """A fresh grid fills its extent up to the border."""
    layer = DCLSConv2d(8, 8, 7, groups=8, initial_positions='grid')
    assert not statistics_of(layer).moved
    layer.P.data += 0.01
    assert statistics_of(layer).moved


def test_frozen_positions_need_no_advice_to_move():
    layer = DCLSConv2d(8, 8, 7, groups=8, learn_positions=False)
    assert advise({'a': statistics_of(layer)}) == []


def test_block_difference_is_the_kolmogorov_smirnov_distance():
    stats = pytest.importorskip('scipy.stats')
    model = model_of(even, shared=False)
    for number, layer in enumerate(model):
        layer.weight.data.fill_(1.0)
        layer.P.data[0] *= 0.8 ** (number + 1)
    found = compute_statistics(collect_elements(model))
    expected = max(
        stats.ks_2samp(*(layer.P[axis].detach().ravel() for layer in model)).statistic
        for axis in range(2)
    )
    assert found['0'].block_difference == found['1'].block_difference
    # The code compares in bins of a quarter of a pixel.
    assert found['0'].block_difference == pytest.approx(expected, abs=0.03)


def test_few_elements_are_not_compared():
    elements = collect_elements(model_of(even, weight=centred))
    (statistics,) = compute_statistics(elements).values()
    few = replace(statistics, kernels=49)
    assert advise({'0': statistics}) and not advise({'0': few})


def test_reports():
    model = ConvNeXtDCLS(dict(depths=[2, 1], dims=[8, 8]), out_indices=(1,))
    statistics = compute_statistics(collect_elements(model))
    advice = advise(statistics)
    text = as_text(statistics, advice)
    assert 'stages.0.0.dwconv +1   17x17     34' in text
    assert '* positions have not moved\n  stages.0.0.dwconv: spread 0.' in text
    assert 'No advice' in as_text(statistics, [])
    page = as_markdown(statistics, advice, 'A title', ['a.png'])
    assert page.startswith('# A title\n') and '![a.png](a.png)' in page
    assert '### Positions have not moved' in page
    content = json.loads(as_json(statistics, advice))
    assert content['layers']['stages.0.0.dwconv']['blocks'] == 2
    assert content['advice'][0]['name'] == 'positions have not moved'
