"""Wrong arguments of layers that turn their elements."""

import torch
from torch import nn

from dcls_mm.backbones.conv_replacement import replace_convs
from dcls_mm.layers import RotatedDCLSConv2d, SteeredDCLSConv2d

from . import wrong


def rotated(*channels, **options):
    arguments = dict(kernel_count=3, dilated_kernel_size=7)
    return lambda: RotatedDCLSConv2d(*channels or (4, 8), **{**arguments, **options})


def steered(**options):
    arguments = dict(kernel_count=3, dilated_kernel_size=7)
    return lambda: SteeredDCLSConv2d(4, 8, **{**arguments, **options})


ROWS = [
    wrong(
        rotated(orientations=3),
        *(ValueError, 'orientations must divide the 8 outputs of a group, got 3'),
    ),
    wrong(
        rotated(groups=4),
        *(ValueError, 'orientations must divide the 2 outputs of a group, got 4'),
    ),
    wrong(
        rotated(6, 6, groups=6),
        *(ValueError, 'orientations must divide the 6 outputs, got 4'),
    ),
    wrong(rotated(orientations=0), ValueError, 'orientations must be at least 1, got'),
    wrong(rotated(orientations='4'), TypeError, "must be an integer, got '4'"),
    wrong(
        rotated(input_orientations=2),
        *(ValueError, 'input_orientations must be 1 or as many as orientations (4)'),
    ),
    wrong(
        rotated(6, 8, input_orientations=4),
        *(ValueError, 'input_orientations must divide the 6 inputs of a group, got 4'),
    ),
    wrong(
        rotated(dilated_kernel_size=8),
        *(ValueError, 'dilated_kernel_size must be one odd number', 'got (8, 8)'),
    ),
    wrong(
        steered(dilated_kernel_size=(7, 9)),
        *(ValueError, 'dilated_kernel_size must be one odd number', 'got (7, 9)'),
    ),
    wrong(
        rotated(local_size=3),
        *(ValueError, 'local_size must be left out in a RotatedDCLSConv2d', 'got 3'),
    ),
    wrong(
        steered(per_output_positions=False),
        *(ValueError, 'per_output_positions must be True in a SteeredDCLSConv2d'),
    ),
    wrong(
        rotated(kernel_size=3, position_axes=(1,)),
        *(ValueError, 'position_axes must be (0, 1) or (1, 0)', 'got (1,)'),
    ),
    wrong(
        rotated(spacing=(2.0, 1.0)),
        *(ValueError, 'spacing must be the same along both axes', 'got (2.0, 1.0)'),
    ),
    wrong(
        steered(directions=3),
        *(ValueError, 'directions must divide the 8 output channels, got 3'),
    ),
    wrong(
        steered(formulation='sample'),
        *(ValueError, "formulation must not be 'sample' in a SteeredDCLSConv2d"),
    ),
    wrong(
        lambda: steered()()(torch.zeros(1, 4, 2, 9)),
        *(ValueError, 'the input must have at least 3x3 pixels', '(1, 4, 2, 9)'),
    ),
    wrong(
        lambda: RotatedDCLSConv2d.from_conv(nn.Conv2d(4, 8, 3)),
        *(TypeError, 'a RotatedDCLSConv2d turns its kernel', "start='fresh'"),
    ),
    wrong(
        lambda: replace_convs(nn.Sequential(nn.Conv2d(4, 8, 3)), SteeredDCLSConv2d),
        *(ValueError, "0 can't become a SteeredDCLSConv2d", "start='fresh'"),
    ),
]
