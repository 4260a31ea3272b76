"""The operators of the depthwise convolution, with torch's own operators on a CPU."""

import pytest
import torch
import torch.nn.functional as F
from conftest import assert_close
from torch.utils.flop_counter import FlopCounterMode

from dcls_mm.functional.operators.depthwise import (
    convolve_depthwise,
    depthwise_kernel_gradient,
)

# Extent, zeros before, size of the output of an image of 9 x 8 pixels.
GEOMETRIES = {
    'same': ((5, 3), (2, 1), (9, 8)),
    'valid': ((3, 3), (0, 0), (7, 6)),
    'asymmetric': ((3, 5), (0, 3), (8, 9)),
    'cropped': ((3, 2), (-2, 1), (4, 9)),
    'far outside': ((3, 3), (5, -7), (16, 5)),
    'beyond the image': ((3, 3), (-11, 1), (2, 8)),
}


def inputs(extent, dtype=torch.float64):
    shapes = (2, 3, 9, 8), (3, 1, *extent), (3,)
    return [torch.randn(s, dtype=dtype, requires_grad=True) for s in shapes]


def looped(x, kernel, bias, before, size, flip):
    """The definition, tap by tap, on an image with a wide border of zeros."""
    wide = F.pad(x, (40,) * 4)
    y = bias.view(-1, 1, 1).expand(len(x), len(bias), *size)
    for u in range(kernel.shape[2]):
        for v in range(kernel.shape[3]):
            top, left = 40 + u - before[0], 40 + v - before[1]
            tap = kernel[:, 0, -1 - u, -1 - v] if flip else kernel[:, 0, u, v]
            part = wide[:, :, top : top + size[0], left : left + size[1]]
            y = y + tap.view(-1, 1, 1) * part
    return y


@pytest.mark.parametrize('flip', [False, True])
@pytest.mark.parametrize('name', GEOMETRIES)
def test_values_and_gradients(name, flip):
    extent, before, size = GEOMETRIES[name]
    tensors = inputs(extent)
    y = convolve_depthwise(*tensors, before, size, flip)
    expected = looped(*tensors, before, size, flip)
    assert_close(y, expected)
    weight = torch.randn_like(y)
    found = torch.autograd.grad(y, tensors, weight)
    for one, other in zip(found, torch.autograd.grad(expected, tensors, weight)):
        assert_close(one, other)


@pytest.mark.parametrize('flip', [False, True])
@pytest.mark.parametrize('name', GEOMETRIES)
def test_gradients_of_gradients(name, flip):
    extent, before, size = GEOMETRIES[name]

    def function(*tensors):
        return convolve_depthwise(*tensors, before, size, flip)

    assert torch.autograd.gradcheck(function, inputs(extent))
    assert torch.autograd.gradgradcheck(function, inputs(extent))


def test_are_well_formed():
    """torch's own checks: schema, autograd, fake tensors, dynamic shapes."""
    x, kernel, bias = inputs((5, 3), torch.float32)
    geometry = (1, -1), (8, 7)
    for offset in (bias, None):
        arguments = x, kernel, offset, *geometry, True
        torch.library.opcheck(convolve_depthwise, arguments)
    half = x.detach().half().requires_grad_()
    torch.library.opcheck(convolve_depthwise, (half, kernel, None, *geometry, False))
    grad_y = torch.randn(2, 3, 8, 7, requires_grad=True)
    arguments = x, grad_y, (5, 3), (1, -1), True
    torch.library.opcheck(depthwise_kernel_gradient, arguments)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_the_gradient_of_a_kernel_stays_in_float32(dtype):
    """The sum overflows in float16, and its terms vanish in bfloat16."""
    x = torch.ones(1, 3, 64, 64, dtype=dtype, requires_grad=True)
    kernel = torch.ones(3, 1, 3, 3, requires_grad=True)
    bias = torch.zeros(3, requires_grad=True)
    y = convolve_depthwise(x, kernel, bias, (1, 1), (64, 64), False)
    y.backward(torch.full_like(y, 64))
    assert y.dtype == x.grad.dtype == dtype
    assert kernel.grad.dtype == bias.grad.dtype == torch.float32
    assert kernel.grad[0, 0, 1, 1] == bias.grad[0] == 64**3


def test_flops():
    """Those of torch's convolution, and as many for each of the two gradients.

    torch itself counts more for the gradient of a depthwise kernel than are computed.
    """
    x, kernel, _ = inputs((5, 3), torch.float32)
    with FlopCounterMode(display=False) as of_torch:
        F.conv2d(x, kernel, padding=(2, 1), groups=3)
    with FlopCounterMode(display=False) as forward:
        y = convolve_depthwise(x, kernel, None, (2, 1), (9, 8), False)
    with FlopCounterMode(display=False) as backward:
        y.sum().backward()
    flops = of_torch.get_total_flops()
    assert flops == 2 * (2 * 3 * 9 * 8) * 15
    assert forward.get_total_flops() == flops
    assert backward.get_total_flops() == 2 * flops


def test_torch_compile_sees_whole_operators():
    tensors = inputs((5, 3), torch.float32)

    def function(x, kernel, bias):
        y = convolve_depthwise(x.relu(), kernel, bias, (2, 1), x.shape[2:], False)
        return y.square()

    compiled = torch.compile(function, fullgraph=True, backend='aot_eager')
    y, expected = compiled(*tensors), function(*tensors)
    assert_close(y, expected)
    found = torch.autograd.grad(y.sum(), tensors)
    for one, other in zip(found, torch.autograd.grad(expected.sum(), tensors)):
        assert_close(one, other)


def test_an_image_in_any_memory_format():
    x, kernel, bias = inputs((5, 3))
    for image in (
        x.contiguous(memory_format=torch.channels_last),
        torch.randn(2, 3, 8, 9, dtype=torch.float64).transpose(2, 3),
    ):
        y = convolve_depthwise(image, kernel, bias, (2, 1), (9, 8), False)
        assert y.is_contiguous()
        assert_close(y, looped(image, kernel, bias, (2, 1), (9, 8), False))
