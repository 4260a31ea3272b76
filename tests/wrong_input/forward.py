"""Wrong inputs for valid layers."""

import torch

from dcls_mm.layers import (
    DCLSConv1d,
    DCLSConv2d,
    DCLSConv3d,
    DCLSConvTranspose1d,
    DCLSConvTranspose2d,
    FlexConv1d,
    FlexConv2d,
    LargeKernelConv2d,
)

from . import wrong

X = torch.zeros(2, 4, 8, 8)
TOO_LARGE = "Kernel size can't be greater than actual input size"


def calling(layer, x, *says, error=ValueError, **options):
    return wrong(lambda: layer(x, **options), error, *says)


ROWS = [
    calling(
        DCLSConv2d(4, 4, 3),
        X.numpy(),
        'the input must be a torch.Tensor, got a ndarray',
        error=TypeError,
    ),
    calling(
        DCLSConv1d(4, 4, 3), None, 'must be a torch.Tensor, got None', error=TypeError
    ),
    calling(
        DCLSConv2d(4, 4, 3),
        X.double(),
        'Input type (torch.float64)',
        'should be the same',
        error=RuntimeError,
    ),
    calling(DCLSConv3d(4, 4, 3), X[:0, :, 0], 'the input must have 5 axes'),
    calling(
        DCLSConv1d(4, 4, kernel_count=3, dilated_kernel_size=41, groups=4),
        X[..., 0],
        '(8). Kernel size: (41)',
        TOO_LARGE,
        error=RuntimeError,
    ),
    calling(
        DCLSConv2d(4, 4, kernel_count=3, dilated_kernel_size=17, formulation='sample'),
        X,
        '(8 x 8). Kernel size: (17 x 17)',
        TOO_LARGE,
        error=RuntimeError,
    ),
    calling(
        LargeKernelConv2d(4, 4, 13, groups=4, padding=1),
        X,
        '(10 x 10). Kernel size: (13 x 13)',
        TOO_LARGE,
        error=RuntimeError,
    ),
    calling(
        FlexConv2d(4, 4, dilated_kernel_size=33),
        X,
        '(8 x 8). Kernel size: (33 x 33)',
        TOO_LARGE,
        error=RuntimeError,
    ),
    calling(
        FlexConv1d(4, 4, dilated_kernel_size=9),
        X[..., 0].half(),
        'should be the same',
        error=RuntimeError,
    ),
    calling(
        DCLSConvTranspose2d(4, 4, 3, stride=2),
        X,
        'output_size must be from [17, 17] to [18, 18]',
        'got (33, 33)',
        output_size=33,
    ),
    calling(
        DCLSConvTranspose1d(4, 4, 3),
        X[..., 0],
        'output_size must be an integer, got 10.5',
        error=TypeError,
        output_size=(10.5,),
    ),
    calling(
        DCLSConvTranspose2d(4, 4, 3),
        X,
        'output_size must be an integer',
        "got '33'",
        error=TypeError,
        output_size='33',
    ),
    calling(
        DCLSConvTranspose2d(4, 4, 3),
        None,
        'the input must be a torch.Tensor, got None',
        error=TypeError,
        output_size=(10, 10),
    ),
]
