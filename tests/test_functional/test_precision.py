"""Dtypes, autocast, memory formats, empty batches, torch.func and second derivatives.

The tests run on every kind of layer, hence through every formulation and backend.
Expected values are those of the same layer in float64, which ``test_generated.py``
compares with the loops.
"""

import pytest
import torch
from conftest import TOLERANCE, assert_close
from kinds import KINDS, image, in_float64, make, output_and_gradients
from torch import nn
from torch.func import (
    functional_call,
)

from dcls_mm.functional import construct_kernel, convolve, sampled_convolution
from dcls_mm.functional.backends import (
    ConvolutionCall,
    cpu_depthwise,
    select_backend,
)

HALVES = [torch.float16, torch.bfloat16]


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.mark.parametrize('dtype', TOLERANCE)
def test_layer_in_a_dtype(kind, dtype):
    layer, x = make(kind).to(dtype), image(kind, dtype)
    expected = in_float64(layer, x)
    for value, wanted in zip(output_and_gradients(layer, x), expected):
        assert value.dtype == dtype
        assert_close(value, wanted, factor=5)


@pytest.mark.parametrize('dtype', HALVES)
def test_autocast_on_cpu(kind, dtype):
    """The kernel and the gradients of the parameters are in float32."""
    layer, x = make(kind), image(kind)
    expected, kernel = in_float64(layer, x), layer.kernel()
    with torch.autocast('cpu', dtype=dtype):
        assert torch.equal(layer.kernel(), kernel)
        values = output_and_gradients(layer, x)
        assert layer(x.detach().to(dtype)).shape == values[0].shape
    assert all(gradient.dtype == torch.float32 for gradient in values[1:])
    for value, wanted in zip(values, expected):
        assert_close(value, wanted, dtype, factor=5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
@pytest.mark.parametrize('dtype', HALVES)
def test_autocast_on_a_gpu(kind, dtype):
    layer, x = make(kind), image(kind)
    expected = in_float64(layer, x)
    x = x.detach().cuda().requires_grad_()
    with torch.autocast('cuda', dtype=dtype):
        assert layer.cuda().kernel().dtype == torch.float32
        values = output_and_gradients(layer, x)
    for value, wanted in zip(values, expected):
        assert_close(value.cpu(), wanted, dtype, factor=5)


@pytest.mark.parametrize('dtype', HALVES)
def test_positions_may_be_finer_than_the_weights(dtype):
    """The kernel has the weights' dtype, and the precision that this allows."""
    weight = torch.randn(2, 2, 3).to(dtype)
    positions = 8 * torch.rand(2, 2, 2, 3)
    kernel = construct_kernel(weight, positions, kernel_size=17)
    assert kernel.dtype == dtype
    expected = construct_kernel(weight.double(), positions.double(), kernel_size=17)
    assert_close(kernel, expected)
    x = torch.randn(1, 4, 17, 18).to(dtype)
    y = sampled_convolution(x, weight, positions, kernel_size=17, groups=2)
    assert y.dtype == dtype
    assert_close(y, convolve(x.double(), expected, groups=2))


@pytest.mark.parametrize(
    ('kind', 'memory_format'),
    [
        ('max 2d', torch.channels_last),
        ('dense rows 2d', torch.channels_last),
        ('large 2d', torch.channels_last),
        ('reflected 2d', torch.channels_last),
        ('sample 2d', torch.channels_last),
        ('transposed 2d', torch.channels_last),
        ('gauss 3d', torch.channels_last_3d),
        ('transposed 3d', torch.channels_last_3d),
    ],
)
def test_channels_last_is_kept(kind, memory_format):
    layer, x = make(kind), image(kind)
    y = layer(x.to(memory_format=memory_format))
    assert y.is_contiguous(memory_format=memory_format)
    assert not y.is_contiguous()
    assert_close(y, layer(x), factor=5)


def test_contiguous_stays_contiguous(kind):
    assert make(kind)(image(kind)).is_contiguous()


def test_without_batch(kind):
    layer, x = make(kind), image(kind)
    assert_close(layer(x[1]), layer(x)[1], factor=5)


def test_empty_batch(kind):
    layer = make(kind)
    for x in (image(kind, batch=0), image(kind)[:0]):
        y, *gradients = output_and_gradients(layer, x)
        assert y.shape == (0, *layer(image(kind)).shape[1:])
        for gradient, of in zip(gradients, [x, *layer.parameters()]):
            assert gradient.shape == of.shape
            assert not gradient.any()
    with torch.no_grad():
        assert layer.eval()(image(kind, batch=0)).shape == y.shape


def strided(tensor):
    """Return the same values with axes reversed in memory and NaN between entries."""
    memory = torch.full((*reversed(tensor.shape), 2), torch.nan)
    return memory[..., 0].permute(*reversed(range(tensor.ndim))).copy_(tensor)


def test_strided_input_and_parameters(kind):
    layer, x = make(kind), image(kind)
    expected = in_float64(layer, x)
    for name, parameter in list(layer.named_parameters()):
        setattr(layer, name, nn.Parameter(strided(parameter.detach())))
    assert not layer.P.is_contiguous()
    values = output_and_gradients(layer, strided(x.detach()).requires_grad_())
    for value, wanted in zip(values, expected):
        assert_close(value, wanted, factor=5)


@pytest.mark.parametrize('backend', ['native', 'cpu_depthwise'])
def test_strided_kernel(backend):
    x, kernel = torch.randn(2, 4, 12, 12), torch.randn(4, 1, 11, 11)
    options = dict(padding=5, groups=4)
    expected = convolve(x.double(), kernel.double(), **options)
    y = convolve(x, strided(kernel), backend=backend, **options)
    assert_close(y, expected, factor=5)
    same = kernel[:1].expand(4, -1, -1, -1)
    expected = convolve(x.double(), same.double(), **options)
    y = convolve(x[:1].expand(2, -1, -1, -1), same, backend=backend, **options)
    assert_close(y[0], expected[0], factor=5)


def test_gradcheck(kind):
    assert torch.autograd.gradcheck(*as_function(kind), fast_mode=True)


def test_gradcheck_in_forward_mode(kind):
    assert torch.autograd.gradcheck(
        *as_function(kind), fast_mode=True, check_forward_ad=True
    )


def test_gradgradcheck(kind):
    assert torch.autograd.gradgradcheck(*as_function(kind), fast_mode=True)


def as_function(kind):
    """Return a float64 layer as a function of input and parameters, and these."""
    layer, x = make(kind, torch.float64), image(kind, torch.float64)
    names = list(dict(layer.named_parameters()))

    def function(x, *parameters):
        return functional_call(layer, dict(zip(names, parameters)), x)

    return function, (x, *layer.parameters())


def test_large_kernels_are_served_by_cpu_depthwise():
    layer, x = make('large 2d'), image('large 2d')
    call = ConvolutionCall(
        x, layer.kernel(), None, (1, 1), layer.padding_sides(layer.kernel()), 4
    )
    assert select_backend(None, call) is cpu_depthwise


def penalty(backend, *inputs):
    """Compute a loss from gradients, like a gradient penalty."""
    y = convolve(*inputs, padding=5, groups=3, backend=backend)
    gradients = torch.autograd.grad(y.square().sum(), inputs, create_graph=True)
    return sum(gradient.square().mean() for gradient in gradients)


def test_double_backward_of_cpu_depthwise():
    shapes = (2, 3, 12, 13), (3, 1, 11, 11), (3,)
    inputs = [torch.randn(shape, requires_grad=True) for shape in shapes]
    doubles = [t.detach().double().requires_grad_() for t in inputs]
    gradients = torch.autograd.grad(penalty('cpu_depthwise', *inputs), inputs)
    expected = torch.autograd.grad(penalty('native', *doubles), doubles)
    for value, wanted in zip(gradients, expected):
        assert_close(value, wanted, factor=10)
