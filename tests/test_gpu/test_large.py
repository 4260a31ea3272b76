"""Tensors of more than 2^31 elements, whose offsets take 64 bits."""

import pytest
import torch
from conftest import assert_close
from cuda_case import KERNEL_TESTS, SUM_FACTOR, correlated, needs_cuda

pytestmark = [*KERNEL_TESTS, needs_cuda]

SHAPE = (3, 11, 8192, 8192)  # 2.2e9 elements
LEAST_BYTES = 16e9


@pytest.fixture
def x():
    free, _ = torch.cuda.mem_get_info()
    if free < LEAST_BYTES:
        pytest.skip(f'needs {LEAST_BYTES / 1e9:.0f} GB of free GPU memory')
    x = torch.empty(SHAPE, device='cuda', dtype=torch.float16)
    assert x.numel() > 2**31
    return x.normal_()


def test_convolution(x):
    from dcls_mm.functional.triton_kernels.convolution import convolve_depthwise

    kernel = torch.randn(SHAPE[1], 1, 9, 9, device='cuda').half()
    y = convolve_depthwise(x, kernel, None, (4, 4), SHAPE[2:], False)
    # The last rows of the last image and channel, and the first of the first.
    for image, channel, rows in ((-1, -1, slice(-64, None)), (0, 0, slice(64))):
        part = x[image, channel, rows][None, None]
        taps = kernel[channel][None]
        expected = correlated(part, taps, None, (4, 4), part.shape[2:])
        inner = slice(4, None) if channel else slice(-4)
        assert_close(y[image, channel, rows][inner], expected[0, 0, inner])


def test_kernel_gradient(x):
    from dcls_mm.functional.triton_kernels.kernel_gradient import (
        depthwise_kernel_gradient,
    )

    grad_y = torch.zeros_like(x)
    grad_y[-1, -1, -8:, -256:] = torch.randn(8, 256, device='cuda').half()
    found = depthwise_kernel_gradient(x, grad_y, (9, 9), (4, 4), False)
    assert found[:-1].count_nonzero() == 0

    part, grad_part = (t[-1, -1, -12:][None, None] for t in (x, grad_y))
    kernel = torch.zeros(1, 1, 9, 9, device='cuda').double().requires_grad_()
    y = correlated(part, kernel, None, (4, 4), part.shape[2:])
    (expected,) = torch.autograd.grad(y, kernel, grad_part.double())
    assert_close(found[-1:], expected, factor=SUM_FACTOR)
