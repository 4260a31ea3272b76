"""DCLSConvTranspose1d/2d/3d in place of torch.nn.ConvTransposeNd."""

import pytest
import torch
from conftest import assert_close
from torch import nn

from dcls_mm.layers import (
    DCLSConv2d,
    DCLSConvTranspose1d,
    DCLSConvTranspose2d,
    DCLSConvTranspose3d,
)

LAYERS = {1: DCLSConvTranspose1d, 2: DCLSConvTranspose2d, 3: DCLSConvTranspose3d}
CONVS = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


@pytest.mark.parametrize('ndim', [1, 2, 3])
@pytest.mark.parametrize(
    'arguments',
    [
        dict(kernel_size=2, stride=2),
        dict(kernel_size=3, stride=2, padding=1, output_padding=1, groups=2),
        dict(kernel_size=4, stride=3, padding=1, dilation=2, bias=False),
        dict(kernel_size=3, groups=4),
    ],
)
@pytest.mark.parametrize('larger', [0, 4])
def test_from_conv_computes_the_same(ndim, arguments, larger):
    conv = CONVS[ndim](4, 8, **arguments)
    span = conv.dilation[0] * (conv.kernel_size[0] - 1) + 1
    layer = LAYERS[ndim].from_conv(conv, dilated_kernel_size=span + larger)
    assert layer.weight.numel() == conv.weight.numel()
    x = torch.randn(2, 4, *(6, 5, 4)[:ndim])
    assert_close(layer(x), conv(x), factor=5)


@pytest.mark.parametrize('interpolation', ['bilinear', 'gauss'])
def test_is_the_transpose(interpolation):
    """<conv(x), y> = <x, transposed(y)> for the same kernel; all gradients agree."""
    options = dict(
        kernel_count=5,
        dilated_kernel_size=(7, 5),
        stride=2,
        padding=2,
        groups=2,
        bias=False,
        interpolation=interpolation,
        dtype=torch.float64,
    )
    conv = DCLSConv2d(4, 6, **options)
    transposed = DCLSConvTranspose2d(6, 4, **options)
    transposed.load_state_dict(conv.state_dict())
    x = torch.randn(2, 4, 11, 13, dtype=torch.float64)
    y = torch.randn_like(conv(x))
    products = (conv(x) * y).sum(), (x * transposed(y, x.shape[2:])).sum()
    assert_close(products[1], products[0])
    grads = [
        torch.autograd.grad(product, list(layer.parameters()))
        for product, layer in zip(products, (conv, transposed))
    ]
    for expected, grad in zip(*grads):
        assert_close(grad, expected)


def test_output_size():
    layer = DCLSConvTranspose2d(2, 2, 3, stride=3, padding=1, dilated_kernel_size=5)
    conv = nn.ConvTranspose2d(2, 2, 3, stride=3, padding=1)
    x = torch.randn(1, 2, 4, 5)
    for size in [(10, 13), (12, 15), (1, 2, 11, 14)]:
        assert layer(x, size).shape == conv(x, list(size)).shape
    for size in [(9, 13), (13, 13), (10,)]:
        with pytest.raises(ValueError, match=r'from \[10, 13\] to \[12, 15\]'):
            layer(x, size)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(output_padding=2), r'below the stride \(2, 2\), got \(2, 2\)'),
        (dict(output_padding=-1), 'output_padding must be at least 0'),
        (dict(padding_mode='reflect'), "padding_mode must be 'zeros'.*'reflect'"),
        (dict(formulation='sample'), "formulation must be 'construct'.*'sample'"),
        (dict(per_output_positions=False), 'per_output_positions must be True'),
        (dict(backend='native'), "backend must be None.*'native'"),
        (dict(groups=3), 'groups must divide in_channels'),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        DCLSConvTranspose2d(4, 4, 3, stride=2, **options)


def test_bad_input():
    layer = DCLSConvTranspose2d(4, 6, 3, groups=2)
    with pytest.raises(ValueError, match='must have 4 channels, got 6'):
        layer(torch.randn(1, 6, 5, 5))
    with pytest.raises(TypeError, match='torch.nn.ConvTranspose2d .* got Conv2d'):
        DCLSConvTranspose2d.from_conv(nn.Conv2d(4, 4, 3))
