"""What the kernels of the construction share: elements, and their shares of taps."""

import math

import torch
import triton
import triton.language as tl

from ..interpolation import GAUSS_BASE_WIDTH, MAX_BASE_WIDTH, NORMALIZATION_EPS

EPS = tl.constexpr(NORMALIZATION_EPS)
MAX_WIDTH = tl.constexpr(MAX_BASE_WIDTH)
GAUSS_WIDTH = tl.constexpr(GAUSS_BASE_WIDTH)

# Where 'gauss' becomes zero, as in `gauss_profile` for float32.
_MOST = -0.46 * math.log(torch.finfo(torch.float32).tiny)
NEGLIGIBLE = tl.constexpr(1.001 * math.exp(-_MOST))
SQRT_HALF = tl.constexpr(math.sqrt(0.5))

# Numbers whose value should not make another variant of a kernel.
SIZES = [
    'count',
    'row',
    'middle',
    'inner',
    'outer_step',
    'middle_step',
    'inner_step',
    'element_step',
]


@triton.jit
def first_place(kernel, middle, inner, outer_step, middle_step, inner_step):
    """Return where a row of the positions holds those of a kernel's elements.

    The kernels form a grid (outer, middle, inner); a step of 0 shares the positions.
    """
    outer = (kernel // (middle * inner)).to(tl.int64)
    place = outer * outer_step + kernel // inner % middle * middle_step
    return place + kernel % inner * inner_step


@triton.jit
def _load_row(values, place, valid, row, AXIS: tl.constexpr, NDIM: tl.constexpr):
    if values is None or AXIS + NDIM < 3:
        loaded = tl.zeros_like(place).to(tl.float32)
    else:
        at = values + (AXIS + NDIM - 3) * row.to(tl.int64) + place
        loaded = tl.load(at, mask=valid, other=0).to(tl.float32)
    return loaded


@triton.jit
def load_rows(values, place, valid, row, NDIM: tl.constexpr):
    """Load what the elements have on the three axes; zeros where there is nothing."""
    z = _load_row(values, place, valid, row, 0, NDIM)
    y = _load_row(values, place, valid, row, 1, NDIM)
    x = _load_row(values, place, valid, row, 2, NDIM)
    return z, y, x


@triton.jit
def zero_or_nan(z, y, x):
    """Return zero, or NaN where a number is not finite."""
    return (z - z) + (y - y) + (x - x)


@triton.jit
def sign(value):
    return tl.where(value > 0, 1.0, tl.where(value < 0, -1.0, 0.0))


@triton.jit
def profile(tap, center, sigma, PRESENT: tl.constexpr, INTERPOLATION: tl.constexpr):
    """Return a tap's share on one axis; see ``functional/interpolation.py``.

    'triangle' is 'max' with a sigma of zero.
    """
    if not PRESENT:
        return tl.zeros_like(tap - center) + 1
    if INTERPOLATION == 'bilinear':
        lower = tl.floor(center)
        fraction = center - lower
        upper = tl.where(tap == lower + 1, fraction, 0.0)
        return tl.where(tap == lower, 1 - fraction, upper)
    if INTERPOLATION == 'gauss':
        distance = (tap - center) * (SQRT_HALF / (GAUSS_WIDTH + tl.abs(sigma)))
        share = tl.exp(-distance * distance)
        return tl.where(share > NEGLIGIBLE, share, 0.0)
    return tl.maximum(MAX_WIDTH + tl.abs(sigma) - tl.abs(tap - center), 0.0)


@triton.jit
def derivatives(
    share, tap, center, sigma, PRESENT: tl.constexpr, INTERPOLATION: tl.constexpr
):
    """Return the derivatives of a share of 'max' or 'gauss' by center and |sigma|."""
    if not PRESENT:
        return tl.zeros_like(share), tl.zeros_like(share)
    if INTERPOLATION == 'gauss':
        inverse = 1 / (GAUSS_WIDTH + tl.abs(sigma))
        distance = (tap - center) * (SQRT_HALF * inverse)
        distance = tl.where(share > 0, distance, 0.0)  # else it may be infinite
        slope = 2 * SQRT_HALF * inverse * distance * share
        return slope, 2 * inverse * distance * distance * share
    rising = tl.where(share > 0, 1.0, 0.0)
    return rising * sign(tap - center), rising


@triton.jit
def sums(
    center,
    sigma,
    STEP: tl.constexpr,
    SIZE: tl.constexpr,
    CHUNK: tl.constexpr,
    PRESENT: tl.constexpr,
    INTERPOLATION: tl.constexpr,
    DERIVATIVES: tl.constexpr,
):
    """Return the sums of an axis' shares and of their derivatives, [STEP] each."""
    total = tl.zeros([STEP], tl.float32)
    slope = tl.zeros([STEP], tl.float32)
    widening = tl.zeros([STEP], tl.float32)
    if not PRESENT:
        return total + 1, slope, widening
    if INTERPOLATION == 'triangle':
        nearest = tl.minimum(center + 1, SIZE - center)
        return tl.clamp(nearest, 0.0, 1.0), slope, widening
    for first in range(0, SIZE, CHUNK):
        tap = (first + tl.arange(0, CHUNK)).to(tl.float32)[None, :]
        share = profile(tap, center[:, None], sigma[:, None], True, INTERPOLATION)
        share = tl.where(tap < SIZE, share, 0.0)
        total += tl.sum(share, 1)
        if DERIVATIVES:
            by_center, by_sigma = derivatives(
                share, tap, center[:, None], sigma[:, None], True, INTERPOLATION
            )
            slope += tl.sum(by_center, 1)
            widening += tl.sum(by_sigma, 1)
    return total, slope, widening
