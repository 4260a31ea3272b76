"""Wrong calls of names from the published package."""

from functools import partial

import torch

from dcls_mm.layers import dropin
from dcls_mm.layers.noted import StateDictError

from . import wrong


def layer(name='Dcls2d', **arguments):
    arguments = {'kernel_count': 3, 'dilated_kernel_size': 5, **arguments}
    return getattr(dropin, name)(4, 4, **arguments)


def made(name, **arguments):
    return later(layer, name, **arguments)


def later(function, *arguments, **options):
    """Defer the call to when the table runs."""
    return lambda: function(*arguments, **options)


def assigned(attribute, value, name='Dcls2d', **arguments):
    return lambda: setattr(layer(name, **arguments), attribute, value)


def constructed(*tensors, version='gauss'):
    return lambda: layer(version=version).DCK(*tensors)


def loaded(theirs, ours):
    """Return a call that loads one layer's state_dict into another, as published."""

    def call():
        state_dict = theirs().state_dict()
        state_dict._metadata = {'': {'version': 1}, 'DCK': {'version': 1}}
        ours().load_state_dict(state_dict)

    return call


X = torch.zeros(1, 4, 9, 9)
W = torch.zeros(4, 4, 3)
P = torch.zeros(2, 4, 4, 3)
KERNEL_1D = partial(later, dropin.ConstructKernel1d, 4, 4, 1)
LEGACY = partial(later, dropin.LegacyDcls2d, 4, 4)
NOT_A_VERSION = "version must be one of ['v0', 'v1', 'max', 'gauss'], got"

ROWS = [
    # Making the layers.
    wrong(made('Dcls2d', version='v2'), ValueError, f"{NOT_A_VERSION} 'v2'"),
    wrong(made('Dcls1d', version=None), ValueError, f'{NOT_A_VERSION} None'),
    wrong(made('Dcls3_1d', version=['v1']), ValueError, f"{NOT_A_VERSION} ['v1']"),
    wrong(made('Dcls2d', bias='no'), TypeError, "bias must be True or False, got 'no'"),
    wrong(
        made('Dcls1d', kernel_count=None),
        TypeError,
        'kernel_count must be an integer, got None',
    ),
    wrong(
        made('Dcls3d', kernel_count=0), ValueError, 'kernel_count must be at least 1'
    ),
    wrong(
        made('Dcls2d', dilated_kernel_size='7'),
        TypeError,
        'dilated_kernel_size must be an integer',
        "got '7'",
    ),
    wrong(
        made('Dcls2d', dilated_kernel_size=(5, 5, 5)),
        ValueError,
        'dilated_kernel_size must be one integer or 2 of them',
        'got (5, 5, 5)',
    ),
    wrong(
        made('Dcls2dK1d', dilated_kernel_size=(5, 5)),
        ValueError,
        'dilated_kernel_size must be one integer or 1 of them',
    ),
    wrong(
        made('Dcls2d', use_implicit_gemm='no'),
        TypeError,
        "use_implicit_gemm must be True or False, got 'no'",
    ),
    wrong(
        made('Dcls2d', kernel_size=3),
        TypeError,
        "Dcls2d.__init__() got an unexpected keyword argument 'kernel_size'",
    ),
    wrong(
        lambda: dropin.Dcls3_1d(4, 4),
        TypeError,
        "__init__() missing a required argument: 'kernel_count'",
    ),
    wrong(made('Dcls1d', padding='full'), ValueError, "'same' or 'valid', got 'full'"),
    wrong(
        made('Dcls1d', padding='same', stride=2),
        ValueError,
        "padding 'same' needs stride 1, got stride (2,)",
    ),
    wrong(
        made('Dcls1d', padding_mode='mirror'),
        ValueError,
        'padding_mode must be one of',
        "got 'mirror'",
    ),
    wrong(made('Dcls2d', stride=0), ValueError, 'stride must be at least 1, got 0'),
    wrong(made('Dcls3d', groups=3), ValueError, 'groups must divide in_channels (4)'),
    wrong(
        made('Dcls3_1d', dense_kernel_size=(3,)),
        ValueError,
        'dense_kernel_size must be one integer or 2 of them, one per axis, got (3,)',
    ),
    wrong(
        made('Dcls2_1d', dense_kernel_size=0),
        ValueError,
        'dense_kernel_size must be at least 1, got 0',
    ),
    wrong(made('Dcls2dK1d', flat_dim=2), ValueError, 'flat_dim must be 0 or 1, got 2'),
    wrong(
        made('Dcls2dK1d', flat_dim=True),
        TypeError,
        'flat_dim must be an integer, got True',
    ),
    wrong(
        made('Dcls1d', backend='cudnn'),
        ValueError,
        'backend must be',
        "got 'cudnn'",
    ),
    wrong(
        lambda: dropin.Dcls2d.from_conv(torch.nn.Conv2d(4, 4, 3)),
        TypeError,
        'Dcls2d has the arguments of the dcls package',
        'use DCLSConv2d.from_conv',
    ),
    # Assignments.
    wrong(assigned('version', 'v9'), ValueError, f"{NOT_A_VERSION} 'v9'"),
    wrong(assigned('version', 'triangle'), ValueError, f"{NOT_A_VERSION} 'triangle'"),
    wrong(
        assigned('version', 'max', version='v1'),
        ValueError,
        "version can't become 'max', which needs SIG",
        "a layer made as 'v1' has none",
    ),
    wrong(
        lambda: setattr(layer(version='v0').DCK, 'version', 'gauss'),
        ValueError,
        "version can't become 'gauss'",
        "'v0'",
    ),
    wrong(
        lambda: setattr(layer().DCK, 'version', None),
        ValueError,
        f'{NOT_A_VERSION} None',
    ),
    wrong(
        assigned('DCK', dropin.ConstructKernel2d(4, 4, 1, 3, 5, 'v1')),
        AttributeError,
        'DCK stands for what the layer itself computes and is not to be replaced',
        'assign its version',
    ),
    wrong(
        assigned('use_implicit_gemm', None),
        TypeError,
        'use_implicit_gemm must be True or False, got None',
    ),
    # Constructing a kernel.
    wrong(
        constructed(W, P), TypeError, "SIG must be a tensor for version 'gauss'", 'None'
    ),
    wrong(
        constructed(W, None, version='v1'),
        TypeError,
        "P must be a tensor for version 'v1', got NoneType",
    ),
    wrong(constructed([0.0], P, P), TypeError, 'W must be a tensor', 'got list'),
    wrong(
        constructed(W, P[:1], P),
        ValueError,
        "P must have a row for each of 2 axes, of W's shape (4, 4, 3)",
        'got (1, 4, 4, 3)',
    ),
    wrong(
        constructed(W, P, P[..., :2]),
        ValueError,
        'SIG must have a row for each of 2 axes',
        'got (2, 4, 4, 2)',
    ),
    wrong(KERNEL_1D(3, 5, 'v2'), ValueError, f"{NOT_A_VERSION} 'v2'"),
    wrong(KERNEL_1D(0, 5, 'v1'), ValueError, 'kernel_count must be at least 1, got 0'),
    wrong(
        KERNEL_1D(3, (5, 5), 'v1'),
        ValueError,
        'dilated_kernel_size must be one integer or 1 of them',
    ),
    wrong(KERNEL_1D(3, 5.0, 'v1'), TypeError, 'dilated_kernel_size must be an integer'),
    wrong(
        lambda: dropin.ConstructKernel3_1d(4, 4, 1, 3, (1,), 5, 'v1'),
        ValueError,
        'dense_kernel_size must be one integer or 2 of them',
    ),
    wrong(
        lambda: dropin.ConstructKernel2d('4', 4, 1, 3, 5, 'v1'),
        TypeError,
        'out_channels must be an integer',
        "got '4'",
    ),
    wrong(
        lambda: setattr(dropin.ConstructKernel1d(4, 4, 1, 3, 5, 'v1'), 'version', 1),
        ValueError,
        f'{NOT_A_VERSION} 1',
    ),
    # Convolving.
    wrong(
        lambda: layer()(X[:, :3]), ValueError, 'the input must have 4 channels, got 3'
    ),
    wrong(
        lambda: layer()(X[0, 0]),
        ValueError,
        'the input must have 4 axes (batch, channels, 2 spatial), or 3 without batch',
    ),
    wrong(
        lambda: layer()._conv_forward(X, W, torch.zeros(3), P, P),
        ValueError,
        'bias must have the shape (4,), got (3,)',
    ),
    wrong(
        lambda: layer()._conv_forward(X, None, None, P, P),
        TypeError,
        'W must be a tensor',
        'got NoneType',
    ),
    wrong(
        lambda: layer()._conv_forward(X[:, :2], W, None, P, P),
        ValueError,
        'the input must have 4 channels, got 2',
    ),
    # Loading.
    wrong(
        loaded(
            lambda: layer(dilated_kernel_size=(5, 7)),
            lambda: layer(dilated_kernel_size=(5, 7)),
        ),
        StateDictError,
        "Dcls2d of version 'gauss' and extent (5, 7)",
        'dcls_mm.conversion.from_published',
    ),
    wrong(
        loaded(
            lambda: layer('Dcls2_1d', dense_kernel_size=2),
            lambda: layer('Dcls2_1d', dense_kernel_size=2),
        ),
        StateDictError,
        "Dcls2_1d of version 'gauss'",
        'computes something else',
    ),
    # The layer of the first releases.
    wrong(LEGACY(3, gain='1'), TypeError, "gain must be a number, got '1'"),
    wrong(LEGACY(3, gain=True), TypeError, 'gain must be a number, got True'),
    wrong(LEGACY(3, gain=0), ValueError, 'gain must be a positive number, got 0'),
    wrong(LEGACY(3, bias=2), TypeError, 'bias must be True or False, got 2'),
    wrong(LEGACY(None), TypeError, 'kernel_size must be an integer, got None'),
    wrong(LEGACY(3, dilation='2'), TypeError, 'dilation must be an integer', "got '2'"),
    wrong(
        LEGACY(3, formulation='im2col'),
        ValueError,
        "formulation must be one of ['construct', 'sample'], got 'im2col'",
    ),
]
