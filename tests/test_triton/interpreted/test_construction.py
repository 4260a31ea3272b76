"""The construction in Triton, against the loops and autograd in float64.

Positions and sigma are multiples of 1/64, so that float32 has no other kinks.
"""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from dcls_mm.functional import INTERPOLATIONS
from dcls_mm.functional.operators import construction as operators
from dcls_mm.functional.profiles import product_kernel
from dcls_mm.functional.reference import reference_kernel
from dcls_mm.functional.triton_kernels import construction
from dcls_mm.functional.triton_kernels.construction import (
    construct,
    construct_gradient,
)

# Relative to the largest value, and to 1: differences of larger terms may cancel.
TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}

WITH_SIGMA = [name for name, row in INTERPOLATIONS.items() if row.has_sigma]


def on_grid(values):
    return (64 * values).round() / 64


def positions_of(shape, size):
    """Return positions of each kind: inside, at the border, beyond and on taps."""
    first, last = -(size // 2), size - 1 - size // 2
    kinds = torch.stack(
        [
            first + (last - first) * torch.rand(shape),
            (first - 1.0) + (last - first + 2) * torch.randint(2, shape),
            torch.where(torch.rand(shape) < 0.5, first - 1.0, last + 1.0)
            + torch.randn(shape),
            torch.where(torch.rand(shape) < 0.5, first - 30.25, last + 30.25),
            torch.randint(first - 2, last + 3, shape).float(),
            torch.randint(first - 2, last + 2, shape) + 0.5,
        ]
    )
    return on_grid(kinds.gather(0, torch.randint(len(kinds), (1, *shape)))[0])


def elements(interpolation, extent, kernels, count, shared=()):
    """Return weight, positions and sigma (or None); ``shared`` are axes of weight."""
    shape = tuple(
        1 if i in shared else size for i, size in enumerate((*kernels, count))
    )
    positions = torch.stack([positions_of(shape, size) for size in extent])
    sigma = None
    if interpolation in WITH_SIGMA:
        sigma = on_grid(torch.randn(positions.shape))
        sigma *= torch.rand(positions.shape) < 0.8
    return torch.randn(*kernels, count), positions, sigma


def expanded(weight, positions, sigma):
    return weight, *(
        None if t is None else t.expand(-1, *weight.shape) for t in (positions, sigma)
    )


def expected(inputs, extent, interpolation, grad_kernel):
    """Return the gradients by autograd, in float64."""
    doubles = [None if t is None else t.double().requires_grad_() for t in inputs]
    rule = INTERPOLATIONS[interpolation]
    kernel = product_kernel(*expanded(*doubles), extent, rule)
    given_ones = [t for t in doubles if t is not None]
    return torch.autograd.grad(kernel, given_ones, grad_kernel.double())


def assert_close(actual, wanted, dtype=torch.float32):
    assert actual.shape == wanted.shape
    allowed = TOLERANCE[dtype] * max(1.0, wanted.abs().max().item())
    torch.testing.assert_close(actual.double(), wanted, rtol=0, atol=allowed)


def check(inputs, extent, interpolation, loops=True):
    """Compare the kernel and all gradients."""
    options = dict(kernel_size=extent, interpolation=interpolation)
    kernel = construct(*inputs, extent, interpolation, torch.float32)
    if loops:
        wanted = reference_kernel(*expanded(*inputs), **options)
    else:
        doubles = [None if t is None else t.double() for t in inputs]
        rule = INTERPOLATIONS[interpolation]
        wanted = product_kernel(*expanded(*doubles), extent, rule)
    assert_close(kernel, wanted)
    grad_kernel = torch.randn(kernel.shape)
    gradients = construct_gradient(
        grad_kernel, *inputs, extent, interpolation, (True, True, True)
    )
    found = [gradient for gradient in gradients if gradient is not None]
    for gradient, of in zip(
        found, expected(inputs, extent, interpolation, grad_kernel), strict=True
    ):
        assert_close(gradient, of)


@st.composite
def cases(draw):
    """Draw an interpolation, an extent, and a weight's shape with the shared axes."""
    ndim = draw(st.integers(1, 3))
    most = {1: 12, 2: 6, 3: 3}[ndim]
    extent = tuple(draw(st.integers(1, most)) for _ in range(ndim))
    axes = draw(st.integers(0, 4))
    kernels = tuple(draw(st.integers(1, 3 if axes < 3 else 2)) for _ in range(axes))
    shared = draw(st.sets(st.integers(0, axes)))
    torch.manual_seed(draw(st.integers(0, 2**16)))
    return (
        draw(st.sampled_from(list(INTERPOLATIONS))),
        extent,
        kernels,
        draw(st.integers(1, 9)),
        shared,
    )


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(cases())
def test_equals_the_loops_and_autograd(case):
    interpolation, extent, *rest = case
    check(elements(interpolation, extent, *rest), extent, interpolation)


@pytest.mark.parametrize('extent', [(300,), (2, 140), (17, 5), (3, 3, 20)])
@pytest.mark.parametrize('interpolation', INTERPOLATIONS)
def test_several_tiles(interpolation, extent):
    inputs = elements(interpolation, extent, (1,), 5)
    check(inputs, extent, interpolation, loops=False)


@pytest.mark.parametrize('shared', [{0}, {1}, {0, 1, 2}])
@pytest.mark.parametrize('interpolation', INTERPOLATIONS)
def test_several_blocks(interpolation, shared, monkeypatch):
    """Of elements of a kernel, of what shares positions and of those that are left."""
    for name, size in dict(PAIRS=4, SUMMED=8, REPEATS=2).items():
        monkeypatch.setattr(construction, name, size)
    inputs = elements(interpolation, (3,), (3, 2), 5, shared)
    check(inputs, (3,), interpolation)


@pytest.mark.parametrize('interpolation', INTERPOLATIONS)
def test_strided_inputs(interpolation):
    extent = (3, 4)
    inputs = elements(interpolation, extent, (3, 2), 4)
    strided = [
        None if t is None else torch.stack((t, t * math.nan), -1)[..., 0]
        for t in inputs
    ]
    assert not strided[0].is_contiguous()
    kernel = construct(*strided, extent, interpolation, torch.float32)
    assert torch.equal(kernel, construct(*inputs, extent, interpolation, kernel.dtype))
    same = kernel[:, :, :1].expand(-1, -1, 3, -1)
    for one, other in zip(
        construct_gradient(same, *strided, extent, interpolation, (True,) * 3),
        construct_gradient(same.clone(), *inputs, extent, interpolation, (True,) * 3),
    ):
        assert one is other is None or torch.equal(one, other)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('interpolation', INTERPOLATIONS)
def test_half_precision(interpolation, dtype):
    """It is computed in float32, whatever goes in and comes out."""
    extent = (5, 4)
    inputs = elements(interpolation, extent, (3, 2), 4)
    halves = [None if t is None else t.to(dtype) for t in inputs]
    same = [None if t is None else t.float() for t in halves]
    kernel = construct(*same, extent, interpolation, torch.float32)
    half = construct(*halves, extent, interpolation, dtype)
    assert half.dtype == dtype
    assert_close(half, kernel.double(), dtype)
    grad_kernel = torch.randn(kernel.shape).to(dtype)
    for found, wanted in zip(
        construct_gradient(grad_kernel, *halves, extent, interpolation, (True,) * 3),
        construct_gradient(
            grad_kernel.float(), *same, extent, interpolation, (True,) * 3
        ),
    ):
        if wanted is not None:
            assert found.dtype == dtype
            assert_close(found, wanted.double(), dtype)


@pytest.mark.parametrize('far', [1e3, 1e10, 1e38, torch.finfo(torch.float32).max])
@pytest.mark.parametrize('interpolation', INTERPOLATIONS)
def test_an_element_far_outside_counts_nothing(interpolation, far):
    extent = (5, 4)
    inside = torch.tensor([[0.25], [-0.75]])
    outside = torch.tensor([[far, -far, 0.25, far, -far], [0.25, 0.5, -far, far, far]])
    positions = torch.cat((inside, outside), 1)
    weight = torch.randn(positions.shape[1])
    sigma = None
    if interpolation in WITH_SIGMA:
        sigma = torch.full_like(positions, 1e-6 if interpolation == 'gauss' else 0.3)
    near = weight[:1], inside, None if sigma is None else sigma[:, :1]
    kernel = construct(weight, positions, sigma, extent, interpolation, torch.float32)
    assert_close(
        kernel, construct(*near, extent, interpolation, torch.float32).double()
    )
    grad_kernel = torch.randn(kernel.shape)
    gradients = construct_gradient(
        grad_kernel, weight, positions, sigma, extent, interpolation, (True,) * 3
    )
    for gradient in gradients:
        if gradient is not None:
            assert not gradient[..., 1:].any()
            assert gradient[..., 0].any()


@pytest.mark.parametrize('bad', [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize('which', [1, 2])
@pytest.mark.parametrize('interpolation', INTERPOLATIONS)
def test_what_is_not_finite_spoils_its_kernel(interpolation, which, bad):
    extent = (5, 4)
    inputs = elements(interpolation, extent, (3, 2), 4)
    if inputs[which] is None:
        pytest.skip('it has no sigma')
    inputs[which][1, 1, 0, 2] = bad
    kernel = construct(*inputs, extent, interpolation, torch.float32)
    wanted = torch.zeros(kernel.shape, dtype=torch.bool)
    wanted[1, 0] = True
    assert torch.equal(kernel.isnan(), wanted)
    gradients = construct_gradient(
        torch.ones_like(kernel), *inputs, extent, interpolation, (True,) * 3
    )
    for gradient in gradients:
        if gradient is not None:
            assert gradient[..., 1, 0, 2].isnan().all()
            gradient[..., 1, 0, 2] = 0
            assert gradient.isfinite().all()


def test_slopes_on_a_tap():
    """'bilinear' has the slope towards the next tap, a triangle has none."""
    values = torch.tensor([[1.0, 10.0, 100.0]])
    positions = torch.tensor([[[-1.0, 0.0, 1.0]]])
    weight = torch.ones(1, 3)
    for interpolation, wanted in (
        ('bilinear', [9.0, 90.0, -100.0]),
        ('triangle', [0.0, 0.0, 0.0]),
    ):
        _, gradient, _ = construct_gradient(
            values, weight, positions, None, (3,), interpolation, (False, True, False)
        )
        assert gradient.flatten().tolist() == wanted


class Operators(TorchDispatchMode):
    """Notes the operators of torch that are called."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.add(function._schema.name)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize('shared', [set(), {0}])
@pytest.mark.parametrize('interpolation', INTERPOLATIONS)
def test_one_launch_forward_and_at_most_two_backward(
    interpolation, shared, monkeypatch
):
    """All that torch does is to reserve memory."""
    inputs = elements(interpolation, (5, 5), (3, 1), 4, shared)
    launches = []
    monkeypatch.setattr(construction.Launch, 'run', lambda self: launches.append(self))
    with Operators() as called:
        kernel = construct(*inputs, (5, 5), interpolation, torch.float16)
        assert len(launches) == 1
        construct_gradient(kernel, *inputs, (5, 5), interpolation, (True,) * 3)
    assert len(launches) == (3 if shared else 2)
    assert called.names <= {'aten::new_empty', 'aten::slice'}


@pytest.mark.parametrize('wanted', [(0,), (1,), (2,), (0, 2), (1, 2), (0, 1, 2)])
@pytest.mark.parametrize('shared', [set(), {0}])
@pytest.mark.parametrize('interpolation', INTERPOLATIONS)
def test_through_the_operators(interpolation, shared, wanted, with_kernels):
    """Only the wanted gradients are computed, each for its input."""
    extent = (4, 3)
    inputs = elements(interpolation, extent, (3, 2), 4, shared)
    leaves = [inputs[i].requires_grad_() for i in wanted if inputs[i] is not None]
    kernel = operators.construct(*inputs, extent, interpolation, torch.float32)
    grad_kernel = torch.randn(kernel.shape)
    if not leaves:
        assert not kernel.requires_grad
        return
    of_all = expected(inputs, extent, interpolation, grad_kernel)
    for i, found in zip(wanted, torch.autograd.grad(kernel, leaves, grad_kernel)):
        assert_close(found, of_all[i])


@pytest.fixture
def with_kernels(monkeypatch):
    """Let the operators launch Triton's kernels on the CPU too."""
    monkeypatch.setattr(operators, 'TRITON_DEVICES', {'cpu'})
    operators.construct.register_kernel('cpu')(construct)
    operators.construct_gradient.register_kernel('cpu')(
        lambda *args: [t for t in construct_gradient(*args) if t is not None]
    )
