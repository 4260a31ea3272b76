"""LargeKernelConv2d equals torch.nn.Conv2d, on our backends."""

import pytest
import torch
from conftest import assert_close
from mmcv.cnn import build_conv_layer
from torch import nn

import dcls_mm  # noqa: F401
from dcls_mm.layers import LargeKernelConv2d


@pytest.mark.parametrize(
    'arguments',
    [
        dict(kernel_size=17, padding=8, groups=4),
        dict(kernel_size=(3, 5), stride=2, padding=(1, 2), bias=False),
        dict(kernel_size=7, padding='same', dilation=2, groups=4),
        dict(kernel_size=(3, 1), dilation=(4, 1), groups=2, padding_mode='circular'),
    ],
)
def test_in_the_place_of_conv2d(arguments):
    """state_dict, output and gradients are the same."""
    conv = nn.Conv2d(4, 8 if 'same' not in arguments.values() else 4, **arguments)
    layer = LargeKernelConv2d(4, conv.out_channels, **arguments)
    layer.load_state_dict(conv.state_dict())
    assert list(dict(layer.named_parameters())) == list(dict(conv.named_parameters()))
    x = torch.randn(2, 4, 20, 21)
    y, expected = layer(x), conv(x)
    assert_close(y, expected, factor=5)
    seed = torch.randn_like(y)
    for grad, expected_grad in zip(
        torch.autograd.grad(y, list(layer.parameters()), seed),
        torch.autograd.grad(expected, list(conv.parameters()), seed),
    ):
        assert_close(grad, expected_grad, factor=10)


def test_initial_values_are_those_of_conv2d():
    torch.manual_seed(3)
    conv = nn.Conv2d(4, 8, 5)
    torch.manual_seed(3)
    layer = LargeKernelConv2d(4, 8, 5)
    for name, parameter in layer.named_parameters():
        assert torch.equal(parameter, conv.get_parameter(name))


def test_is_registered():
    layer = build_conv_layer(dict(type='LargeKernelConv2d'), 4, 4, 17, groups=4)
    assert isinstance(layer, LargeKernelConv2d)


def test_forced_backend():
    layer = LargeKernelConv2d(4, 8, 3, backend='cpu_depthwise')
    with pytest.raises(ValueError, match="'cpu_depthwise' cannot serve.*depthwise"):
        layer(torch.randn(1, 4, 9, 9))
