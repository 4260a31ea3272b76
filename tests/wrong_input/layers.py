"""Wrong arguments of layers and of their methods."""

import torch

from dcls_mm.layers import (
    DCLSConv1d,
    DCLSConv2d,
    DCLSConv3d,
    DCLSConvTranspose2d,
    LargeKernelConv2d,
)
from dcls_mm.layers.dropin import Dcls2d

from . import wrong


def dcls(*channels, **options):
    """Return a call of DCLSConv2d, by default with 4 channels and 3x3 elements."""
    arguments = dict(in_channels=4, out_channels=4, kernel_size=3)
    return lambda: DCLSConv2d(*channels, **{**arguments, **options})


def gauss(**options):
    return dcls(interpolation='gauss', **options)


def transposed(**options):
    return lambda: DCLSConvTranspose2d(2, 2, **{'kernel_size': 4, **options})


def large(**options):
    return lambda: LargeKernelConv2d(2, 2, **{'kernel_size': 7, **options})


def load(source, **options):
    """Return a call that loads the state_dict of ``source`` into a DCLSConv2d."""
    return lambda: dcls(**options)().load_state_dict(source().state_dict())


BOOLEAN = 'must be True or False, got '

ROWS = [
    # Booleans.
    wrong(dcls(bias='no'), TypeError, 'bias ' + BOOLEAN + "'no'"),
    wrong(dcls(bias=None), TypeError, 'bias ' + BOOLEAN + 'None'),
    wrong(large(bias=1), TypeError, 'bias ' + BOOLEAN + '1'),
    wrong(transposed(bias=0), TypeError, 'bias ' + BOOLEAN + '0'),
    wrong(
        dcls(integer_positions='no'), TypeError, 'integer_positions ' + BOOLEAN + "'no'"
    ),
    wrong(
        dcls(learn_positions='False'),
        TypeError,
        'learn_positions ' + BOOLEAN + "'False'",
    ),
    wrong(gauss(learn_sigma=None), TypeError, 'learn_sigma ' + BOOLEAN + 'None'),
    wrong(
        dcls(per_output_positions=[False]),
        TypeError,
        'per_output_positions ' + BOOLEAN + '[False]',
    ),
    # Numbers.
    wrong(dcls(kernel_count=0), ValueError, 'kernel_count must be at least 1, got 0'),
    wrong(
        dcls(kernel_count='9'), TypeError, "kernel_count must be an integer, got '9'"
    ),
    wrong(
        dcls(kernel_count=2.5), TypeError, 'kernel_count must be an integer, got 2.5'
    ),
    wrong(dcls(kernel_count=True), TypeError, 'kernel_count must be an integer'),
    wrong(dcls(in_channels=0), ValueError, 'in_channels must be at least 1, got 0'),
    wrong(
        dcls(out_channels='4'), TypeError, "out_channels must be an integer, got '4'"
    ),
    wrong(dcls(groups=3), ValueError, 'groups must divide in_channels (4)', 'groups=3'),
    wrong(
        dcls(in_channels=6, groups=3),
        ValueError,
        *('groups must divide out_channels (4)', 'groups=3'),
    ),
    wrong(dcls(stride=0), ValueError, 'stride must be at least 1, got 0'),
    wrong(
        dcls(stride=(1, 1, 1)), ValueError, 'stride must be one integer or 2 of them'
    ),
    wrong(dcls(dilation=-1), ValueError, 'dilation must be at least 1, got -1'),
    wrong(dcls(padding=-1), ValueError, 'padding must be at least 0, got -1'),
    wrong(dcls(kernel_size=0), ValueError, 'kernel_size must be at least 1, got 0'),
    wrong(
        dcls(dilated_kernel_size=(9, 9, 9)),
        ValueError,
        'dilated_kernel_size must be one integer or 2 of them',
    ),
    wrong(
        gauss(initial_sigma=float('nan')),
        ValueError,
        'initial_sigma must be finite, got nan',
    ),
    wrong(
        gauss(initial_sigma='0.2'),
        TypeError,
        "initial_sigma must be a number, got '0.2'",
    ),
    wrong(
        lambda: gauss()().fix_sigma(float('inf')),
        ValueError,
        'value must be finite, got inf',
    ),
    wrong(
        lambda: gauss()().fix_sigma('0.1'),
        TypeError,
        "value must be a number, got '0.1'",
    ),
    wrong(dcls(spacing='2'), TypeError, "spacing must be a number, got '2'"),
    wrong(dcls(spacing=True), TypeError, 'spacing must be a number, got True'),
    wrong(dcls(spacing=0), ValueError, 'spacing must be positive, got 0'),
    wrong(dcls(spacing=(2.0, -1)), ValueError, 'must be positive, got (2.0, -1)'),
    wrong(dcls(spacing=float('inf')), ValueError, 'spacing must be finite, got inf'),
    wrong(dcls(spacing=(2.0,)), ValueError, 'one number or 2 of them', 'got (2.0,)'),
    wrong(
        dcls(position_axes=(1,), spacing=(2.0, 1.0)),
        ValueError,
        'spacing must be 1 along axis 0, which is dense, got (2.0, 1.0)',
    ),
    wrong(
        lambda: setattr(Dcls2d(4, 4, 9), 'spacing', 2.0),
        ValueError,
        'spacing must be 1 in a Dcls2d',
        'use a DCLSConv2d, got 2.0',
    ),
    # Names.
    wrong(
        dcls(initial_positions=['normal']),
        ValueError,
        *(
            "initial_positions must be one of ['normal', 'uniform', 'even', 'grid']",
            "['normal']",
        ),
    ),
    wrong(
        dcls(formulation=None),
        ValueError,
        "formulation must be one of ['auto', 'construct', 'direct', 'sample'], "
        'got None',
    ),
    wrong(
        dcls(interpolation='linear'),
        ValueError,
        *('interpolation must be one of', "'gauss'", "got 'linear'"),
    ),
    wrong(dcls(backend=['fft']), ValueError, 'backend must be one of', "['fft']"),
    wrong(
        large(backend='cuda'),
        ValueError,
        "['direct', 'fft', 'cpu_depthwise', 'triton', 'native']",
    ),
    wrong(dcls(padding_mode='mirror'), ValueError, 'padding_mode must', "'mirror'"),
    wrong(dcls(padding='full'), ValueError, "'same' or 'valid'", "'full'"),
    # What doesn't go together.
    wrong(
        lambda: DCLSConv2d(2, 2, kernel_count=3),
        ValueError,
        'kernel_size may be left out only where kernel_count and dilated_kernel_size',
    ),
    wrong(
        dcls(dilated_kernel_size=8),
        ValueError,
        *('dilated_kernel_size (8, 8)', 'odd number', 'change it by one'),
    ),
    wrong(
        dcls(position_axes=(0, 0)),
        ValueError,
        'position_axes must be different axes of 0..1, at least one, got (0, 0)',
    ),
    wrong(dcls(position_axes='rows'), TypeError, 'position_axes must be an', "'rows'"),
    wrong(
        dcls(position_axes=(1,), dilation=2),
        ValueError,
        *('axis 0 is dense', 'dilation must be 1'),
    ),
    wrong(dcls(initial_sigma=0.2), ValueError, "'bilinear' has no sigma: leave out"),
    wrong(
        dcls(interpolation='max', formulation='sample'),
        ValueError,
        "formulation 'sample' needs interpolation 'bilinear', got 'max'",
    ),
    wrong(
        dcls(formulation='sample', backend='fft'),
        ValueError,
        "formulation 'sample' takes no backend",
    ),
    wrong(
        dcls(initial_positions='grid', kernel_count=4),
        ValueError,
        *('make kernel_count 9 or leave it out', 'got 4 (kernel_size (3, 3))'),
    ),
    wrong(
        dcls(padding='same', stride=2),
        ValueError,
        "padding 'same' needs stride 1, got stride (2, 2)",
    ),
    wrong(
        transposed(formulation='sample'),
        ValueError,
        "formulation must be 'construct' in a transposed convolution, got 'sample'",
    ),
    wrong(
        transposed(padding_mode='reflect'),
        ValueError,
        "padding_mode must be 'zeros' in a transposed convolution, got 'reflect'",
    ),
    wrong(transposed(padding='same'), TypeError, 'padding must be an', "got 'same'"),
    wrong(
        transposed(stride=2, output_padding=2),
        ValueError,
        'output_padding must be below the stride (2, 2), got (2, 2)',
    ),
    wrong(
        lambda: transposed(stride=2)()(torch.zeros(1, 2, 8, 8), output_size=(9, 9)),
        ValueError,
        'output_size must be from [18, 18] to [19, 19] for an input of (1, 2, 8, 8)',
    ),
    wrong(
        lambda: DCLSConv3d(2, 2, 3, stride=(1, 2)),
        ValueError,
        'stride must be one integer or 3 of them',
    ),
    wrong(
        lambda: DCLSConv1d(2, 2, 3)(torch.zeros(1, 2, 8, 8)),
        ValueError,
        'the input must have 3 axes (batch, channels, 1 spatial)',
    ),
    wrong(
        lambda: dcls()()(torch.zeros(1, 3, 8, 8)), ValueError, '4 channels', '(1, 3, 8'
    ),
]
