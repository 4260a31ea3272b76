"""The kernel of the construction's forward pass."""

import triton
import triton.language as tl

from .elements import EPS, SIZES, first_place, load_rows, profile, sums, zero_or_nan


@triton.jit(do_not_specialize=SIZES)
def spread_kernel(
    kernels,
    weight,
    positions,
    sigma,
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
    first_position = first_place(
        kernel, middle, inner, outer_step, middle_step, inner_step
    )
    kernel = kernel.to(tl.int64)
    across: tl.constexpr = (WIDTH + COLUMNS - 1) // COLUMNS
    line = tl.program_id(1) // across * LINES + tl.arange(0, LINES)
    column = tl.program_id(1) % across * COLUMNS + tl.arange(0, COLUMNS)
    tap_z = (line // HEIGHT).to(tl.float32)[None, :]
    tap_y = (line % HEIGHT).to(tl.float32)[None, :]
    tap_x = column.to(tl.float32)[None, :]
    taps = tl.zeros([LINES, COLUMNS], tl.float32)
    for first in range(0, count, STEP):
        element = first + tl.arange(0, STEP)
        valid = element < count
        share = tl.load(weight + kernel * count + element, mask=valid, other=0)
        share = share.to(tl.float32)
        place = first_position + element * element_step
        z, y, x = load_rows(positions, place, valid, row, NDIM)
        wide_z, wide_y, wide_x = load_rows(sigma, place, valid, row, NDIM)
        poison = zero_or_nan(z, y, x) + zero_or_nan(wide_z, wide_y, wide_x)
        z, y, x = z + DEPTH // 2, y + HEIGHT // 2, x + WIDTH // 2
        if INTERPOLATION != 'bilinear':
            total_z, _, _ = sums(
                z, wide_z, STEP, DEPTH, CHUNK, NDIM > 2, INTERPOLATION, False
            )
            total_y, _, _ = sums(
                y, wide_y, STEP, HEIGHT, CHUNK, NDIM > 1, INTERPOLATION, False
            )
            total_x, _, _ = sums(
                x, wide_x, STEP, WIDTH, CHUNK, True, INTERPOLATION, False
            )
            share = share / (total_z * total_y * total_x + EPS)
        share = share + poison
        lines = share[:, None] * profile(
            tap_z, z[:, None], wide_z[:, None], NDIM > 2, INTERPOLATION
        )
        lines *= profile(tap_y, y[:, None], wide_y[:, None], NDIM > 1, INTERPOLATION)
        columns = profile(tap_x, x[:, None], wide_x[:, None], True, INTERPOLATION)
        taps += tl.sum(lines[:, :, None] * columns[:, None, :], 0)
    at = kernels + kernel * (DEPTH * HEIGHT * WIDTH) + line[:, None] * WIDTH
    inside = (line < DEPTH * HEIGHT)[:, None] & (column < WIDTH)[None, :]
    tl.store(at + column[None, :], taps.to(kernels.dtype.element_ty), mask=inside)
