"""The kernels of the construction's backward pass."""

import triton
import triton.language as tl

from .elements import (
    EPS,
    SIZES,
    derivatives,
    first_place,
    load_rows,
    profile,
    sign,
    sums,
    zero_or_nan,
)


@triton.jit
def _store(target, at, value, valid):
    """Store a gradient, unless it isn't wanted."""
    if target is not None:
        tl.store(target + at, value.to(target.dtype.element_ty), mask=valid)


@triton.jit
def _store_rows(target, at, z, y, x, valid, size, NDIM: tl.constexpr):
    """Store gradients on the axes that exist, (NDIM, size)."""
    if NDIM > 2:
        _store(target, at, z, valid)
    if NDIM > 1:
        _store(target, at + (NDIM - 2) * size, y, valid)
    _store(target, at + (NDIM - 1) * size, x, valid)


@triton.jit(do_not_specialize=['kernels', *SIZES])
def collect_kernel(
    grad_kernel,
    weight,
    positions,
    sigma,
    grad_weight,
    grad_positions,
    grad_sigma,
    kernels,
    count,
    row,
    middle,
    inner,
    outer_step,
    middle_step,
    inner_step,
    element_step,
    NDIM: tl.constexpr,
    DEPTH: tl.constexpr,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    INTERPOLATION: tl.constexpr,
    STEP: tl.constexpr,
    LINES: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHUNK: tl.constexpr,
):
    kernel = tl.program_id(0)
    element = tl.program_id(1) * STEP + tl.arange(0, STEP)
    valid = element < count
    place = first_place(kernel, middle, inner, outer_step, middle_step, inner_step)
    place += element * element_step
    kernel = kernel.to(tl.int64)
    at = kernel * count + element
    z, y, x = load_rows(positions, place, valid, row, NDIM)
    wide_z, wide_y, wide_x = load_rows(sigma, place, valid, row, NDIM)
    poison = zero_or_nan(z, y, x) + zero_or_nan(wide_z, wide_y, wide_x)
    z, y, x = z + DEPTH // 2, y + HEIGHT // 2, x + WIDTH // 2

    # Sums of gradient times share, with the derivatives in place of one axis' share.
    value = tl.zeros([STEP], tl.float32)
    slope_z = tl.zeros([STEP], tl.float32)
    slope_y = tl.zeros([STEP], tl.float32)
    slope_x = tl.zeros([STEP], tl.float32)
    widening_z = tl.zeros([STEP], tl.float32)
    widening_y = tl.zeros([STEP], tl.float32)
    widening_x = tl.zeros([STEP], tl.float32)
    source = grad_kernel + kernel * (DEPTH * HEIGHT * WIDTH)
    for first_column in range(0, WIDTH, COLUMNS):
        column = first_column + tl.arange(0, COLUMNS)
        # The same sums along the lines only, for each column.
        along = tl.zeros([STEP, COLUMNS], tl.float32)
        along_slope_z = tl.zeros([STEP, COLUMNS], tl.float32)
        along_slope_y = tl.zeros([STEP, COLUMNS], tl.float32)
        along_widening_z = tl.zeros([STEP, COLUMNS], tl.float32)
        along_widening_y = tl.zeros([STEP, COLUMNS], tl.float32)
        for first_line in range(0, DEPTH * HEIGHT, LINES):
            line = first_line + tl.arange(0, LINES)
            inside = (line < DEPTH * HEIGHT)[:, None] & (column < WIDTH)[None, :]
            gradient = tl.load(
                source + line[:, None] * WIDTH + column[None, :], mask=inside, other=0
            )
            gradient = gradient.to(tl.float32)[None, :, :]
            tap_z = (line // HEIGHT).to(tl.float32)[None, :]
            tap_y = (line % HEIGHT).to(tl.float32)[None, :]
            share_z = profile(
                tap_z, z[:, None], wide_z[:, None], NDIM > 2, INTERPOLATION
            )
            by_z, by_wide_z = derivatives(
                share_z, tap_z, z[:, None], wide_z[:, None], NDIM > 2, INTERPOLATION
            )
            share_y = profile(
                tap_y, y[:, None], wide_y[:, None], NDIM > 1, INTERPOLATION
            )
            by_y, by_wide_y = derivatives(
                share_y, tap_y, y[:, None], wide_y[:, None], NDIM > 1, INTERPOLATION
            )
            along += tl.sum(gradient * (share_z * share_y)[:, :, None], 1)
            if NDIM > 1:
                along_slope_y += tl.sum(gradient * (share_z * by_y)[:, :, None], 1)
                along_widening_y += tl.sum(
                    gradient * (share_z * by_wide_y)[:, :, None], 1
                )
            if NDIM > 2:
                along_slope_z += tl.sum(gradient * (by_z * share_y)[:, :, None], 1)
                along_widening_z += tl.sum(
                    gradient * (by_wide_z * share_y)[:, :, None], 1
                )
        tap_x = column.to(tl.float32)[None, :]
        share_x = profile(tap_x, x[:, None], wide_x[:, None], True, INTERPOLATION)
        by_x, by_wide_x = derivatives(
            share_x, tap_x, x[:, None], wide_x[:, None], True, INTERPOLATION
        )
        value += tl.sum(along * share_x, 1)
        slope_x += tl.sum(along * by_x, 1)
        widening_x += tl.sum(along * by_wide_x, 1)
        slope_y += tl.sum(along_slope_y * share_x, 1)
        widening_y += tl.sum(along_widening_y * share_x, 1)
        slope_z += tl.sum(along_slope_z * share_x, 1)
        widening_z += tl.sum(along_widening_z * share_x, 1)

    # The weight is divided by the sum of the taps, which has derivatives too.
    total_z, of_z, of_wide_z = sums(
        z, wide_z, STEP, DEPTH, CHUNK, NDIM > 2, INTERPOLATION, True
    )
    total_y, of_y, of_wide_y = sums(
        y, wide_y, STEP, HEIGHT, CHUNK, NDIM > 1, INTERPOLATION, True
    )
    total_x, of_x, of_wide_x = sums(
        x, wide_x, STEP, WIDTH, CHUNK, True, INTERPOLATION, True
    )
    total = total_z * total_y * total_x + EPS
    value = value / total
    share = tl.load(weight + at, mask=valid, other=0).to(tl.float32) / total
    _store(grad_weight, at, value + poison, valid)
    slope_z = share * (slope_z - value * (of_z * total_y * total_x))
    slope_y = share * (slope_y - value * (of_y * total_z * total_x))
    slope_x = share * (slope_x - value * (of_x * total_z * total_y))
    _store_rows(
        grad_positions,
        at,
        slope_z + poison,
        slope_y + poison,
        slope_x + poison,
        valid,
        kernels.to(tl.int64) * count,
        NDIM,
    )
    widening_z = share * (widening_z - value * (of_wide_z * total_y * total_x))
    widening_y = share * (widening_y - value * (of_wide_y * total_z * total_x))
    widening_x = share * (widening_x - value * (of_wide_x * total_z * total_y))
    _store_rows(
        grad_sigma,
        at,
        widening_z * sign(wide_z) + poison,
        widening_y * sign(wide_y) + poison,
        widening_x * sign(wide_x) + poison,
        valid,
        kernels.to(tl.int64) * count,
        NDIM,
    )


@triton.jit
def _share_and_slope(
    tap, fraction, SIZE: tl.constexpr, UPPER: tl.constexpr, KINKS: tl.constexpr
):
    """Return the share of the lower or upper tap and its slope; zeros if outside."""
    inside = (tap >= 0) & (tap < SIZE)
    index = tl.where(inside, tap, 0.0).to(tl.int32)
    if UPPER:
        share, slope = fraction, tl.zeros_like(fraction) + 1
    else:
        share, slope = 1 - fraction, tl.zeros_like(fraction) - 1
    if KINKS:  # a triangle has no slope at its tip, nor at its foot
        slope = tl.where(fraction == 0, 0.0, slope)
    share = tl.where(inside, share, 0.0)
    return share, tl.where(inside, slope, 0.0), index, inside


@triton.jit(do_not_specialize=['kernels', *SIZES])
def collect_two_taps_kernel(
    grad_kernel,
    weight,
    positions,
    grad_weight,
    grad_positions,
    kernels,
    count,
    row,
    middle,
    inner,
    outer_step,
    middle_step,
    inner_step,
    element_step,
    NDIM: tl.constexpr,
    DEPTH: tl.constexpr,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    NORMALIZED: tl.constexpr,
    KERNELS: tl.constexpr,
    ELEMENTS: tl.constexpr,
):
    kernel = tl.program_id(0) * KERNELS + tl.arange(0, KERNELS)[:, None]
    element = tl.program_id(1) * ELEMENTS + tl.arange(0, ELEMENTS)[None, :]
    valid = (kernel < kernels) & (element < count)
    place = first_place(kernel, middle, inner, outer_step, middle_step, inner_step)
    place += element * element_step
    kernel = kernel.to(tl.int64)
    at = kernel * count + element
    z, y, x = load_rows(positions, place, valid, row, NDIM)
    poison = zero_or_nan(z, y, x)
    z, y, x = z + DEPTH // 2, y + HEIGHT // 2, x + WIDTH // 2
    lower_z, lower_y, lower_x = tl.floor(z), tl.floor(y), tl.floor(x)

    value = tl.zeros([KERNELS, ELEMENTS], tl.float32)
    slope_z = tl.zeros([KERNELS, ELEMENTS], tl.float32)
    slope_y = tl.zeros([KERNELS, ELEMENTS], tl.float32)
    slope_x = tl.zeros([KERNELS, ELEMENTS], tl.float32)
    total = tl.zeros([KERNELS, ELEMENTS], tl.float32)
    of_z = tl.zeros([KERNELS, ELEMENTS], tl.float32)
    of_y = tl.zeros([KERNELS, ELEMENTS], tl.float32)
    of_x = tl.zeros([KERNELS, ELEMENTS], tl.float32)
    for upper_z in tl.static_range(2 if NDIM > 2 else 1):
        tap_z = lower_z + upper_z
        share_z, by_z, index_z, inside_z = _share_and_slope(
            tap_z, z - lower_z, DEPTH, upper_z, NORMALIZED
        )
        for upper_y in tl.static_range(2 if NDIM > 1 else 1):
            tap_y = lower_y + upper_y
            share_y, by_y, index_y, inside_y = _share_and_slope(
                tap_y, y - lower_y, HEIGHT, upper_y, NORMALIZED
            )
            for upper_x in tl.static_range(2):
                tap_x = lower_x + upper_x
                share_x, by_x, index_x, inside_x = _share_and_slope(
                    tap_x, x - lower_x, WIDTH, upper_x, NORMALIZED
                )
                inside = valid & inside_z & inside_y & inside_x
                tap = (index_z * HEIGHT + index_y) * WIDTH + index_x
                gradient = tl.load(
                    grad_kernel + kernel * (DEPTH * HEIGHT * WIDTH) + tap,
                    mask=inside,
                    other=0,
                ).to(tl.float32)
                value += gradient * (share_z * share_y * share_x)
                slope_z += gradient * (by_z * share_y * share_x)
                slope_y += gradient * (share_z * by_y * share_x)
                slope_x += gradient * (share_z * share_y * by_x)
                total += share_z * share_y * share_x
                of_z += by_z * share_y * share_x
                of_y += share_z * by_y * share_x
                of_x += share_z * share_y * by_x
    share = tl.load(weight + at, mask=valid, other=0).to(tl.float32)
    if NORMALIZED:
        value = value / (total + EPS)
        share = share / (total + EPS)
        slope_z -= value * of_z
        slope_y -= value * of_y
        slope_x -= value * of_x
    _store(grad_weight, at, value + poison, valid)
    _store_rows(
        grad_positions,
        at,
        share * slope_z + poison,
        share * slope_y + poison,
        share * slope_x + poison,
        valid,
        kernels.to(tl.int64) * count,
        NDIM,
    )


GRIDS = ['middle', 'inner', 'count']
SHARED_GRIDS = ['shared_middle', 'shared_inner', 'shared_count']


@triton.jit
def _part(index, middle, inner, count, all_middle, all_inner, all_count):
    """Return the place of an index into a grid (outer, middle, inner, count).

    The grid is a part of a larger one, which is contiguous.
    """
    place = index // (middle * inner * count)
    place = place * all_middle + index // (inner * count) % middle
    place = place * all_inner + index // count % inner
    return place * all_count + index % count


@triton.jit(do_not_specialize=['outputs', 'repeats', *GRIDS, *SHARED_GRIDS])
def sum_shared_kernel(
    parts,
    grad_positions,
    grad_sigma,
    outputs,
    repeats,
    middle,
    inner,
    count,
    shared_middle,
    shared_inner,
    shared_count,
    POSITION_ROWS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    REPEATS: tl.constexpr,
):
    output = tl.program_id(0) * OUTPUTS + tl.arange(0, OUTPUTS)
    row = tl.program_id(1)
    sizes = middle * shared_middle, inner * shared_inner, count * shared_count
    first = row.to(tl.int64) * outputs * repeats
    first += _part(output, middle, inner, count, sizes[0], sizes[1], sizes[2])
    total = tl.zeros([REPEATS, OUTPUTS], tl.float32)
    for start in range(0, repeats, REPEATS):
        repeat = start + tl.arange(0, REPEATS)
        at = (
            first[None, :]
            + _part(
                repeat,
                shared_middle,
                shared_inner,
                shared_count,
                sizes[0],
                sizes[1],
                sizes[2],
            )[:, None]
        )
        valid = (repeat < repeats)[:, None] & (output < outputs)[None, :]
        total += tl.load(parts + at, mask=valid, other=0)
    gradient = tl.sum(total, 0)
    valid = output < outputs
    if row < POSITION_ROWS:
        _store(grad_positions, row * outputs + output, gradient, valid)
    else:
        sigma_row = row - POSITION_ROWS
        _store(grad_sigma, sigma_row * outputs + output, gradient, valid)
