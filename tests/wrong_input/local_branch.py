"""Wrong arguments of the local branch of layers."""

from torch import nn

from dcls_mm.layers import DCLSConv2d
from dcls_mm.layers.noted import StateDictError

from . import wrong
from .conv_replacement import replace
from .layers import BOOLEAN, dcls, load, transposed

ROWS = [
    wrong(
        dcls(local_size=5),
        ValueError,
        'local_size must be at most the extent, 3 along axis 0, got 5: make it smaller',
    ),
    wrong(
        dcls(dilated_kernel_size=(3, 7), local_size=(3, 9)),
        ValueError,
        'local_size must be at most the extent, 7 along axis 1, got (3, 9)',
    ),
    wrong(
        dcls(dilated_kernel_size=7, local_size=4),
        ValueError,
        'local_size must be odd to have the centre of the extent, 7 along axis 0, got',
    ),
    wrong(dcls(local_size='5'), TypeError, 'local_size must be an integer or a tuple'),
    wrong(dcls(local_size=True), TypeError, 'local_size must be an integer, got True'),
    wrong(dcls(local_size=0), ValueError, 'local_size must be at least 1, got 0'),
    wrong(
        dcls(local_size=(3,)), ValueError, 'local_size must be one integer or 2 of them'
    ),
    wrong(
        lambda: DCLSConv2d.from_conv(
            nn.Conv2d(4, 4, 5), dilated_kernel_size=9, local_size=3
        ),
        ValueError,
        *('local_size must be at least the extent', 'axis 0 has 3 for 5 in 9'),
    ),
    wrong(
        load(dcls(local_size=3)),
        StateDictError,
        *(
            'local_weight: the state_dict',
            'local branch of (3, 3)',
            'this one has none',
        ),
        'build a DCLSConv2d with local_size=(3, 3)',
    ),
    wrong(
        load(dcls(local_size=3), local_size=1),
        StateDictError,
        *('local branch of (3, 3), this one has (1, 1)', 'local_size=(3, 3)'),
    ),
    wrong(
        load(dcls(), local_size=3),
        RuntimeError,
        'Missing key(s) in state_dict: "local_weight"',
    ),
    wrong(
        load(lambda: nn.Conv2d(4, 4, 5), dilated_kernel_size=9, local_size=3),
        StateDictError,
        *('weight: the state_dict has the 5x5 kernel', 'axis 0 has 3 for 5 in 9'),
    ),
    wrong(
        dcls(branch_norms=1, local_size=3), TypeError, 'branch_norms ' + BOOLEAN + '1'
    ),
    wrong(
        dcls(elements_from_zero=True),
        *(ValueError, 'elements_from_zero needs a local branch', 'local_size=None'),
    ),
    wrong(
        dcls(elements_from_zero=True, local_size=3, branch_norms=True),
        *(ValueError, 'leave out branch_norms', 'branch_norms=True'),
    ),
    wrong(
        dcls(elements_from_zero='yes', local_size=3),
        *(TypeError, 'elements_from_zero ' + BOOLEAN + "'yes'"),
    ),
    wrong(
        dcls(branch_norms=True),
        ValueError,
        'branch_norms needs a local branch: give local_size, or leave it out',
    ),
    wrong(
        transposed(branch_norms=True, local_size=2),
        ValueError,
        'branch_norms must be False in a transposed convolution, got True',
    ),
    wrong(
        lambda: DCLSConv2d.from_conv(
            nn.Conv2d(4, 4, 3), local_size=3, branch_norms=True
        ),
        ValueError,
        'branch_norms must be False to start from a plain convolution',
    ),
    wrong(
        replace(name='1', dilated_kernel_size=9, local_size=5, branch_norms=True),
        ValueError,
        *("1 can't become a DCLSConv2d", 'branch_norms must be False to start'),
    ),
    wrong(
        load(lambda: nn.Conv2d(4, 4, 3), local_size=3, branch_norms=True),
        StateDictError,
        *('3x3 kernel of a plain convolution', 'branch_norms must be False to start'),
    ),
    wrong(
        load(dcls(local_size=3, branch_norms=True), local_size=3),
        StateDictError,
        *('the state_dict is of a layer with norms', 'build it with branch_norms=True'),
    ),
]
