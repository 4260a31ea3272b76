"""The operators: gradients to any order, torch.compile, and what a GPU adds."""

import pytest
import torch
from conftest import assert_close
from cuda_case import (
    CUDA,
    DEVICE,
    DTYPES,
    SUM_FACTOR,
    correlated,
    needs_cuda,
    needs_device,
    randn,
)

from dcls_mm.functional.operators import depthwise  # noqa: F401  registers them

pytestmark = needs_device

SHAPE, EXTENT = ((2, 8, 40, 56), (17, 17)) if CUDA else ((1, 2, 7, 9), (5, 5))
BEFORE = tuple(k // 2 for k in EXTENT)


def convolved(x, kernel, bias=None):
    return torch.ops.dcls_mm.convolve_depthwise(
        x, kernel, bias, BEFORE, x.shape[2:], False
    )


def inputs(dtype=torch.float32):
    tensors = randn(*SHAPE), randn(SHAPE[1], 1, *EXTENT), randn(SHAPE[1])
    return [t.to(dtype).requires_grad_() for t in tensors]


@pytest.mark.parametrize('dtype', DTYPES)
def test_first_gradients(dtype):
    given, seed = inputs(dtype), randn(*SHAPE, dtype=dtype)
    found = torch.autograd.grad(convolved(*given), given, seed)
    exact = [t.detach().double().requires_grad_() for t in given]
    y = correlated(*exact, BEFORE, SHAPE[2:])
    wanted = torch.autograd.grad(y, exact, seed.double())
    for actual, expected in zip(found, wanted):
        assert actual.dtype == dtype
        assert_close(actual, expected, dtype, factor=SUM_FACTOR)


def test_second_gradients():
    """Of a penalty on the gradients of image and kernel."""

    def second(convolve, given, seed):
        first = torch.autograd.grad(
            convolve(*given), given[:2], seed, create_graph=True
        )
        penalty = sum(g.square().sum() for g in first)
        return torch.autograd.grad(penalty, [*given[:2], seed])

    given, seed = inputs()[:2], randn(*SHAPE).requires_grad_()
    found = second(convolved, given, seed)
    exact = [t.detach().double().requires_grad_() for t in (*given, seed)]
    wanted = second(
        lambda x, kernel: correlated(x, kernel, None, BEFORE, SHAPE[2:]),
        exact[:2],
        exact[2],
    )
    for actual, expected in zip(found, wanted):
        assert_close(actual, expected, factor=2 * SUM_FACTOR)


def test_compiled_as_one_graph():
    compiled = torch.compile(
        convolved, fullgraph=True, backend='inductor' if CUDA else 'aot_eager'
    )
    given, seed = inputs(), randn(*SHAPE)
    y, expected = compiled(*given), convolved(*given)
    assert torch.equal(y, expected)
    found = torch.autograd.grad(y, given, seed)
    wanted = torch.autograd.grad(expected, given, seed)
    for actual, exact in zip(found, wanted):
        assert_close(actual, exact, factor=10)


@needs_cuda
def test_opcheck():
    """Schema, fake tensor and autograd registrations agree with the CUDA kernels."""
    x, kernel, bias = inputs()
    operators = torch.ops.dcls_mm
    torch.library.opcheck(
        operators.convolve_depthwise.default,
        (x, kernel, bias, BEFORE, SHAPE[2:], False),
    )
    torch.library.opcheck(
        operators.depthwise_kernel_gradient.default,
        (x, randn(*SHAPE).requires_grad_(), EXTENT, BEFORE, False),
    )


def test_an_empty_batch():
    empty = (0, *SHAPE[1:])
    x = torch.empty(empty, device=DEVICE, requires_grad=True)
    kernel = randn(SHAPE[1], 1, *EXTENT).requires_grad_()
    y = convolved(x, kernel)
    assert y.shape == empty
    grad_x, grad_kernel = torch.autograd.grad(y.sum(), [x, kernel])
    assert grad_x.shape == empty
    assert grad_kernel.count_nonzero() == 0
