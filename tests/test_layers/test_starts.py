"""Where positions start: how wide, how evenly, and in which layers."""

import pytest
import torch
from torch import nn

from dcls_mm import ConvNeXtDCLS, DCLSConv1d, DCLSConv2d, DCLSConv3d
from dcls_mm.analysis import collect_elements, compute_statistics

LAYERS = {1: DCLSConv1d, 2: DCLSConv2d, 3: DCLSConv3d}


def depthwise(ndim=2, channels=64, **options):
    options = dict(dict(kernel_count=20, dilated_kernel_size=17), **options)
    return LAYERS[ndim](channels, channels, groups=channels, **options)


def places(layer):
    """Return (kernels, count, axes)."""
    return layer.P.detach().flatten(1, -2).permute(1, 2, 0)


def nearest(kernels):
    """Return each element's distance from the next one of its kernel."""
    apart = torch.cdist(kernels, kernels)
    return (apart + 1e3 * torch.eye(apart.shape[-1])).amin(-1)


@pytest.mark.parametrize('spread', [0.0, 0.1, 2.0])
def test_spread_of_normal_is_in_pixels(spread):
    positions = depthwise(initial_positions='normal', initial_spread=spread).P
    assert positions.std().item() == pytest.approx(spread, rel=0.1)
    assert positions.mean().abs() <= 0.1 * spread


def test_spread_is_the_published_one_by_default():
    assert depthwise().P.std().item() == pytest.approx(0.5, rel=0.1)


def test_wide_normal_stays_inside():
    positions = depthwise(initial_spread=50.0).P
    assert positions.abs().max() == 8


@pytest.mark.parametrize(
    'options',
    [
        dict(ndim=1, kernel_count=6, dilated_kernel_size=31),
        dict(),
        dict(dilated_kernel_size=(9, 24)),
        dict(ndim=3, channels=16, dilated_kernel_size=7),
        dict(kernel_size=5, padding=2, position_axes=(1,), kernel_count=6),
        dict(position_axes=(1, 0), dilated_kernel_size=(9, 24)),
        dict(per_output_positions=False, interpolation='gauss'),
        dict(kernel_count=1),
        dict(dilated_kernel_size=1),
        dict(channels=2000),
    ],
    ids=str,
)
def test_even_covers_the_extent(options):
    """As uniform positions do, but no two of them are close."""
    torch.manual_seed(0)
    even = depthwise(**options, initial_positions='even')
    uniform = depthwise(**options, initial_positions='uniform')
    for row, axis in zip(even.P, even.position_axes):
        first, last = even.position_limits(axis)
        assert row.min() >= first and row.max() <= last
        if even.kernel_count > 1:
            size = last - first
            assert row.mean().item() == pytest.approx((first + last) / 2, abs=size / 9)
            assert row.std().item() == pytest.approx(size / 12**0.5, rel=0.15)
    if even.kernel_count > 1 and max(even.extent) > 1:
        closest, chance = nearest(places(even)), nearest(places(uniform))
        assert closest.mean() > 1.2 * chance.mean()
        assert closest.amin() > 5 * chance.amin()


def test_even_has_less_discrepancy_than_chance():
    """The share of elements in any box is nearer to the box's share of the extent."""

    def discrepancy(start):
        layer = depthwise(kernel_count=34, channels=32, initial_positions=start)
        points = ((places(layer) + 8) / 16).clamp(0, 1).numpy()
        return sum(qmc.discrepancy(kernel, method='CD') for kernel in points)

    qmc = pytest.importorskip('scipy.stats').qmc
    torch.manual_seed(0)
    assert discrepancy('even') < 0.5 * discrepancy('uniform')


def test_even_is_no_denser_anywhere():
    layer = depthwise(channels=1024, kernel_count=34, initial_positions='even')
    cells = ((places(layer).flatten(0, 1) + 8) / 4).long().clamp(max=3)
    counts = torch.bincount(4 * cells[:, 0] + cells[:, 1], minlength=16)
    assert counts.max() < 1.1 * counts.min()


def test_every_kernel_has_an_even_start_of_its_own():
    torch.manual_seed(0)
    layer = depthwise(initial_positions='even')
    kernels = places(layer).clone()
    sorted_rows = kernels[..., 0].sort(-1).values
    assert (torch.cdist(sorted_rows, sorted_rows) + 9 * torch.eye(64)).min() > 0.1
    torch.manual_seed(0)
    assert torch.equal(depthwise(initial_positions='even').P, layer.P)
    layer.reset_parameters()
    assert not torch.equal(places(layer), kernels)


@pytest.mark.parametrize('options', [dict(dtype=torch.float64), dict(device='meta')])
def test_even_in_any_dtype_and_on_meta(options):
    layer = depthwise(initial_positions='even', **options)
    assert layer.P.shape == (2, 64, 1, 20)


@pytest.mark.parametrize(
    'options, error, message',
    [
        (
            dict(initial_spread=-1.0),
            ValueError,
            'initial_spread must be finite and at least 0',
        ),
        (
            dict(initial_spread='2'),
            TypeError,
            "initial_spread must be a number, got '2'",
        ),
        (
            dict(initial_spread=2.0, initial_positions='even'),
            ValueError,
            "width of initial_positions='normal', got initial_positions='even'",
        ),
    ],
)
def test_wrong_spread(options, error, message):
    with pytest.raises(error, match=message):
        depthwise(**options)


@pytest.mark.parametrize('spread, moved', [(0.0, False), (2.0, False), (2.3, True)])
def test_positions_have_moved_if_they_left_their_start(spread, moved):
    """Whatever width they started with."""
    layer = depthwise(channels=256, initial_spread=min(spread, 2.0))
    with torch.no_grad():
        layer.P *= spread / min(spread, 2.0) if spread else 0
    elements = collect_elements(nn.ModuleDict({'layer': layer}))
    assert compute_statistics(elements)['layer'].moved is moved


def test_backbone_with_a_config_per_stage():
    """Positions can start otherwise in each stage, and stay shared in it."""
    small = dict(type='DCLSConv2d', kernel_count=9, dilated_kernel_size=7)
    large = dict(small, dilated_kernel_size=21, initial_positions='even')
    plain = dict(type='Conv2d', kernel_size=7)
    backbone = ConvNeXtDCLS('atto', depthwise_cfg=[plain, small, large, large])
    convs = [stage[0].dwconv for stage in backbone.stages]
    assert isinstance(convs[0], nn.Conv2d)
    assert [conv.extent[0] for conv in convs[1:]] == [7, 21, 21]
    assert convs[1].P.std() < 1 < 4 < convs[2].P.std()
    assert all(block.dwconv.P is convs[2].P for block in backbone.stages[2])
    shapes = [tuple(y.shape[2:]) for y in backbone(torch.randn(1, 3, 64, 96))]
    assert shapes == [(16, 24), (8, 12), (4, 6), (2, 3)]


@pytest.mark.parametrize(
    'cfg, message',
    [
        ([dict(type='Conv2d', kernel_size=7)] * 3, 'each of the 4 stages, got 3'),
        ([], 'each of the 4 stages, got 0'),
    ],
)
def test_backbone_with_a_wrong_number_of_configs(cfg, message):
    with pytest.raises(ValueError, match=message):
        ConvNeXtDCLS('atto', depthwise_cfg=cfg)
