"""The Triton kernel of the depthwise convolution against torch's in float64."""

import pytest
import torch
from conftest import assert_close
from cuda_case import (
    CASES,
    DTYPES,
    FEW_CASES,
    KERNEL_TESTS,
    REHEARSAL,
    SHAPES,
    assert_repeats,
    correlated,
    poisoned_memory,
    randn,
)

pytestmark = KERNEL_TESTS

# Sums over up to 63x63 taps; see SUM_FACTOR.
FACTOR = 1 if REHEARSAL else 4


def convolved(*arguments):
    from dcls_mm.functional.triton_kernels.convolution import convolve_depthwise

    with poisoned_memory():
        return convolve_depthwise(*arguments)


def same(extent):
    return tuple(k // 2 for k in extent)


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize(('shape', 'extent'), CASES)
def test_output(dtype, shape, extent):
    x, bias = randn(*shape, dtype=dtype), randn(shape[1])
    kernel = randn(shape[1], 1, *extent, dtype=dtype)
    call = (x, kernel, bias, same(extent), shape[2:], False)
    y = convolved(*call)
    assert y.dtype == dtype
    assert_close(y, correlated(*call), dtype, FACTOR)


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize(('shape', 'extent'), FEW_CASES)
def test_input_gradient(dtype, shape, extent):
    grad_y = randn(*shape, dtype=dtype)
    kernel = randn(shape[1], 1, *extent, dtype=dtype)
    x = randn(*shape).double().requires_grad_()
    y = correlated(x, kernel, None, same(extent), shape[2:])
    (expected,) = torch.autograd.grad(y, x, grad_y.double())
    before = tuple(k - 1 - k // 2 for k in extent)
    grad_x = convolved(grad_y, kernel, None, before, shape[2:], True)
    assert_close(grad_x, expected, dtype, FACTOR)


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize(
    ('before', 'size'), [((0, 0), (5, 7)), ((-2, 3), (9, 18)), ((11, -1), (16, 4))]
)
def test_asymmetric_padding(dtype, before, size):
    x, kernel = randn(2, 2, 12, 20, dtype=dtype), randn(2, 1, 9, 7, dtype=dtype)
    for flip in (False, True):
        call = (x, kernel, None, before, size, flip)
        assert_close(convolved(*call), correlated(*call), dtype, FACTOR)


@pytest.mark.parametrize('dtype', DTYPES)
def test_a_float32_kernel_is_rounded(dtype):
    x, kernel = randn(*SHAPES[0], dtype=dtype), randn(SHAPES[0][1], 1, 9, 9)
    y = convolved(x, kernel, None, (4, 4), SHAPES[0][2:], False)
    expected = correlated(x, kernel.to(dtype), None, (4, 4), SHAPES[0][2:])
    assert_close(y, expected, dtype)


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.skipif(REHEARSAL, reason='takes too long in the interpreter')
def test_a_stage_of_convnext(dtype):
    """Of full size, where many programs share the work."""
    x, kernel = randn(2, 96, 200, 320, dtype=dtype), randn(96, 1, 17, 17, dtype=dtype)
    call = (x, kernel, None, (8, 8), (200, 320), False)
    assert_close(convolved(*call), correlated(*call), dtype, FACTOR)


@pytest.mark.parametrize('dtype', DTYPES)
def test_it_repeats_bitwise(dtype):
    shape = SHAPES[0]
    x, kernel = randn(*shape, dtype=dtype), randn(shape[1], 1, 9, 9, dtype=dtype)
    assert_repeats(lambda: [convolved(x, kernel, None, (4, 4), shape[2:], False)])
