"""Wrong arguments of dcls_mm.functional."""

import torch

from dcls_mm.functional import convolve

from . import wrong

X = torch.zeros(2, 4, 8, 8)
KERNEL = torch.zeros(4, 1, 3, 3)

ROWS = [
    wrong(
        lambda: convolve(X, KERNEL, groups=3),
        ValueError,
        'groups must divide the 4 output channels, got 3',
    ),
]
