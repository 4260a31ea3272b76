"""Gradients of kernels under autocast: in float32, as they are on CUDA."""

import pytest
import torch
import torch.nn.functional as F
from conftest import assert_close

from dcls_mm.functional import convolve
from dcls_mm.functional.backends import native
from dcls_mm.layers import DCLSConv2d

HALVES = [torch.float16, torch.bfloat16]


@pytest.fixture(autouse=True)
def on_cpu(monkeypatch):
    monkeypatch.setattr(native, 'SAME_IN_EVERY_DTYPE', {'cpu'})


def make_inputs(axes, channels=4):
    size, extent = (9, 8, 7)[:axes], (7, 3, 3)[:axes]
    shapes = (2, channels, *size), (channels, 1, *extent), (channels,)
    return [torch.randn(shape, requires_grad=True) for shape in shapes]


def convolved(inputs, dtype, **options):
    with torch.autocast('cpu', dtype=dtype):
        return convolve(*inputs, groups=4, backend='native', **options)


@pytest.mark.parametrize('dtype', HALVES)
@pytest.mark.parametrize(
    ('axes', 'options'),
    [(1, dict(padding=2)), (2, dict(padding=(2, 0), stride=2)), (3, dict(padding=1))],
)
def test_output_is_torchs_and_gradients_are_finer(axes, options, dtype):
    inputs = make_inputs(axes)
    y = convolved(inputs, dtype, **options)
    with torch.autocast('cpu', dtype=dtype):
        conv = (F.conv1d, F.conv2d, F.conv3d)[axes - 1]
        expected = conv(*inputs, groups=4, **options)
    assert torch.equal(y, expected) and y.dtype == dtype
    cotangent = torch.randn_like(y)
    values = torch.autograd.grad(y, inputs, cotangent)
    assert [v.dtype for v in values] == [torch.float32] * 3
    # With the operands as rounded for the convolution, but no more rounding.
    rounded = [t.detach().to(dtype).double().requires_grad_() for t in inputs]
    exact = torch.autograd.grad(
        conv(*rounded, groups=4, **options), rounded, cotangent.double()
    )
    assert_close(values[0], exact[0], dtype, factor=3)
    for value, wanted in zip(values[1:], exact[1:]):
        assert_close(value, wanted, torch.float32, factor=5)


def test_a_scaled_loss_does_not_overflow():
    inputs = make_inputs(2)
    y = convolved(inputs, torch.float16, padding=2)
    scaled = torch.full_like(y, 60000.0)
    _, of_kernel, of_bias = torch.autograd.grad(y, inputs, scaled)
    assert of_kernel.abs().max() > 65504 and of_kernel.isfinite().all()
    assert of_bias.isfinite().all()


def test_a_layer():
    layer = DCLSConv2d(4, 4, 3, padding=3, dilated_kernel_size=7, groups=4)
    x = torch.randn(2, 4, 12, 12)
    with torch.autocast('cpu', dtype=torch.float16):
        y = layer(x)
    y.backward(torch.full_like(y, 60000.0))
    assert all(p.grad.isfinite().all() for p in layer.parameters())


@pytest.mark.parametrize('wanted', [0, 1, 2])
def test_one_gradient_alone(wanted):
    inputs = make_inputs(2)
    y = convolved(inputs, torch.bfloat16)
    whole = torch.autograd.grad(y.float().sin().sum(), inputs)
    for number, tensor in enumerate(inputs):
        tensor.requires_grad_(number == wanted)
    y = convolved(inputs, torch.bfloat16)
    (one,) = torch.autograd.grad(y.float().sin().sum(), inputs[wanted])
    # Without a kernel to learn, torch's own convolution serves.
    assert_close(one, whole[wanted], torch.bfloat16)


@pytest.mark.parametrize(
    ('change', 'served'),
    [
        (dict(), True),
        (dict(learned=False), False),
        (dict(groups=2), False),
        (dict(channels_last=True), False),
        (dict(small=True), False),
        (dict(dtype=None), False),
        (dict(double=True), False),
    ],
)
def test_where_it_serves(change, served, monkeypatch):
    used = []
    apply = native._FloatGradients.apply
    monkeypatch.setattr(
        native._FloatGradients, 'apply', lambda *a: used.append(1) or apply(*a)
    )
    x, kernel, _ = make_inputs(2)
    if change.get('groups'):
        kernel = torch.randn(4, 2, 7, 3, requires_grad=True)
    if change.get('channels_last'):
        x = x.to(memory_format=torch.channels_last)
    if change.get('small'):
        kernel = kernel[:, :, 2:]
    if change.get('double'):
        x, kernel = x.double(), kernel.double()
    kernel = kernel.detach().requires_grad_(change.get('learned', True))
    dtype = change.get('dtype', torch.bfloat16)
    with torch.autocast(
        'cpu', dtype=dtype or torch.bfloat16, enabled=dtype is not None
    ):
        convolve(x, kernel, groups=change.get('groups', 4), backend='native')
    assert bool(used) is served


def test_differentiated_twice():
    inputs = make_inputs(2)
    y = convolved(inputs, torch.bfloat16, padding=1)
    (of_kernel,) = torch.autograd.grad(
        y.float().sin().sum(), inputs[1], create_graph=True
    )
    values = torch.autograd.grad(of_kernel.square().sum(), inputs)
    doubles = [t.detach().double().requires_grad_() for t in inputs]
    y = convolve(*doubles, groups=4, padding=1)
    (of_kernel,) = torch.autograd.grad(y.sin().sum(), doubles[1], create_graph=True)
    expected = torch.autograd.grad(of_kernel.square().sum(), doubles)
    for value, wanted in zip(values, expected):
        assert_close(value, wanted, torch.bfloat16, factor=30)


def test_compiled_as_one_graph():
    torch._dynamo.reset()
    inputs = make_inputs(2)

    def step(*tensors):
        return convolved(tensors, torch.bfloat16, padding=2)

    compiled = torch.compile(step, fullgraph=True, backend='aot_eager')
    grads = [
        torch.autograd.grad(run(*inputs).float().sin().sum(), inputs)
        for run in (compiled, step)
    ]
    for value, wanted in zip(*grads):
        assert_close(value, wanted, torch.bfloat16)
