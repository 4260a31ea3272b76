"""torch.func, forward mode and batched gradients, on every kind of layer."""

import copy

import pytest
import torch
from conftest import assert_close
from kinds import KINDS, image, make
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


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def functional(kind, dtype=torch.float32):
    """Return an output and a loss as functions, and their parameters and input."""
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
    """Return the loss in float64, and its arguments to differentiate by autograd."""
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
    """The reference is in float64, where gradcheck has checked it."""
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
    """Several backward passes go through one graph at once."""
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
    """What evaluation keeps inside a transform works outside of it too."""
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
    """vmap runs over a batch of layers, with and without gradients."""
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
