"""Comparisons that skip nothing, and the number of channels that a network takes."""

import math

import pytest
import torch
from torch import nn

from dcls_mm.checks.channels import input_channels
from dcls_mm.checks.errors import ConfigError
from dcls_mm.deploy.parts import check_difference, flatten, largest_difference
from dcls_mm.layers import DCLSConv2d

ONES = torch.ones(2, 2)


@pytest.mark.parametrize(
    'found, expected, difference',
    [
        ([ONES], [ONES], 0.0),
        ([ONES, 3 * ONES], [ONES, 4 * ONES], 0.25),
        ([ONES], [ONES, ONES], math.inf),
        ([], [], math.inf),
        ([ONES[:1]], [ONES], math.inf),
        ([ONES * math.inf], [ONES * math.inf], 0.0),
        ([ONES], [torch.tensor([[1.0, 1.0], [1.0, math.inf]])], math.inf),
        ([ONES[:0]], [ONES[:0]], 0.0),
    ],
)
def test_largest_difference(found, expected, difference):
    assert largest_difference(found, expected) == difference


@pytest.mark.parametrize('place', [0, 1])
def test_a_nan_in_any_output_is_a_difference(place):
    found = [ONES, ONES.clone()]
    found[place] = ONES * math.nan
    difference = largest_difference(found, [ONES, ONES])
    assert math.isnan(difference)
    with pytest.raises(ConfigError, match='the file differs .* by nan'):
        check_difference(difference, 'the file')


def test_nested_outputs_have_names():
    outputs = {'a': [ONES, (ONES,)], 'b': {'x': ONES}}
    assert [name for name, _ in flatten(outputs, 'o')] == ['o_a_0', 'o_a_1_0', 'o_b_x']
    for wrong in ('text', None, [3]):
        with pytest.raises(ConfigError, match='the output o.* is '):
            list(flatten(wrong, 'o'))


class Strict(nn.Conv2d):
    """A convolution that checks the images first."""

    def forward(self, x):
        if x.shape[1] != self.in_channels:
            raise ValueError('not my images')
        return super().forward(x)


class LaterStem(nn.Module):
    """A network whose stem is registered after the layer that follows it."""

    def __init__(self):
        super().__init__()
        self.body = nn.Conv2d(8, 8, 1)
        self.stem = DCLSConv2d(4, 8, 3)

    def forward(self, x):
        return self.body(self.stem(x))


@pytest.mark.parametrize(
    'network, channels',
    [
        (nn.Conv2d(1, 2, 3), 1),
        (DCLSConv2d(4, 2, 3), 4),
        (nn.Sequential(DCLSConv2d(3, 64, 3), nn.Conv2d(64, 2, 1)), 3),
        (nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(12, 2, 1)), 3),
        (nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(4, 2, 1)), 1),
        (nn.Sequential(nn.Identity(), Strict(4, 2, 1)), 4),
        (nn.Sequential(nn.Sequential(Strict(7, 2, 1))), 7),
        (LaterStem(), 4),
        (nn.AvgPool2d(2), 3),
    ],
)
def test_input_channels(network, channels):
    assert input_channels(network, (16, 24)) == channels
    assert not any(module._forward_pre_hooks for module in network.modules())
