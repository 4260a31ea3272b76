"""Dtypes, autocast, memory formats, empty batches, torch.func and second derivatives.

On every kind of layer, so through every formulation and backend; the expected values
are those of the same layer in float64, which ``test_generated.py`` compares with the
loops.
"""

import copy

import pytest
import torch
from conftest import TOLERANCE, assert_close
from torch import nn
from torch.autograd import forward_ad
from torch.func import (
    functional_call,
    grad,
    jacfwd,
    jacrev,
    jvp,
    stack_module_state,
    vmap,
)

from dcls_mm import layers
from dcls_mm.functional import construct_kernel, convolve, sampled_convolution
from dcls_mm.functional.backends import (
    ConvolutionCall,
    cpu_depthwise,
    select_backend,
)

# Kind -> (class, arguments, size of the image).
KINDS = {
    'bilinear 1d': ('DCLSConv1d', dict(), (7,)),
    'triangle 2d': ('DCLSConv2d', dict(interpolation='triangle', groups=2), (6, 5)),
    'max 2d': ('DCLSConv2d', dict(interpolation='max', stride=2), (6, 5)),
    'gauss 3d': ('DCLSConv3d', dict(interpolation='gauss', groups=4), (4, 4, 3)),
    'shared 2d': ('DCLSConv2d', dict(per_output_positions=False), (6, 5)),
    'dense rows 2d': ('DCLSConv2d', dict(position_axes=(1,), groups=4), (6, 5)),
    'large 2d': ('DCLSConv2d', dict(dilated_kernel_size=11, groups=4), (6, 5)),
    'reflected 2d': ('DCLSConv2d', dict(padding_mode='reflect'), (6, 5)),
    'sample 1d': ('DCLSConv1d', dict(formulation='sample'), (7,)),
    'sample 2d': ('DCLSConv2d', dict(formulation='sample', groups=2), (6, 5)),
    'sample 3d': ('DCLSConv3d', dict(formulation='sample', groups=4), (4, 4, 3)),
    'sample shared 2d': (
        'DCLSConv2d',
        dict(formulation='sample', per_output_positions=False),
        (6, 5),
    ),
    'transposed 1d': ('DCLSConvTranspose1d', dict(stride=2), (7,)),
    'transposed 2d': (
        'DCLSConvTranspose2d',
        dict(interpolation='gauss', groups=2),
        (6, 5),
    ),
    'transposed 3d': ('DCLSConvTranspose3d', dict(groups=4), (4, 4, 3)),
}
HALVES = [torch.float16, torch.bfloat16]


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def make(kind, dtype=torch.float32):
    """A layer with its positions spread inside the extent, away from whole pixels."""
    name, arguments, _ = KINDS[kind]
    arguments = {'kernel_size': 3, 'padding': 1, 'kernel_count': 3, **arguments}
    layer = getattr(layers, name)(4, 4, **arguments, dtype=dtype)
    with torch.no_grad():
        layer.P.copy_(torch.randint_like(layer.P, -1, 1) + 0.2)
        layer.P.add_(0.6 * torch.rand_like(layer.P))
        if layer.SIG is not None:
            layer.SIG.uniform_(0.05, 0.15)
    return layer


def image(kind, dtype=torch.float32, batch=2):
    return torch.randn(batch, 4, *KINDS[kind][2]).to(dtype).requires_grad_()


def output_and_gradients(layer, x):
    """The output, and the gradients of a weighted sum by the input and parameters."""
    y = layer(x)
    cotangent = torch.linspace(-1, 2, y.numel()).sin().view(y.shape).to(y)
    inputs = [x, *layer.parameters()]
    return [y, *torch.autograd.grad(y, inputs, cotangent)]


def in_float64(layer, x):
    twin = copy.deepcopy(layer).double()
    return output_and_gradients(twin, x.detach().double().requires_grad_())


@pytest.mark.parametrize('dtype', TOLERANCE)
def test_layer_in_a_dtype(kind, dtype):
    layer, x = make(kind).to(dtype), image(kind, dtype)
    expected = in_float64(layer, x)
    for value, wanted in zip(output_and_gradients(layer, x), expected):
        assert value.dtype == dtype
        assert_close(value, wanted, factor=5)


@pytest.mark.parametrize('dtype', HALVES)
def test_autocast_on_cpu(kind, dtype):
    """The kernel and the gradients of the parameters in float32."""
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
    """The same values with the axes reversed in memory, NaN between any two."""
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
    """A layer in float64 as a function of its input and parameters, and those."""
    layer, x = make(kind, torch.float64), image(kind, torch.float64)
    names = list(dict(layer.named_parameters()))

    def function(x, *parameters):
        return functional_call(layer, dict(zip(names, parameters)), x)

    return function, (x, *layer.parameters())


def test_large_kernels_are_served_by_cpu_depthwise():
    layer, x = make('large 2d'), image('large 2d')
    call = ConvolutionCall(x, layer.kernel(), None, (1, 1), layer.padding, 4)
    assert select_backend(None, call) is cpu_depthwise


def penalty(backend, *inputs):
    """A loss of gradients, as a gradient penalty is."""
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


def functional(kind, dtype=torch.float32):
    """A loss and an output as functions of parameters and input, and these."""
    torch.manual_seed(0)
    layer = make(kind).to(dtype)
    x = image(kind).detach().to(dtype)

    def call(parameters, x):
        return functional_call(layer, parameters, x)

    def loss(parameters, x):
        return call(parameters, x).sin().sum()

    return call, loss, {k: v.detach() for k, v in layer.named_parameters()}, x


def assert_all_close(actual, expected, factor=10):
    assert list(actual) == list(expected)
    for name in expected:
        assert_close(actual[name], expected[name], factor=factor)


def leaves_of(kind):
    """The loss in float64, and its arguments to differentiate by autograd."""
    _, loss, parameters, x = functional(kind, torch.float64)
    return loss, {k: v.requires_grad_() for k, v in parameters.items()}, x


def test_func_grad(kind):
    _, loss, parameters, x = functional(kind)
    reference, leaves, doubles = leaves_of(kind)
    expected = torch.autograd.grad(reference(leaves, doubles), list(leaves.values()))
    assert_all_close(grad(loss)(parameters, x), dict(zip(leaves, expected)))


def test_func_vmap_over_inputs(kind):
    call, _, parameters, x = functional(kind)
    inputs = torch.stack([x, x + 1, x * 2])
    y = vmap(call, (None, 0))(parameters, inputs)
    assert_close(y, torch.stack([call(parameters, one) for one in inputs]), factor=5)
    unbatched = vmap(call, (None, 0))(parameters, x)
    assert_close(unbatched, call(parameters, x), factor=5)


def test_func_jvp(kind):
    """Against float64, where gradcheck has checked it."""
    call, _, parameters, x = functional(kind)
    doubles, _, as_doubles, _ = functional(kind, torch.float64)
    tangents = {k: torch.randn_like(v) for k, v in parameters.items()}
    direction = torch.randn_like(x)
    values = jvp(call, (parameters, x), (tangents, direction))
    expected = jvp(
        doubles,
        (as_doubles, x.double()),
        ({k: v.double() for k, v in tangents.items()}, direction.double()),
    )
    for value, wanted in zip(values, expected):
        assert_close(value, wanted, factor=10)


def test_forward_mode_without_torch_func(kind):
    layer, x = make(kind), image(kind).detach()
    direction = torch.randn_like(x)
    with forward_ad.dual_level():
        y = forward_ad.unpack_dual(layer(forward_ad.make_dual(x, direction)))
    _, expected = torch.autograd.functional.jvp(layer, x, direction)
    assert_close(y.tangent, expected, factor=10)


@pytest.mark.parametrize('vmap_of', ['torch.autograd', 'torch.func'])
def test_batched_backward(kind, vmap_of):
    """Several backward passes through one graph at once."""
    layer, x = make(kind), image(kind)
    y, inputs = layer(x), [x, *layer.parameters()]
    cotangents = torch.randn(3, *y.shape)

    def backward(cotangent, **options):
        return torch.autograd.grad(y, inputs, cotangent, retain_graph=True, **options)

    if vmap_of == 'torch.autograd':
        batched = backward(cotangents, is_grads_batched=True)
    else:
        batched = vmap(backward)(cotangents)
    each = [backward(cotangent) for cotangent in cotangents]
    for values, *expected in zip(batched, *each):
        assert_close(values, torch.stack(expected), factor=10)


def test_func_jacobian(kind):
    call, _, parameters, x = functional(kind)
    assert_all_close(jacrev(call)(parameters, x), jacfwd(call)(parameters, x))


def test_func_grad_of_grad(kind):
    def penalty(parameters, x):
        gradients = grad(loss)(parameters, x)
        return sum(gradient.square().mean() for gradient in gradients.values())

    _, loss, parameters, x = functional(kind)
    actual = grad(penalty)(parameters, x)
    loss, leaves, x = leaves_of(kind)
    first = torch.autograd.grad(
        loss(leaves, x), list(leaves.values()), create_graph=True
    )
    second = torch.autograd.grad(
        sum(gradient.square().mean() for gradient in first), list(leaves.values())
    )
    assert_all_close(actual, dict(zip(leaves, second)), factor=20)


@torch.no_grad()
def test_kept_kernel_is_none_of_a_transform(kind):
    """What evaluation keeps inside a transform serves outside of it too."""
    x = image(kind).detach()
    transforms = {
        'vmap': lambda layer: vmap(layer)(x),
        'jvp': lambda layer: jvp(layer, (x,), (x,)),
        'grad': lambda layer: grad(lambda x: layer(x).sum())(x),
    }
    for transform in transforms.values():
        layer = make(kind).eval()
        expected = copy.deepcopy(layer)(x)
        transform(layer)
        assert_close(layer(x), expected)
        assert_close(layer(x + 1), copy.deepcopy(layer)(x + 1))


@pytest.mark.parametrize('training', [True, False])
def test_func_ensemble(kind, training):
    """A batch of layers, with and without gradients."""
    models = [make(kind).train(training) for _ in range(3)]
    x = image(kind).detach()
    parameters, buffers = stack_module_state(models)
    skeleton = copy.deepcopy(models[0])

    def call(parameters, buffers, x):
        return functional_call(skeleton, (parameters, buffers), x)

    expected = torch.stack([model(x) for model in models])
    for grad_enabled in (True, False):
        with torch.set_grad_enabled(grad_enabled):
            y = vmap(call, (0, 0, None))(parameters, buffers, x)
            assert_close(y, expected, factor=5)
            assert_close(skeleton(x), expected[0], factor=5)

    gradients = vmap(
        grad(lambda *arguments: call(*arguments).sin().sum()), (0, 0, None)
    )(parameters, buffers, x)
    for index, model in enumerate(models):
        wanted = torch.autograd.grad(model(x).sin().sum(), list(model.parameters()))
        for (name, _), gradient in zip(model.named_parameters(), wanted):
            assert_close(gradients[name][index], gradient, factor=10)
