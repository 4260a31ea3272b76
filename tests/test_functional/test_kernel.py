"""construct_kernel against hand-worked cases, the loops and the published package."""

import itertools

import pytest
import torch
from conftest import assert_close

from dcls_mm.functional import INTERPOLATIONS, construct_kernel
from dcls_mm.functional.reference import reference_kernel
from dcls_mm.layers.published import published_axes

EXTENTS = [(5,), (6,), (7, 7), (3, 6), (5, 17), (3, 4, 5)]


def random_elements(extent, interpolation, shape=(3, 2, 4), dtype=torch.float64):
    """Return weights, positions inside and outside, and sigma (or None)."""
    weight = torch.randn(shape, dtype=dtype)
    positions = torch.stack(
        [(torch.rand(shape, dtype=dtype) - 0.5) * (size + 2) for size in extent]
    )
    sigma = None
    if INTERPOLATIONS[interpolation].has_sigma:
        sigma = torch.randn(len(extent), *shape, dtype=dtype)
    return weight, positions, sigma


@pytest.mark.parametrize(
    ('position', 'expected'),
    [
        (0.0, [0, 0, 1, 0, 0]),
        (0.25, [0, 0, 0.75, 0.25, 0]),
        (-1.5, [0.5, 0.5, 0, 0, 0]),
        (2.0, [0, 0, 0, 0, 1]),
        (2.5, [0, 0, 0, 0, 0.5]),
        (-2.25, [0.75, 0, 0, 0, 0]),
        (4.0, [0, 0, 0, 0, 0]),
    ],
)
def test_bilinear_by_hand(position, expected):
    kernel = construct_kernel(
        torch.full((1, 1, 1), 2.0), torch.full((1, 1, 1, 1), position), kernel_size=5
    )
    assert_close(kernel, 2 * torch.tensor(expected)[None, None])


@pytest.mark.parametrize(
    ('interpolation', 'sigma', 'profile'),
    [
        ('triangle', None, [0, 0.5, 0.5]),
        ('max', 0.5, [0, 1.0, 1.0]),
        ('gauss', 0.73, [0.324652, 0.882497, 0.882497]),  # exp(-x^2 / 2), x 1.5, 0.5
    ],
)
def test_normalised_profiles_by_hand(interpolation, sigma, profile):
    sigma = None if sigma is None else torch.full((1, 1, 1, 1), sigma)
    kernel = construct_kernel(
        torch.ones(1, 1, 1),
        torch.full((1, 1, 1, 1), 0.5),
        sigma,
        kernel_size=3,
        interpolation=interpolation,
    )
    profile = torch.tensor(profile)
    assert_close(kernel[0, 0], profile / profile.sum(), factor=5)


def test_first_axis_is_rows():
    positions = torch.tensor([-2.0, 3.0]).view(2, 1, 1, 1)
    for interpolation in ('bilinear', 'triangle'):
        kernel = construct_kernel(
            torch.ones(1, 1, 1),
            positions,
            kernel_size=(5, 7),
            interpolation=interpolation,
        )
        assert kernel[0, 0].argmax() == 0 * 7 + 6


@pytest.mark.parametrize('extent', EXTENTS)
@pytest.mark.parametrize('interpolation', INTERPOLATIONS)
def test_equals_the_loops(extent, interpolation):
    elements = random_elements(extent, interpolation)
    kernel = construct_kernel(
        *elements, kernel_size=extent, interpolation=interpolation
    )
    expected = reference_kernel(
        *elements, kernel_size=extent, interpolation=interpolation
    )
    assert_close(kernel, expected)


@pytest.mark.parametrize('own', itertools.product((True, False), repeat=3))
@pytest.mark.parametrize('interpolation', INTERPOLATIONS)
def test_positions_shared_along_any_axis(interpolation, own):
    """By scattering and by products of profiles, which transforms and GPUs use."""
    weight, positions, sigma = random_elements((5, 4), interpolation)
    part = (slice(None), *(slice(None if one else 1) for one in own))
    expected = construct_kernel(
        weight,
        positions[part].expand_as(positions),
        None if sigma is None else sigma[part].expand_as(sigma),
        kernel_size=(5, 4),
        interpolation=interpolation,
    )
    placed, width = positions[part], None if sigma is None else sigma[part]
    options = dict(kernel_size=(5, 4), interpolation=interpolation)
    assert_close(construct_kernel(weight, placed, width, **options), expected)
    by_product = torch.func.vmap(
        lambda one: construct_kernel(one, placed, width, **options)
    )(weight.unsqueeze(0))
    assert_close(by_product[0], expected)


@pytest.mark.parametrize('extent', EXTENTS)
@pytest.mark.parametrize('interpolation', INTERPOLATIONS)
def test_gradients(extent, interpolation):
    """They are checked away from the kinks, where the profiles' slopes jump."""
    weight, positions, sigma = random_elements(extent, interpolation, (1, 2, 2))
    positions = positions.floor() + 0.2 + 0.6 * torch.rand_like(positions)
    inputs = [t.requires_grad_() for t in (weight, positions, sigma) if t is not None]
    if interpolation == 'max':
        with torch.no_grad():
            sigma.copy_(0.05 + 0.1 * torch.rand_like(sigma))

    def kernel(*tensors):
        return construct_kernel(
            *tensors, kernel_size=extent, interpolation=interpolation
        )

    assert torch.autograd.gradcheck(kernel, inputs)


def test_bilinear_gradient_at_integer_positions():
    """It is the slope towards the next tap, even if the position is clamped to it."""
    for position in (-1.0, 0.0, 1.0):
        place = torch.full((1, 1, 1, 1), position, requires_grad=True)
        kernel = construct_kernel(torch.ones(1, 1, 1), place, kernel_size=3)
        values = torch.tensor([1.0, 10.0, 100.0])
        (kernel[0, 0] * values).sum().backward()
        tap = int(position) + 1
        after = values[tap + 1] if tap < 2 else 0.0
        assert place.grad.item() == pytest.approx(float(after - values[tap]))


@pytest.mark.parametrize('ndim', [1, 2, 3])
@pytest.mark.parametrize('version', ['v0', 'v1', 'max', 'gauss'])
def test_equals_the_published_package(ndim, version):
    """On cubes, its confusion of axes only changes the order of the rows of P."""
    modules = pytest.importorskip('DCLS.construct.modules')
    extent, count = (5,) * ndim, 4
    name = f'ConstructKernel{ndim}d'
    published = getattr(modules, name)(6, 6, 3, count, extent, version)
    interpolation = {'v0': 'bilinear', 'v1': 'triangle'}.get(version, version)
    elements = random_elements(extent, interpolation, (6, 2, count), torch.float32)
    inputs = [t.requires_grad_() for t in elements if t is not None]
    weight, *per_axis = inputs
    rows = list(published_axes(interpolation, ndim))
    rest = [t[rows] for t in per_axis]
    expected = published(weight, *rest, *[None] * (2 - len(rest)))
    kernel = construct_kernel(*inputs, kernel_size=extent, interpolation=version)
    assert_close(kernel, expected, factor=5)
    seed = torch.randn_like(kernel)
    for grad, expected_grad in zip(
        torch.autograd.grad(kernel, inputs, seed),
        torch.autograd.grad(expected, inputs, seed),
    ):
        assert_close(grad, expected_grad, factor=20)


def test_autocast_and_half_precision():
    weight, positions, sigma = random_elements((5, 5), 'gauss', dtype=torch.float32)
    options = dict(kernel_size=5, interpolation='gauss')
    expected = construct_kernel(weight, positions, sigma, **options)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        kernel = construct_kernel(weight, positions, sigma, **options)
    assert kernel.dtype == torch.float32
    assert torch.equal(kernel, expected)
    half = construct_kernel(
        weight.bfloat16(), positions.bfloat16(), sigma.bfloat16(), **options
    )
    assert half.dtype == torch.bfloat16
    assert_close(half, expected, factor=2)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(weight=torch.ones(3, 4)), r'positions must .*weight.s \(3, 4\)'),
        (dict(positions=torch.ones(2, 3, 2, 5)), r'positions must .*\(ndim, 3, 2, 4\)'),
        (dict(positions=torch.ones(4, 3, 2, 4)), '1, 2 or 3 rows, got 4'),
        (dict(kernel_size=0), 'kernel_size must be at least 1, got 0'),
        (dict(kernel_size=(3, 3, 3)), 'kernel_size must be one integer or 2'),
        (dict(interpolation='cubic'), "one of .*'gauss'.*got 'cubic'"),
        (dict(interpolation='gauss'), "'gauss' needs sigma"),
        (dict(sigma=torch.ones(2, 3, 2, 4)), "'bilinear' has no sigma"),
        (
            dict(interpolation='max', sigma=torch.ones(2, 3, 2)),
            r'sigma must be shaped like positions, \(2, 3, 2, 4\)',
        ),
    ],
)
def test_bad_arguments(change, message):
    arguments = dict(
        weight=torch.ones(3, 2, 4), positions=torch.ones(2, 3, 2, 4), kernel_size=5
    )
    with pytest.raises(ValueError, match=message):
        construct_kernel(**{**arguments, **change})


@pytest.mark.parametrize('size', [2.5, '3', True, None])
def test_kernel_size_must_be_an_integer(size):
    with pytest.raises(TypeError, match='kernel_size must be an integer'):
        construct_kernel(torch.ones(1, 1, 1), torch.ones(1, 1, 1, 1), kernel_size=size)
