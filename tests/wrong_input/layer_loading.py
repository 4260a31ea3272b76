"""Layers that can't share positions, and state_dicts that layers refuse."""

from torch import nn

from dcls_mm.layers import FlexConv2d
from dcls_mm.layers.dropin import Dcls2d
from dcls_mm.layers.noted import StateDictError

from . import wrong
from .layers import dcls, gauss, load


def plain(source, **options):
    """Return the same for a plain dict, without torch's metadata."""
    return lambda: dcls(**options)().load_state_dict(dict(source().state_dict()))


def as_published(source):
    """Return a layer's state_dict with the published package's metadata."""
    state_dict = source().state_dict()
    state_dict._metadata[''] = dict(version=1)
    return state_dict


ROWS = [
    wrong(
        lambda: dcls()().share_positions(nn.Conv2d(4, 4, 3)),
        TypeError,
        *('positions can only be shared with a layer that has them', 'got Conv2d'),
    ),
    wrong(lambda: dcls()().share_positions(None), TypeError, 'got NoneType'),
    wrong(
        lambda: dcls()().share_positions(dcls(dilation=2)()),
        ValueError,
        'layers that share positions must have the same extent, got (3, 3) and (5, 5)',
    ),
    wrong(
        lambda: dcls()().share_positions(dcls(interpolation='triangle')()),
        ValueError,
        'the same interpolation, got bilinear and triangle',
    ),
    wrong(
        lambda: dcls()().share_positions(dcls(kernel_count=4)()),
        ValueError,
        'positions of one shape, got (2, 4, 4, 9) and (2, 4, 4, 4)',
    ),
    wrong(
        lambda: dcls()().fix_sigma(0.1), ValueError, "'bilinear' has no sigma to fix"
    ),
    wrong(
        load(dcls(dilation=2), dilation=4),
        StateDictError,
        'P: the state_dict is of a layer of extent (5, 5), this one has (9, 9)',
    ),
    wrong(
        load(gauss(), interpolation='max'),
        StateDictError,
        "of interpolation 'gauss', the layer of 'max': build it with interpolation=",
    ),
    wrong(
        load(gauss()), StateDictError, 'SIG: the state_dict is of a layer with sigma'
    ),
    wrong(
        load(gauss(position_axes=(1, 0)), interpolation='gauss'),
        StateDictError,
        'rows stand for the spatial axes (1, 0), here for (0, 1)',
        'build it with position_axes=(1, 0)',
    ),
    wrong(
        lambda: Dcls2d(4, 4, 9, dilated_kernel_size=3).load_state_dict(
            gauss()().state_dict()
        ),
        StateDictError,
        *('axes (0, 1), here for (1, 0): load it in a DCLSConv2d', 'to_published'),
    ),
    wrong(
        lambda: Dcls2d(4, 4, 9, version='max').load_state_dict(
            Dcls2d(4, 4, 9).state_dict()
        ),
        *(StateDictError, "build it with version='gauss'"),
    ),
    wrong(
        lambda: gauss()().load_state_dict(as_published(gauss())),
        StateDictError,
        *('(1, 0), here for (0, 1)', 'dcls_mm.conversion.from_published'),
    ),
    wrong(
        plain(gauss(), interpolation='gauss'),
        StateDictError,
        *('P: the state_dict has no metadata', 'position_axes=(0, 1)', "='gauss'"),
    ),
    wrong(
        plain(dcls(interpolation='v1'), interpolation='v1'),
        StateDictError,
        *('P: the state_dict has no metadata', "version='v1'"),
    ),
    wrong(
        lambda: FlexConv2d(2, 2, 7).load_state_dict(FlexConv2d(2, 2, 9).state_dict()),
        StateDictError,
        'net.output.weight: the state_dict is of a layer of extent (9, 9)',
    ),
]
