"""How positions stand against the start of a training, on hand-worked cases."""

import numpy as np
import pytest
import torch
from torch import nn

from dcls_mm.analysis import as_text, collect_elements, compute_statistics
from dcls_mm.analysis.progress import (
    START,
    stage_figures,
    stage_of,
    start_in,
    travelled,
)
from dcls_mm.layers import DCLSConv1d, DCLSConv2d


@pytest.mark.parametrize(
    'layer, stage',
    [
        ('backbone.stages.2.5.dwconv', 'backbone.stages.2'),
        ('backbone.layer3.0.conv2', 'backbone.layer3'),
        ('net.0', 'net.0'),
        ('0', '0'),
        ('conv2d.dw', 'conv2d.dw'),
        ('first', 'first'),
    ],
)
def test_stages(layer, stage):
    assert stage_of(layer) == stage


def layer_at(positions, kind=DCLSConv2d, extent=9):
    """Build a layer of one kernel with elements at these places."""
    layer = kind(1, 1, kernel_count=len(positions), dilated_kernel_size=extent)
    layer.P.data = torch.tensor(positions).T.reshape(layer.P.shape).float()
    return layer


def test_figures_of_stages():
    """In stage 0 the elements moved by 5 and 0, and by 0 and 1 in its second layer."""
    model = nn.ModuleDict(
        {
            'stages': nn.ModuleList(
                [
                    nn.ModuleList(
                        [
                            layer_at([[3.0, 4.0], [0.0, 0.0]]),
                            layer_at([[0.0, 0.0], [0.0, 1.0]], extent=(7, 5)),
                        ]
                    ),
                    layer_at([[1.0], [3.0], [2.0]], DCLSConv1d, 17),
                ]
            )
        }
    )
    elements = collect_elements(model)
    start = {
        'stages.0.0': np.zeros((1, 2, 2)),
        'stages.0.1': np.zeros((1, 2, 2)),
        'stages.1': np.zeros((1, 2, 1)),  # an element was added
    }
    assert travelled(elements, start) == {'stages.0.0': 2.5, 'stages.0.1': 0.5}
    spreads = ((1.5**2 + 2**2) / 2) ** 0.5, (0.5**2 / 2) ** 0.5
    assert stage_figures(elements, start) == pytest.approx(
        {
            'positions/stages.0/extent': 8,
            'positions/stages.0/count': 2,
            'positions/stages.0/spread': sum(spreads) / 2,
            'positions/stages.0/travel': 1.5,
            'positions/stages.1/extent': 17,
            'positions/stages.1/count': 3,
            'positions/stages.1/spread': (2 / 3) ** 0.5,
        }
    )


def test_occupied_share_of_the_extent():
    """Of 21 rows from 0 to 4, the 95th percentile is 3.8; columns are nearer."""
    rows = np.linspace(0, 4, 21)
    layer = layer_at(np.stack([rows, rows / 2], 1).tolist(), extent=19)
    elements = collect_elements(nn.ModuleDict({'a': layer}))
    statistics = compute_statistics(elements)
    assert statistics['a'].occupied == pytest.approx(2 * 3.8 / 19)
    assert statistics['a'].travel is None
    heading, row = (line.split() for line in as_text(statistics, []).splitlines()[:2])
    assert dict(zip(heading, row))['occupied'] == '40%'
    assert dict(zip(heading, row))['travel'] == '-'


def test_start_in_a_checkpoint():
    positions = torch.ones(1, 2, 2)

    def hub(start):
        return {'message_hub': {'runtime_info': {START: start}}}

    found = start_in(hub(((0, 0), {'a': positions})))
    np.testing.assert_array_equal(found['a'], positions)
    assert start_in(hub((0, {'a': positions})))['a'].shape == (1, 2, 2)
    for other in (
        {},
        {'message_hub': None},
        {'message_hub': {'runtime_info': {}}},
        hub(None),
        hub([(0, 0), {}]),
        hub((0, [positions])),
        hub((0, {'a': 'text'})),
    ):
        assert start_in(other) is None
