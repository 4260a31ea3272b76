"""What the kernels' TTIR computes, against torch's own operators in float64.

Memory from torch.empty is filled with NaN, so that what is not written shows, and an
access outside of a tensor is an error.
"""

import evaluation
import pytest
import torch
from offline import recorded, ttir
from torch.nn import functional as F

from dcls_mm.functional.interpolation import INTERPOLATIONS
from dcls_mm.functional.reference import reference_kernel
from dcls_mm.functional.triton_kernels.construction import (
    construct,
    construct_gradient,
)
from dcls_mm.functional.triton_kernels.convolution import convolve_depthwise
from dcls_mm.functional.triton_kernels.kernel_gradient import depthwise_kernel_gradient

# Largest error relative to the largest value. A float32 sum has more than one rounding.
TOLERANCE = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}
DTYPES = pytest.mark.parametrize('dtype', TOLERANCE, ids=lambda d: str(d)[6:])


@pytest.fixture(autouse=True)
def evaluated():
    """Evaluate instead of launching; fail if nothing was launched."""
    torch.use_deterministic_algorithms(True)
    with recorded(
        arch=80, on_launch=lambda launch: evaluation.launch(ttir(launch), launch)
    ) as launches:
        yield
    torch.use_deterministic_algorithms(False)
    assert launches


def assert_within(actual, expected, tolerance):
    assert actual.shape == expected.shape
    error = (actual.double() - expected).abs().max() / expected.abs().max()
    assert error <= tolerance, f'error {error:.3g}'


def correlate(x, kernel, before, size, flip):
    """Correlate in float64, with zeros or cuts at each side as asked."""
    x, kernel = x.double(), kernel.double()
    if flip:
        kernel = kernel.flip(2, 3)
    sides = []
    for axis in (1, 0):
        after = size[axis] + kernel.shape[2 + axis] - 1
        sides += [before[axis], after - before[axis] - x.shape[2 + axis]]
    return F.conv2d(F.pad(x, sides), kernel, groups=x.shape[1])


# batch, channels, height, width; extent; before; size of the output
SHAPES = {
    'same': ((2, 3, 12, 24), (9, 9), (4, 4), (12, 24)),
    'ragged': ((3, 2, 7, 21), (17, 17), (8, 8), (7, 21)),
    'even width': ((1, 2, 9, 22), (11, 13), (5, 6), (9, 22)),
    'rectangular': ((2, 2, 10, 16), (21, 5), (10, 2), (10, 16)),
    'asymmetric': ((1, 2, 14, 19), (9, 11), (8, 0), (16, 17)),
    'valid': ((1, 1, 36, 40), (31, 31), (0, 0), (6, 10)),
    'cut': ((1, 2, 20, 32), (9, 9), (-3, -5), (8, 16)),
    'wide': ((1, 1, 5, 72), (3, 63), (1, 31), (5, 72)),
    'many blocks': ((3, 1, 17, 64), (9, 9), (4, 4), (17, 64)),
    'one pixel': ((2, 2, 1, 1), (9, 9), (4, 4), (1, 1)),
}
CALLS = pytest.mark.parametrize('call', SHAPES.values(), ids=SHAPES)


@DTYPES
@CALLS
@pytest.mark.parametrize('flip', [False, True])
def test_convolve(flip, call, dtype):
    shape, extent, before, size = call
    x = torch.randn(shape).to(dtype)
    kernel = torch.randn(shape[1], 1, *extent).to(dtype)
    bias = torch.randn(shape[1]) if flip else None
    y = convolve_depthwise(x, kernel, bias, before, size, flip)
    assert y.dtype == dtype
    expected = correlate(x, kernel, before, size, flip)
    if bias is not None:
        expected += bias.double()[:, None, None]
    assert_within(y, expected, TOLERANCE[dtype])


@DTYPES
@CALLS
@pytest.mark.parametrize('flip', [False, True])
def test_kernel_gradient(flip, call, dtype):
    shape, extent, before, size = call
    x = torch.randn(shape).to(dtype)
    grad_y = torch.randn(*shape[:2], *size).to(dtype)
    gradient = depthwise_kernel_gradient(x, grad_y, extent, before, flip)
    assert gradient.dtype == torch.float32
    kernel = torch.zeros(shape[1], 1, *extent, dtype=torch.float64, requires_grad=True)
    y = correlate(x, kernel, before, size, flip)
    (expected,) = torch.autograd.grad(y, kernel, grad_y.double())
    # Products of rounded numbers are exact; they are summed in float32.
    assert_within(gradient, expected, 1e-6)


# kernels; positions along the axes of these; elements; extent
ELEMENTS = {
    '1-d': ((2, 2), (2, 2), 3, (9,)),
    '2-d': ((3, 1), (3, 1), 5, (7, 5)),
    'shared': ((3, 2), (1, 2), 4, (5, 6)),
    '3-d': ((2, 1), (2, 1), 3, (3, 4, 5)),
}


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16], ids=['fp32', 'fp16'])
@pytest.mark.parametrize('case', ELEMENTS.values(), ids=ELEMENTS)
@pytest.mark.parametrize('interpolation', INTERPOLATIONS)
def test_construct(interpolation, case, dtype):
    kernels, shared, count, extent = case
    weight = torch.randn(*kernels, count, requires_grad=True)
    # Some positions lie outside, which is one tap beyond the extent at most.
    reach = torch.tensor(extent).reshape(-1, 1, 1, 1) / 2 + 1
    positions = (2 * torch.rand(len(extent), *shared, count) - 1) * reach
    inputs = [weight, positions.requires_grad_(), None]
    if INTERPOLATIONS[interpolation].has_sigma:
        inputs[2] = torch.rand(positions.shape).add_(0.3).requires_grad_()
    wanted = [value is not None for value in inputs]

    kernel = construct(*inputs, extent, interpolation, dtype)
    weights, *others = inputs
    shape = len(extent), *weight.shape
    expected = reference_kernel(
        weights,
        *(None if value is None else value.expand(shape) for value in others),
        kernel_size=extent,
        interpolation=interpolation,
    )
    assert kernel.dtype == dtype
    assert_within(kernel.detach(), expected.detach(), TOLERANCE[dtype])

    grad = torch.randn(kernel.shape).to(dtype)
    gradients = construct_gradient(grad, *inputs, extent, interpolation, wanted)
    leaves = [value for value in inputs if value is not None]
    references = torch.autograd.grad(expected, leaves, grad.double())
    for gradient, reference in zip(gradients, references):
        assert_within(gradient, reference.double(), 5e-6)
