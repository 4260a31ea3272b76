"""The Triton kernels of the construction against torch's operators in float64."""

import pytest
import torch
from conftest import assert_close
from cuda_case import (
    DEVICE,
    KERNEL_TESTS,
    REHEARSAL,
    assert_repeats,
    poisoned_memory,
    randn,
)

from dcls_mm.functional import INTERPOLATIONS, construct_kernel

EXTENTS = [(17,), (1025,), (17, 17), (31, 7), (7, 9, 5)]
KERNELS, COUNT = (24, 1), 34
if REHEARSAL:
    EXTENTS, KERNELS, COUNT = [(3, 5)], (2, 1), 3

pytestmark = [
    *KERNEL_TESTS,
    pytest.mark.parametrize('interpolation', list(INTERPOLATIONS)),
    pytest.mark.parametrize('extent', EXTENTS, ids=str),
]


@pytest.fixture(params=[False, True], ids=['own', 'shared'])
def elements(request, interpolation, extent):
    """Weight, positions and sigma, all in float32; shared positions are of all kernels.

    Positions keep away from the kinks between pixels, where a derivative jumps. They
    are multiples of 1/1024 pixel, to which float32 can add the middle of any extent.
    """
    kernels = (1, *KERNELS[1:]) if request.param else KERNELS
    shape = (len(extent), *kernels, COUNT)
    scale = torch.tensor(extent, device=DEVICE).reshape(-1, *[1] * (len(shape) - 1))
    positions = ((torch.rand(shape, device=DEVICE) - 0.5) * 1.1 * scale).floor()
    positions += (102 + 307 * torch.rand(shape, device=DEVICE)).floor() / 1024
    sigma = None
    if INTERPOLATIONS[interpolation].has_sigma:
        sigma = torch.rand(shape, device=DEVICE) + 0.3
    return randn(*KERNELS, COUNT), positions, sigma


def expected(elements, extent, interpolation):
    """Return the kernel and the elements that it depends on, in float64."""
    inputs = [None if t is None else t.double().requires_grad_() for t in elements]
    kernel = construct_kernel(*inputs, kernel_size=extent, interpolation=interpolation)
    return kernel, [t for t in inputs if t is not None]


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16])
def test_kernel(elements, extent, interpolation, dtype):
    from dcls_mm.functional.triton_kernels.construction import construct

    with poisoned_memory():
        kernel = construct(*elements, extent, interpolation, dtype)
    assert kernel.dtype == dtype
    assert_close(kernel, expected(elements, extent, interpolation)[0])


def test_gradients(elements, extent, interpolation):
    from dcls_mm.functional.triton_kernels.construction import construct_gradient

    kernel, inputs = expected(elements, extent, interpolation)
    grad_kernel = randn(*kernel.shape)
    with poisoned_memory():
        found = construct_gradient(
            grad_kernel, *elements, extent, interpolation, (True,) * 3
        )
    wanted = torch.autograd.grad(kernel, inputs, grad_kernel.double())
    for actual, exact in zip([g for g in found if g is not None], wanted, strict=True):
        assert_close(actual, exact, factor=10)


def test_it_repeats_bitwise(elements, extent, interpolation):
    from dcls_mm.functional.triton_kernels import construction

    grad_kernel = randn(*KERNELS, *extent)

    def call():
        kernel = construction.construct(*elements, extent, interpolation, torch.float32)
        gradients = construction.construct_gradient(
            grad_kernel, *elements, extent, interpolation, (True,) * 3
        )
        return [kernel, *(g for g in gradients if g is not None)]

    assert_repeats(call, 3 if REHEARSAL else 10)
