"""Positions so far outside that numbers overflow give no taps and no gradient.

They go up to the dtype's largest value, on every path, alone and beside an element
inside.
"""

import warnings

import pytest
import torch
from conftest import TOLERANCE, assert_close

from dcls_mm.functional import (
    INTERPOLATIONS,
    construct_kernel,
    convolve,
    sampled_convolution,
)
from dcls_mm.functional.repulsion import repulsion

FAR = [1e3, 1e10, 1e38, 'largest']
SIGMA = {'max': 0.3, 'gauss': 1e-6}
EXTENT = (5, 4)


def far_away(value, dtype):
    largest = torch.finfo(dtype).max
    return largest if value == 'largest' else min(value, largest)


def elements(interpolation, value, dtype, inside):
    """Return weight, positions and sigma; with ``inside``, element 0 is inside.

    The others are far along the rows, the columns or both; of the last, two share a
    place and two are at opposite ones.
    """
    far = far_away(value, dtype)
    rows = [far, -far, 0.25, far, far, -far]
    columns = [0.25, -0.75, -far, far, far, -far]
    if inside:
        rows, columns = [0.25, *rows], [-0.75, *columns]
    positions = torch.tensor([rows, columns], dtype=dtype)
    positions = positions.view(2, 1, 1, -1).repeat(1, 3, 2, 1)
    weight = torch.randn(3, 2, len(rows), dtype=dtype)
    tensors = [weight, positions]
    if interpolation in SIGMA:
        tensors.append(torch.full_like(positions, SIGMA[interpolation]))
    return [t.requires_grad_() for t in tensors]


def seed_like(y):
    return torch.linspace(-1, 2, y.numel()).sin().view(y.shape).to(y)


def by_autograd(function, tensors):
    y = function(*tensors)
    return [y, *torch.autograd.grad(y, tensors, seed_like(y))]


def by_transform(function, tensors):
    """Evaluate by torch.func, which uses the path of products."""
    y, pull_back = torch.func.vjp(function, *[t.detach() for t in tensors])
    return [y, *pull_back(seed_like(y))]


def by_trace(function, tensors):
    """Evaluate a recording of the path of products."""
    examples = tuple(t.detach() for t in tensors)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # torch.jit.trace is deprecated
        traced = torch.jit.trace(function, examples, check_trace=False)
    return by_autograd(traced, tensors)


PATHS = [by_autograd, by_transform, by_trace]


@pytest.mark.parametrize('dtype', TOLERANCE)
@pytest.mark.parametrize('value', FAR)
@pytest.mark.parametrize('interpolation', INTERPOLATIONS)
def test_an_element_far_outside_counts_nothing(interpolation, value, dtype):
    def kernel(*tensors):
        return construct_kernel(
            *tensors, kernel_size=EXTENT, interpolation=interpolation
        )

    alone = elements(interpolation, value, dtype, inside=False)
    beside = elements(interpolation, value, dtype, inside=True)
    near = [t[..., :1].detach().requires_grad_() for t in beside]
    expected, *gradients = by_autograd(kernel, near)
    for path in PATHS:
        for result in path(kernel, alone):
            assert torch.equal(result, torch.zeros_like(result)), path
        y, *found = path(kernel, beside)
        assert_close(y, expected)
        for gradient, wanted in zip(found, gradients):
            assert_close(gradient[..., :1], wanted, factor=5)
            others = gradient[..., 1:]
            assert torch.equal(others, torch.zeros_like(others)), path


@pytest.mark.parametrize('dtype', TOLERANCE)
@pytest.mark.parametrize('value', FAR)
def test_the_input_is_not_sampled_there(value, dtype):
    x = torch.randn(2, 2, 6, 7, dtype=dtype, requires_grad=True)
    weight, positions = elements('bilinear', value, dtype, inside=True)

    def sampled(x, *tensors):
        return sampled_convolution(x, *tensors, kernel_size=EXTENT)

    def constructed(x, *tensors):
        return convolve(x, construct_kernel(*tensors, kernel_size=EXTENT))

    tensors = [x, weight, positions]
    doubles = [t.detach().double().requires_grad_() for t in tensors]
    expected = by_autograd(constructed, doubles)
    for path in (by_autograd, by_transform):
        results = path(sampled, tensors)
        for result, wanted in zip(results, expected):
            assert_close(result, wanted, factor=5)
        for gradient in results[2:]:
            others = gradient[..., 1:]
            assert torch.equal(others, torch.zeros_like(others))


@pytest.mark.parametrize('value', FAR)
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_no_repulsion_from_there(value, dtype):
    """Differences or squares are infinite; two at the same place repel fully."""
    far = far_away(value, dtype)
    positions = torch.tensor([[far, -far, 0.25, 0.5, far]], dtype=dtype)
    positions = positions.repeat(2, 1).requires_grad_()
    loss = repulsion(positions)
    near = torch.tensor([[0.25, 0.5]] * 2, dtype=dtype, requires_grad=True)
    expected = repulsion(near)
    assert_close(loss, (expected + 1) / 10)
    (gradient,) = torch.autograd.grad(loss, positions)
    (wanted,) = torch.autograd.grad(expected / 10, near)
    assert_close(gradient[:, 2:4], wanted)
    assert not gradient[:, [0, 1, 4]].any()
