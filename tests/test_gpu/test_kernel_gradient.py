"""The Triton kernels of the kernel's gradient against torch's in float64."""

import pytest
import torch
from conftest import assert_close
from cuda_case import (
    CASES,
    DTYPES,
    KERNEL_TESTS,
    REHEARSAL,
    SHAPES,
    SUM_FACTOR,
    assert_repeats,
    correlated,
    poisoned_memory,
    randn,
)

pytestmark = KERNEL_TESTS


def gradient(*arguments):
    from dcls_mm.functional.triton_kernels.kernel_gradient import (
        depthwise_kernel_gradient,
    )

    with poisoned_memory():
        return depthwise_kernel_gradient(*arguments)


def expected_gradient(x, grad_y, extent, before, flip):
    kernel = torch.zeros(x.shape[1], 1, *extent, device=x.device).double()
    kernel.requires_grad_()
    y = correlated(x, kernel, None, before, grad_y.shape[2:], flip)
    return torch.autograd.grad(y, kernel, grad_y.double())[0]


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize(('shape', 'extent'), CASES)
def test_gradient(dtype, shape, extent):
    x, grad_y = randn(*shape, dtype=dtype), randn(*shape, dtype=dtype)
    call = (x, grad_y, extent, tuple(k // 2 for k in extent), False)
    result = gradient(*call)
    assert result.dtype == torch.float32
    assert_close(result, expected_gradient(*call), factor=SUM_FACTOR)


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize(
    ('before', 'size'), [((0, 0), (5, 7)), ((-2, 3), (9, 18)), ((11, -1), (16, 4))]
)
def test_asymmetric_padding(dtype, before, size):
    x, grad_y = randn(2, 2, 12, 20, dtype=dtype), randn(2, 2, *size, dtype=dtype)
    for flip in (False, True):
        call = (x, grad_y, (9, 7), before, flip)
        assert_close(gradient(*call), expected_gradient(*call), factor=SUM_FACTOR)


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.skipif(REHEARSAL, reason='takes too long in the interpreter')
def test_a_stage_of_convnext(dtype):
    """Of full size, where the sum over the pixels is split."""
    x, grad_y = (randn(2, 96, 200, 320, dtype=dtype) for _ in range(2))
    call = (x, grad_y, (17, 17), (8, 8), False)
    assert_close(gradient(*call), expected_gradient(*call), factor=2 * SUM_FACTOR)


def test_it_does_not_overflow_in_float16():
    """Under a loss scale the sum is far beyond the largest float16."""
    shape = SHAPES[0]
    x, grad_y = (torch.full(shape, 100.0).half().to(randn(1).device) for _ in range(2))
    result = gradient(x, grad_y, (3, 3), (1, 1), False)
    expected = expected_gradient(x, grad_y, (3, 3), (1, 1), False)
    assert result.abs().max() > torch.finfo(torch.float16).max
    assert_close(result, expected, factor=SUM_FACTOR)


@pytest.mark.parametrize('dtype', DTYPES)
def test_it_repeats_bitwise(dtype):
    x, grad_y = (randn(*SHAPES[0], dtype=dtype) for _ in range(2))
    assert_repeats(lambda: [gradient(x, grad_y, (9, 9), (4, 4), False)])
