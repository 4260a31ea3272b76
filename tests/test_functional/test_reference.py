"""The loops, which everything else is compared with, against hand-worked cases."""

import math

import pytest
import torch

from dcls_mm.functional.reference import (
    reference_convolution,
    reference_kernel,
    reference_sampled_convolution,
    reference_transposed_convolution,
)

EPS = 1e-7


def kernel_of(interpolation, extent, position, sigma=None, weight=1.0):
    """Return the kernel of one element, and the tensors that it depends on."""
    elements = [
        None if values is None else torch.tensor(values).double().requires_grad_()
        for values in (weight, position, sigma)
    ]
    shaped = [
        None if t is None else t.view(-1, 1, 1, 1) for t in (elements[1], elements[2])
    ]
    kernel = reference_kernel(
        elements[0].view(1, 1, 1),
        *shaped,
        kernel_size=extent,
        interpolation=interpolation,
    )
    return kernel[0, 0], elements


def approx(values):
    return pytest.approx(values, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize(
    ('extent', 'position', 'expected'),
    [
        # The centre is tap 1 of 3 and tap 2 of 4.
        (3, 0.0, [0, 1, 0]),
        (3, 0.25, [0, 0.75, 0.25]),
        (3, -0.25, [0.25, 0.75, 0]),
        (4, 0.0, [0, 0, 1, 0]),
        (4, -1.5, [0.5, 0.5, 0, 0]),
        # At the border.
        (3, -1.0, [1, 0, 0]),
        (3, 1.0, [0, 0, 1]),
        (4, -2.0, [1, 0, 0, 0]),
        (4, 1.0, [0, 0, 0, 1]),
        # Beyond it.
        (3, 1.25, [0, 0, 0.75]),
        (3, -1.75, [0.25, 0, 0]),
        (4, 1.5, [0, 0, 0, 0.5]),
        (4, -2.5, [0.5, 0, 0, 0]),
        (3, 2.0, [0, 0, 0]),
        (3, -9.5, [0, 0, 0]),
        (1, 0.0, [1]),
        (1, -0.25, [0.75]),
    ],
)
def test_linear_kernels(extent, position, expected):
    """Triangle is bilinear divided by the share that remains inside."""
    kernel, _ = kernel_of('bilinear', (extent,), [position], weight=3.0)
    assert kernel.tolist() == approx([3 * share for share in expected])
    kernel, _ = kernel_of('triangle', (extent,), [position], weight=3.0)
    total = sum(expected) + EPS
    assert kernel.tolist() == approx([3 * share / total for share in expected])


@pytest.mark.parametrize(
    ('interpolation', 'extent', 'position', 'sigma', 'shares'),
    [
        ('max', 3, 0.0, 0.0, [0, 1, 0]),
        ('max', 3, 0.0, 1.0, [1, 2, 1]),
        ('max', 3, 0.0, -0.5, [0.5, 1.5, 0.5]),
        ('max', 4, 0.5, 0.5, [0, 0, 1, 1]),
        ('max', 3, 1.0, 0.5, [0, 0.5, 1.5]),
        ('max', 3, 2.0, 0.5, [0, 0, 0.5]),
        ('max', 3, 3.0, 0.5, [0, 0, 0]),
        # A width of 0.27 + 0.73 = 1 pixel, then of 0.5 and of 0.27 pixels.
        ('gauss', 3, 0.0, -0.73, [math.exp(-1 / 2), 1, math.exp(-1 / 2)]),
        ('gauss', 4, 1.0, 0.73, [math.exp(-x * x / 2) for x in (3, 2, 1, 0)]),
        ('gauss', 3, 0.5, 0.23, [math.exp(-9 / 2), math.exp(-1 / 2), math.exp(-1 / 2)]),
        ('gauss', 3, 2.0, 0.0, [0, 0, math.exp(-((1 / 0.27) ** 2) / 2)]),
    ],
)
def test_kernels_with_sigma(interpolation, extent, position, sigma, shares):
    kernel, _ = kernel_of(interpolation, (extent,), [position], [sigma], weight=2.0)
    total = sum(shares) + EPS
    assert kernel.tolist() == pytest.approx([2 * s / total for s in shares], abs=1e-6)


@pytest.mark.parametrize(
    ('interpolation', 'position', 'sigma', 'expected'),
    [
        # Rows 0.5, 0.5 times columns 0, 0.75, 0.25.
        ('bilinear', [-0.5, 0.25], None, [[0, 0.375, 0.125], [0, 0.375, 0.125]]),
        # The column at -1.5 keeps half of itself in the first tap ...
        ('bilinear', [0.0, -1.5], None, [[0, 0, 0], [0.5, 0, 0]]),
        # ... which normalisation scales back to 1.
        ('triangle', [0.0, -1.5], None, [[0, 0, 0], [1, 0, 0]]),
        # Rows 0.5, 0.5 times columns 1, 2, 1, all over 4.
        (
            'max',
            [-0.5, 0.0],
            [0.0, 1.0],
            [[0.125, 0.25, 0.125], [0.125, 0.25, 0.125]],
        ),
        # Rows 0.606531, 1 times columns 0.135335, 1, 0.135335, over 2.041375.
        (
            'gauss',
            [0.0, 0.0],
            [0.73, 0.23],
            [[0.040211, 0.297119, 0.040211], [0.066296, 0.489866, 0.066296]],
        ),
    ],
)
def test_two_axes_rows_first(interpolation, position, sigma, expected):
    kernel, _ = kernel_of(interpolation, (2, 3), position, sigma)
    assert kernel.tolist() == [pytest.approx(row, abs=1e-6) for row in expected]


def test_elements_add_up_in_their_own_kernel():
    weight = torch.tensor([[[1.0, 10.0]], [[100.0, 1000.0]]])
    positions = torch.tensor([[[[0.0, 0.5]], [[-1.0, -1.0]]]])
    kernel = reference_kernel(
        weight, positions, kernel_size=(3,), interpolation='bilinear'
    )
    assert kernel.tolist() == [[[0, 6, 5]], [[1100, 0, 0]]]


@pytest.mark.parametrize(
    ('position', 'slopes'),
    [
        (0.0, [0, -1, 1]),
        (-1.0, [-1, 1, 0]),
        (1.0, [0, 0, -1]),
        (-2.0, [1, 0, 0]),
        (2.0, [0, 0, 0]),
        (0.5, [0, -1, 1]),
    ],
)
def test_bilinear_slopes_are_those_towards_the_next_tap(position, slopes):
    assert slopes_of('bilinear', position) == slopes


@pytest.mark.parametrize(
    ('interpolation', 'position', 'sigma', 'by_position', 'by_sigma'),
    [
        # relu and |.| have no slope at 0.
        ('triangle', 0.0, None, [0, 0, 0], None),
        ('triangle', 0.25, None, [0, -1, 1], None),
        # Only one tap, 0.5 / (0.5 + 1e-7): almost no slope.
        ('triangle', 1.5, None, [0, 0, -4e-7], None),
        ('max', 0.0, 0.0, [0, 0, 0], [0, 0, 0]),
        # Shares are t / S, with t = 0.5, 1.5, 0.5 and S = 2.5. Each t grows with
        # |sigma|: the slope by sigma is -(S - 3 t) / S^2, by position +-1 / S for the
        # outer ones.
        ('max', 0.0, -0.5, [-0.4, 0, 0.4], [-0.16, 0.32, -0.16]),
        # Shares are g / S, with g = exp(-1/2), 1, exp(-1/2) and S = 2.213061. By
        # position the slope is +-g / S; by sigma it is g / S - g * 2 g / S^2 outside,
        # -2 g / S^2 in the middle.
        ('gauss', 0.0, 0.73, [-0.274069, 0, 0.274069], [0.123841, -0.247683, 0.123841]),
        (
            'gauss',
            0.0,
            -0.73,
            [-0.274069, 0, 0.274069],
            [-0.123841, 0.247683, -0.123841],
        ),
    ],
)
def test_slopes(interpolation, position, sigma, by_position, by_sigma):
    assert slopes_of(interpolation, position, sigma) == pytest.approx(
        by_position, abs=1e-6
    )
    if sigma is not None:
        slopes = slopes_of(interpolation, position, sigma, by='sigma')
        assert slopes == pytest.approx(by_sigma, abs=1e-6)


def slopes_of(interpolation, position, sigma=None, by='position'):
    """Return the derivative of each tap of a kernel of three."""
    sigma = None if sigma is None else [sigma]
    kernel, elements = kernel_of(interpolation, (3,), [position], sigma)
    variable = elements[('weight', 'position', 'sigma').index(by)]
    slopes = [
        torch.autograd.grad(tap, variable, retain_graph=True, allow_unused=True)[0]
        for tap in kernel
    ]
    return [0 if slope is None else slope.item() for slope in slopes]


def test_slope_by_weight_is_the_share():
    kernel, (weight, *_) = kernel_of('bilinear', (3,), [0.25])
    assert torch.autograd.grad(kernel[2], weight)[0].item() == 0.25


@pytest.mark.parametrize('bad', [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize('interpolation', ['bilinear', 'triangle', 'max', 'gauss'])
def test_what_is_not_finite_makes_the_kernel_nan(interpolation, bad):
    sigma = torch.ones(1, 2, 1, 1) if interpolation in ('max', 'gauss') else None
    options = dict(kernel_size=(3,), interpolation=interpolation)
    positions = torch.zeros(1, 2, 1, 1)
    for tensor in (positions, sigma):
        if tensor is None:
            continue
        good = tensor[0, 1].item()
        tensor[0, 1] = bad
        kernel = reference_kernel(torch.ones(2, 1, 1), positions, sigma, **options)
        assert kernel[1].isnan().all()
        assert kernel[0].isfinite().all()
        tensor[0, 1] = good


def image(*values):
    return torch.tensor(values, dtype=torch.float64).requires_grad_()


@pytest.mark.parametrize(
    ('options', 'expected'),
    [
        (dict(stride=(1,), padding=(0,)), [21, 32]),
        (dict(stride=(1,), padding=(1,)), [10, 21, 32, 3]),
        (dict(stride=(2,), padding=(1,)), [10, 32]),
    ],
)
def test_convolution_along_one_axis(options, expected):
    x, kernel = image(1, 2, 3).view(1, 1, 3), image(1, 10).view(1, 1, 2)
    y = reference_convolution(x, kernel, torch.tensor([0.5]), groups=1, **options)
    assert y.flatten().tolist() == [value + 0.5 for value in expected]


def test_convolution_in_groups_and_of_two_axes():
    options = dict(stride=(1,), padding=(0,))
    x, kernel = image(1, 2, 3, 4).view(1, 2, 2), image(1, 10, 100, 1000).view(2, 1, 2)
    y = reference_convolution(x, kernel, None, groups=2, **options)
    assert y.flatten().tolist() == [21, 4300]
    y = reference_convolution(x, kernel.view(1, 2, 2), None, groups=1, **options)
    assert y.flatten().tolist() == [4321]

    x, kernel = image(1, 2, 3, 4), image(1, 10, 100, 1000)
    y = reference_convolution(
        x.view(1, 1, 2, 2),
        kernel.view(1, 1, 2, 2),
        None,
        stride=(1, 1),
        padding=(0, 0),
        groups=1,
    )
    assert y.flatten().tolist() == [4321]
    by_x, by_kernel = torch.autograd.grad(y.sum(), [x, kernel])
    assert by_x.tolist() == kernel.tolist()
    assert by_kernel.tolist() == x.tolist()


@pytest.mark.parametrize(
    ('changes', 'expected'),
    [
        (dict(), [1, 10, 2, 20]),
        (dict(stride=(1,)), [1, 12, 20]),
        (dict(padding=(1,)), [10, 2]),
        (dict(output_padding=(1,)), [1, 10, 2, 20, 0]),
    ],
)
def test_transposed_convolution(changes, expected):
    options = dict(stride=(2,), padding=(0,), output_padding=(0,), groups=1)
    x, kernel = image(1, 2), image(1, 10)
    y = reference_transposed_convolution(
        x.view(1, 1, 2),
        kernel.view(1, 1, 2),
        torch.tensor([0.5]),
        **{**options, **changes},
    )
    assert y.flatten().tolist() == [value + 0.5 for value in expected]


def test_transposed_convolution_in_groups():
    options = dict(stride=(1,), padding=(0,), output_padding=(0,))
    x, kernel = image(1, 2).view(1, 2, 1), image(1, 10, 100, 1000).view(2, 2, 1)
    y = reference_transposed_convolution(x, kernel, None, groups=1, **options)
    assert y.flatten().tolist() == [201, 2010]
    y = reference_transposed_convolution(x, kernel, None, groups=2, **options)
    assert y.flatten().tolist() == [1, 10, 200, 2000]


@pytest.mark.parametrize(
    ('position', 'expected', 'slope'),
    [
        # The slope is that of the sum: x[i + 1] - x[i] at whole pixels.
        (0.0, [1, 2, 4], 1 + 2 - 4),
        (0.5, [1.5, 3, 2], 1 + 2 - 4),
        (-1.0, [0, 1, 2], 1 + 1 + 2),
        # Beyond the last tap of three: half a tap remains, the rest is dropped.
        (1.5, [1, 2, 0], -2 - 4),
        (2.0, [0, 0, 0], 0),
        (math.nan, [math.nan] * 3, None),
        (-math.inf, [math.nan] * 3, None),
    ],
)
def test_sampled_convolution(position, expected, slope):
    x, weight, place = image(1, 2, 4), image(3), image(position)
    y = reference_sampled_convolution(
        x.view(1, 1, 3),
        weight.view(1, 1, 1),
        place.view(1, 1, 1),
        image(0.5),
        kernel_size=(3,),
        stride=(1,),
        padding=(1,),
        groups=1,
    )
    wanted = [3 * value + 0.5 for value in expected]
    assert y.flatten().tolist() == pytest.approx(wanted, nan_ok=True)
    if slope is not None:
        grads = torch.autograd.grad(y.sum(), [weight, place], allow_unused=True)
        by_weight, by_place = (0 if g is None else g.item() for g in grads)
        assert by_weight == sum(expected)
        assert by_place == 3 * slope


def test_sampled_convolution_of_two_axes_and_with_positions_an_output():
    """Rows 0.5, 0.5 times columns 0.75, 0.25; then the first and the last tap."""
    x = image(1, 2, 3, 4).view(1, 1, 2, 2)
    options = dict(kernel_size=(2, 2), stride=(1, 1), padding=(0, 0), groups=1)
    positions = image(-0.5, -0.75).view(2, 1, 1)
    y = reference_sampled_convolution(
        x, torch.ones(1, 1, 1), positions, None, **options
    )
    assert y.flatten().tolist() == [0.5 * (0.75 + 0.5) + 0.5 * (2.25 + 1)]
    positions = image(-1, 0, -1, 0).view(2, 2, 1, 1)
    y = reference_sampled_convolution(
        x, torch.ones(2, 1, 1), positions, None, **options
    )
    assert y.flatten().tolist() == [1, 4]
