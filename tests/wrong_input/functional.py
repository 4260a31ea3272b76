"""Wrong arguments of dcls_mm.functional."""

import math

import numpy as np
import torch

from dcls_mm.functional import (
    autotune,
    construct_kernel,
    convolve,
    convolve_transposed,
    sampled_convolution,
)
from dcls_mm.functional._arguments import as_bool, as_float, as_int, as_tuple
from dcls_mm.functional.repulsion import repulsion

from . import wrong

X = torch.zeros(2, 4, 8, 8)
KERNEL = torch.zeros(4, 1, 3, 3)
BIAS = torch.zeros(4)
LARGE = torch.zeros(4, 1, 15, 15)
LONG = torch.zeros(4, 1, 40)
WEIGHT, POSITIONS = torch.zeros(4, 1, 3), torch.zeros(2, 4, 1, 3)
TOO_LARGE = "Kernel size can't be greater than actual input size"


def convolving(*says, error=ValueError, **change):
    """Make a row for a depthwise :func:`convolve` with some wrong arguments."""
    arguments = {**dict(x=X, kernel=KERNEL, groups=4), **change}
    return wrong(lambda: convolve(**arguments), error, *says)


def transposing(*says, error=ValueError, **change):
    arguments = {**dict(x=X, kernel=KERNEL, groups=4), **change}
    return wrong(lambda: convolve_transposed(**arguments), error, *says)


def constructing(*says, error=ValueError, **change):
    defaults = dict(weight=WEIGHT, positions=POSITIONS, kernel_size=5)
    arguments = {**defaults, **change}
    return wrong(lambda: construct_kernel(**arguments), error, *says)


def sampling(*says, error=ValueError, **change):
    defaults = dict(x=X, weight=WEIGHT, positions=POSITIONS, kernel_size=5, groups=4)
    arguments = {**defaults, **change}
    return wrong(lambda: sampled_convolution(**arguments), error, *says)


CONVOLUTIONS = [
    convolving('groups must divide the 4 output channels, got 3', groups=3),
    convolving('groups must be at least 1, got 0', groups=0),
    convolving('groups must be an integer, got 2.0', error=TypeError, groups=2.0),
    convolving('groups must be an integer, got True', error=TypeError, groups=True),
    convolving('must have 4 channels, got 8', x=torch.zeros(1, 8, 8, 8)),
    convolving('the input must have 4 axes', 'or 3 without', x=torch.zeros(8, 8)),
    convolving('the input must be a torch.Tensor, got None', error=TypeError, x=None),
    convolving(
        'the input must be a torch.Tensor, got a ndarray',
        error=TypeError,
        x=np.zeros((2, 4, 8, 8), np.float32),
    ),
    convolving(
        'the input must be a torch.Tensor, got a list', error=TypeError, x=[[1.0]]
    ),
    convolving(
        'the input must be of a floating dtype',
        'got torch.uint8',
        error=TypeError,
        x=X.byte(),
    ),
    convolving(
        'the input must be of a floating dtype',
        'got torch.complex64',
        error=TypeError,
        x=X.cfloat(),
    ),
    convolving('kernel must be a torch.Tensor, got None', error=TypeError, kernel=None),
    convolving(
        'kernel must be of a floating dtype',
        'got torch.int64',
        error=TypeError,
        kernel=KERNEL.long(),
    ),
    convolving(
        'kernel must be of a floating dtype',
        'got torch.complex64',
        error=TypeError,
        kernel=KERNEL.cfloat(),
    ),
    convolving('1, 2 or 3 axes of extent, got (4, 1)', kernel=torch.zeros(4, 1)),
    convolving('1, 2 or 3 axes', 'got (1, 1, 1, 1, 1, 1)', kernel=torch.zeros([1] * 6)),
    convolving('no size 0', 'got (4, 1, 0, 3)', kernel=torch.zeros(4, 1, 0, 3)),
    convolving('no size 0', 'got (0, 4, 3, 3)', kernel=torch.zeros(0, 4, 3, 3)),
    convolving('no size 0', 'got (4, 0, 3, 3)', kernel=torch.zeros(4, 0, 3, 3)),
    convolving('bias must have the shape (4,), got (3,)', bias=torch.zeros(3)),
    convolving('bias must have the shape (4,), got (4, 1)', bias=torch.zeros(4, 1)),
    convolving('bias must be a torch.Tensor, got a bool', error=TypeError, bias=True),
    convolving(
        'bias must be of a floating dtype',
        'got torch.int64',
        error=TypeError,
        bias=BIAS.long(),
    ),
    convolving(
        'bias type (torch.float64) should be the same',
        error=RuntimeError,
        kernel=LARGE,
        padding=7,
        backend='cpu_depthwise',
        bias=BIAS.double(),
    ),
    convolving(
        'Input type (torch.float32)',
        'bias type (torch.float16) should be the same',
        error=RuntimeError,
        backend='fft',
        bias=BIAS.half(),
    ),
    convolving(
        'Input type (torch.float64) and kernel type (torch.float32) should be the same',
        error=RuntimeError,
        x=X.double(),
    ),
    convolving(
        'Input and kernel should be on the same device, got cpu and meta',
        error=RuntimeError,
        kernel=KERNEL.to('meta'),
    ),
    convolving(
        'Input and bias should be on the same device, got cpu and meta',
        error=RuntimeError,
        bias=BIAS.to('meta'),
        backend='fft',
    ),
    convolving('stride must be at least 1, got 0', stride=0),
    convolving(
        'stride must be one integer or 2 of them', 'got (1, 2, 3)', stride=(1, 2, 3)
    ),
    convolving('stride must be an integer, got 1.5', error=TypeError, stride=(1, 1.5)),
    convolving('stride must be an integer', "got '2'", error=TypeError, stride='2'),
    convolving('stride must be an integer', "got b'11'", error=TypeError, stride=b'11'),
    convolving(
        'stride must be an integer', 'got {1, 2}', error=TypeError, stride={1, 2}
    ),
    convolving('stride must be an integer, got None', error=TypeError, stride=None),
    convolving('padding must be at least 0, got -1', padding=-1),
    convolving('padding must be at least 0, got -2', padding=(1, -2)),
    convolving(
        'padding must be an integer, got nan', error=TypeError, padding=float('nan')
    ),
    convolving("integers, 'same' or 'valid', got 'full'", padding='full'),
    convolving("'same' needs stride 1, got stride (2, 2)", padding='same', stride=2),
    convolving(
        "padding_mode must be one of ['zeros', 'reflect', 'replicate', 'circular']",
        "got 'mirror'",
        padding_mode='mirror',
    ),
    convolving('padding_mode must be one of', "got ['zeros']", padding_mode=['zeros']),
    convolving('padding_mode must be one of', 'got None', padding_mode=None),
    convolving(
        "backend must be one of ['direct', 'fft', 'cpu_depthwise', 'triton', "
        "'native'], got 'cudnn'",
        backend='cudnn',
    ),
    convolving('backend must be one of', "got ['fft']", backend=['fft']),
    convolving('backend must be one of', 'got False', backend=False),
    convolving(
        "backend 'cpu_depthwise' cannot serve this call: it needs padding below the "
        'kernel size, got (3, 3)',
        padding=3,
        backend='cpu_depthwise',
    ),
    convolving(
        "backend 'fft' cannot serve this call: the input is empty",
        x=X[:0],
        backend='fft',
    ),
    convolving(
        'Calculated padded input size per channel: (12 x 12). Kernel size: (15 x 15)',
        TOO_LARGE,
        error=RuntimeError,
        kernel=LARGE,
        padding=2,
    ),
    convolving(
        '(12 x 12). Kernel size: (15 x 15)',
        TOO_LARGE,
        error=RuntimeError,
        kernel=LARGE,
        padding=2,
        backend='cpu_depthwise',
    ),
    convolving(
        '(28). Kernel size: (40)',
        TOO_LARGE,
        error=RuntimeError,
        x=X[..., 0],
        kernel=LONG,
        padding=10,
        backend='fft',
    ),
    convolving(
        '(12 x 12). Kernel size: (15 x 15)',
        TOO_LARGE,
        error=RuntimeError,
        kernel=LARGE,
        padding=2,
        padding_mode='reflect',
    ),
    convolving(
        'Only zero batch inputs are supported',
        'got input shape: [2, 4, 0, 8]',
        error=RuntimeError,
        x=X[:, :, :0],
        padding=1,
    ),
]

TRANSPOSED = [
    transposing('groups must divide the 4 input channels, got 3', groups=3),
    transposing('no size 0', 'got (4, 0, 3, 3)', kernel=torch.zeros(4, 0, 3, 3)),
    transposing(
        'output_padding must be below the stride (2, 2), got (0, 2)',
        stride=2,
        output_padding=(0, 2),
    ),
    transposing('output_padding must be at least 0, got -1', output_padding=-1),
    transposing(
        'padding must be an integer', "got 'same'", error=TypeError, padding='same'
    ),
    transposing(
        'kernel type (torch.float64) should be the same',
        error=RuntimeError,
        kernel=KERNEL.double(),
    ),
    transposing(
        'Given input size per channel: (1 x 8)',
        '(-1 x 6). Output size is too small',
        error=RuntimeError,
        x=X[:, :, :1],
        padding=2,
    ),
    transposing('the input must be a torch.Tensor, got a str', error=TypeError, x='x'),
]

KERNELS = [
    constructing(
        'weight must be a torch.Tensor, got None', error=TypeError, weight=None
    ),
    constructing(
        'weight must be a torch.Tensor, got a ndarray',
        error=TypeError,
        weight=WEIGHT.numpy(),
    ),
    constructing(
        'weight must be of a floating dtype such as torch.float32, got torch.int64',
        error=TypeError,
        weight=WEIGHT.long(),
    ),
    constructing('got torch.complex64', error=TypeError, weight=WEIGHT.cfloat()),
    constructing('with at least one element', 'got (4, 1, 0)', weight=WEIGHT[..., :0]),
    constructing('(*kernels, count)', 'got ()', weight=torch.tensor(1.0)),
    constructing(
        'positions must have the shape (ndim, 4, 1, 3)',
        'got (2, 4, 1, 2)',
        positions=POSITIONS[..., :2],
    ),
    constructing(
        'positions must have 1, 2 or 3 rows, got 4',
        positions=torch.zeros(4, 4, 1, 3),
    ),
    constructing(
        'positions must be of a floating dtype',
        'got torch.int64',
        error=TypeError,
        positions=POSITIONS.long(),
    ),
    constructing(
        'positions must be a torch.Tensor, got a list',
        error=TypeError,
        positions=POSITIONS.tolist(),
    ),
    constructing("interpolation 'gauss' needs sigma", interpolation='gauss'),
    constructing("interpolation 'bilinear' has no sigma", sigma=POSITIONS),
    constructing(
        'sigma must be shaped like positions, (2, 4, 1, 3), got (4, 1, 3)',
        sigma=WEIGHT,
        interpolation='max',
    ),
    constructing(
        'sigma must be a torch.Tensor, got a float',
        error=TypeError,
        sigma=0.23,
        interpolation='gauss',
    ),
    constructing(
        'sigma must be of a floating dtype',
        'got torch.int64',
        error=TypeError,
        sigma=POSITIONS.long(),
        interpolation='max',
    ),
    constructing('interpolation must be one of', "got 'cubic'", interpolation='cubic'),
    constructing('interpolation must be one of', "got ['max']", interpolation=['max']),
    constructing('interpolation must be one of', 'got None', interpolation=None),
    constructing('kernel_size must be at least 1, got 0', kernel_size=(5, 0)),
    constructing('kernel_size must be one integer or 2', 'got (5,)', kernel_size=(5,)),
    constructing(
        'kernel_size must be an integer', 'got 5.0', error=TypeError, kernel_size=5.0
    ),
]

SAMPLES = [
    sampling('the input must have 4 channels, got 2', x=X[:, :2]),
    sampling(
        'the input must be of a floating dtype',
        'got torch.int64',
        error=TypeError,
        x=X.long(),
    ),
    sampling('weight must be a torch.Tensor, got None', error=TypeError, weight=None),
    sampling(
        'weight must be of a floating dtype',
        'got torch.int32',
        error=TypeError,
        weight=WEIGHT.int(),
    ),
    sampling('with some outputs', 'got (4, 3)', weight=WEIGHT[:, 0]),
    sampling('with at least one element', weight=WEIGHT[..., :0]),
    sampling(
        'positions must be a torch.Tensor, got None', error=TypeError, positions=None
    ),
    sampling('groups must divide the 4 output channels, got 3', groups=3),
    sampling(
        'bias must be of a floating dtype',
        'got torch.bool',
        error=TypeError,
        bias=BIAS.bool(),
    ),
    sampling('padding_mode must be one of', "got 'mirror'", padding_mode='mirror'),
    sampling(
        'Calculated padded input size per channel: (10 x 10). Kernel size: (17 x 17)',
        TOO_LARGE,
        error=RuntimeError,
        kernel_size=17,
        padding=1,
    ),
    sampling(
        'Only zero batch inputs are supported',
        error=RuntimeError,
        x=X[..., :0],
        padding=4,
    ),
]

OTHERS = [
    wrong(
        lambda: as_bool('bias', 'no'), TypeError, "bias must be True or False, got 'no'"
    ),
    wrong(
        lambda: as_bool('bias', None), TypeError, 'bias must be True or False, got None'
    ),
    wrong(
        lambda: as_float('sigma', math.nan), ValueError, 'sigma must be finite, got nan'
    ),
    wrong(
        lambda: as_float('sigma', 10**400), ValueError, 'sigma must be finite, got 1000'
    ),
    wrong(
        lambda: as_float('sigma', True), TypeError, 'sigma must be a number, got True'
    ),
    wrong(
        lambda: as_float('sigma', '0.1'), TypeError, "sigma must be a number, got '0.1'"
    ),
    wrong(
        lambda: as_float('rate', 1.5, 0, 1),
        ValueError,
        'rate must be finite and at least 0 and at most 1, got 1.5',
    ),
    wrong(
        lambda: as_int('groups', torch.tensor(1.0), minimum=1),
        TypeError,
        'groups must be an integer, got tensor(1.)',
    ),
    wrong(
        lambda: as_tuple('stride', torch.tensor(0), 2, minimum=1),
        ValueError,
        'stride must be at least 1, got 0',
    ),
    wrong(
        lambda: autotune('off'), TypeError, "enabled must be True or False, got 'off'"
    ),
    wrong(lambda: autotune(1), TypeError, 'enabled must be True or False, got 1'),
    wrong(
        lambda: repulsion(None), TypeError, 'positions must be a torch.Tensor, got None'
    ),
    wrong(
        lambda: repulsion(POSITIONS.long()),
        TypeError,
        'positions must be of a floating dtype',
        'got torch.int64',
    ),
    wrong(
        lambda: repulsion(torch.zeros(3)),
        ValueError,
        'positions must have the shape (axes, *kernels, count), got (3,)',
    ),
]

ROWS = [*CONVOLUTIONS, *TRANSPOSED, *KERNELS, *SAMPLES, *OTHERS]
