"""Operators and a whole layer with interpreted kernels in place of the CPU ones."""

import pytest
import torch
from conftest import assert_close
from torch.library import opcheck

from dcls_mm.functional import scatter
from dcls_mm.functional.backends import triton_depthwise
from dcls_mm.functional.operators import construction, depthwise
from dcls_mm.functional.triton_kernels import construction as construct_kernels
from dcls_mm.functional.triton_kernels import convolution, kernel_gradient
from dcls_mm.layers import DCLSConv2d


@pytest.fixture
def launched(monkeypatch):
    """Return the number of calls by operator; the operators on a CPU launch Triton
    kernels."""
    counts = {}

    def register(operator, function):
        def run(*arguments):
            counts[operator._qualname] = counts.get(operator._qualname, 0) + 1
            return function(*arguments)

        operator.register_kernel('cpu')(run)

    monkeypatch.setattr(triton_depthwise, 'unsupported', lambda call: None)
    for module in (construction, scatter):
        monkeypatch.setattr(module, 'TRITON_DEVICES', {'cpu'})
    register(depthwise.convolve_depthwise, convolution.convolve_depthwise)
    register(
        depthwise.depthwise_kernel_gradient, kernel_gradient.depthwise_kernel_gradient
    )
    register(construction.construct, construct_kernels.construct)
    register(
        construction.construct_gradient,
        lambda *a: [
            g for g in construct_kernels.construct_gradient(*a) if g is not None
        ],
    )
    return counts


@pytest.mark.parametrize('interpolation', ['bilinear', 'triangle', 'max', 'gauss'])
def test_a_training_step(launched, interpolation):
    options = dict(padding=4, groups=3, dilated_kernel_size=9, kernel_count=5)
    layer = DCLSConv2d(3, 3, **options, interpolation=interpolation, backend='triton')
    with torch.no_grad():
        layer.P.uniform_(-4.5, 4.5)
    wide = DCLSConv2d(3, 3, **options, interpolation=interpolation, backend='native')
    wide.double().load_state_dict(layer.state_dict())
    x = torch.randn(2, 3, 10, 19)
    weight = torch.randn(2, 3, 10, 19)
    outputs = []
    for module, dtype in ((layer, torch.float32), (wide, torch.float64)):
        image = x.to(dtype, copy=True).requires_grad_()
        y = module(image)
        y.backward(weight.to(dtype))
        outputs.append([y, image.grad, *(p.grad for p in module.parameters())])
    for found, expected in zip(*outputs):
        assert_close(found, expected, torch.float32, factor=3)
    assert launched == {
        'dcls_mm::construct': 1,
        'dcls_mm::convolve_depthwise': 2,
        'dcls_mm::depthwise_kernel_gradient': 1,
        'dcls_mm::construct_gradient': 1,
    }


@pytest.mark.parametrize(
    'memory_format', [torch.contiguous_format, torch.channels_last]
)
def test_the_convolution_is_as_registered(launched, memory_format):
    """What is launched has the strides of the fake tensors, and aliases no input."""
    x = torch.randn(1, 2, 6, 9).to(memory_format=memory_format).requires_grad_()
    kernel, bias = torch.randn(2, 1, 3, 5), torch.randn(2)
    geometry = (1, 2), (6, 9), True
    opcheck(depthwise.convolve_depthwise, (x, kernel.requires_grad_(), bias, *geometry))
    images = x.detach(), torch.randn(1, 2, 6, 9, requires_grad=True)
    opcheck(depthwise.depthwise_kernel_gradient, (*images, (3, 5), (1, 2), False))


@pytest.mark.parametrize('kernels', [(2, 1), (1, 1)], ids=['own', 'shared'])
def test_the_construction_is_as_registered(launched, kernels):
    weight = torch.randn(2, 1, 3)
    positions, sigma = torch.randn(2, *kernels, 3), torch.rand(2, *kernels, 3)
    options = (3, 5), 'gauss'
    gradient = torch.randn(2, 1, 3, 5).half()
    elements = weight, positions, sigma
    opcheck(
        construction.construct_gradient,
        (gradient, *elements, *options, (True, False, True)),
    )
    leaves = [t.requires_grad_() for t in elements]
    opcheck(construction.construct, (*leaves, *options, torch.float16))
