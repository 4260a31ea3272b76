"""Sampling off the CPU, where the image's gradient is gathered, against torch's own."""

import pytest
import torch
from conftest import assert_close
from test_sampling import CASES, SHARING, make_inputs
from torch.utils._python_dispatch import TorchDispatchMode

from dcls_mm.functional import sampling
from dcls_mm.functional.sampling import sampled_convolution


class Names(TorchDispatchMode):
    """Notes the names of operators."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.seen.add(function._schema.name)
        return function(*args, **(kwargs or {}))

    seen: set


def gradients(inputs, **options):
    with Names() as mode:
        mode.seen = set()
        y = sampled_convolution(*inputs, **options)
        cotangent = torch.linspace(-1, 2, y.numel()).sin().view(y.shape).to(y)
        values = torch.autograd.grad(y, inputs, cotangent)
    return mode.seen, values


@pytest.mark.parametrize('sharing', SHARING)
@pytest.mark.parametrize(('size', 'extent', 'options'), CASES)
def test_gradients_are_those_of_torch(size, extent, options, sharing, monkeypatch):
    inputs = make_inputs(size, extent, options.get('groups', 1), sharing)
    seen, expected = gradients(inputs, kernel_size=extent, **options)
    assert 'aten::scatter_add' in seen
    monkeypatch.setattr(sampling, 'IN_ORDER', set())
    seen, values = gradients(inputs, kernel_size=extent, **options)
    assert 'aten::scatter_add' not in seen
    for value, wanted in zip(values, expected):
        assert_close(value, wanted, factor=5)


@pytest.mark.parametrize(('size', 'stride'), [((5,), 3), ((4, 3), 2), ((2, 2, 3), 1)])
def test_second_order(size, stride, monkeypatch):
    monkeypatch.setattr(sampling, 'IN_ORDER', set())
    extent = (3,) * len(size)
    x, weight, positions, bias = make_inputs(size, extent, 4, count=2)
    with torch.no_grad():
        positions.copy_(positions.floor() + 0.2 + 0.6 * torch.rand_like(positions))

    def convolution(*tensors):
        return sampled_convolution(
            *tensors, kernel_size=extent, stride=stride, padding=1, groups=4
        )

    inputs = [x[:1].detach().requires_grad_(), weight, positions, bias]
    assert torch.autograd.gradgradcheck(convolution, inputs, fast_mode=True)


def test_compiled(monkeypatch):
    monkeypatch.setattr(sampling, 'IN_ORDER', set())
    torch._dynamo.reset()
    inputs = make_inputs((9, 8), (5, 4), dtype=torch.float32)
    options = dict(kernel_size=(5, 4), padding=2)

    def step(*tensors):
        return sampled_convolution(*tensors, **options)

    compiled = torch.compile(step, fullgraph=True, backend='aot_eager')
    grads = [
        torch.autograd.grad(run(*inputs).sin().sum(), inputs)
        for run in (compiled, step)
    ]
    for value, wanted in zip(*grads):
        assert_close(value, wanted, factor=20)
