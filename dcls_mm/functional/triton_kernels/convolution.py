"""The 2-d depthwise convolution at stride 1, as products with Toeplitz matrices.

Applying row u of the kernel to a row of x is a product with a banded matrix. For 16
outputs side by side, whose window has S columns of x:

    y[0:16] = T_u[16, S] @ x[0:S],    T_u[j, s] = kernel[u, s - j] if 0 <= s - j < kw

A *block* is ROWS (here R) rows by 16 columns of the output. Row t of its window meets
the kernel's row t - r on the way to output row r. So each row of x, loaded once, serves
R rows of the output, and R rows of x share 2 R - 1 matrices:

    for t in 0, R, 2 R, ... while t < kh + R - 1:
        for i in 0 ... R - 1, for r in 0 ... R - 1:
            sums_r[16, BLOCKS] += T_{t + i - r}[16, S] @ x_{t + i}[S, BLOCKS]

A program has one channel and BLOCKS blocks, which are counted through images, rows and
columns, so that small images fill it too. Wide windows are summed in chunks of columns.
The products run on tensor cores, always through instructions of 16 rows, which every
card since Ampere has. Sums are kept in float32; float32 itself is multiplied as three
products of TF32 parts, which keeps its precision.
"""

import functools
from math import gcd
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import OPTIONS

COLUMNS = tl.constexpr(16)
OUTSIDE = tl.constexpr(-(2**30))

# Compiled once for all their values.
NUMBERS = (
    'images',
    'channels',
    'height',
    'width_units',
    'out_height',
    'out_width_units',
    'kernel_height',
    'rows_before',
    'units_before',
    'lead',
)


@triton.jit(do_not_specialize=NUMBERS)
def depthwise_kernel(
    x,
    kernel,
    bias,
    y,
    images,
    channels,
    height,
    width_units,
    out_height,
    out_width_units,
    kernel_height,
    rows_before,
    units_before,
    lead,
    KERNEL_WIDTH: tl.constexpr,
    FLIP: tl.constexpr,
    UNIT: tl.constexpr,
    WINDOW: tl.constexpr,
    CHUNK: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCKS: tl.constexpr,
):
    # Products with a constant show the compiler that whole vectors are aligned.
    width = width_units * UNIT
    out_width = out_width_units * UNIT

    across = tl.cdiv(out_width, COLUMNS)
    down = tl.cdiv(out_height, ROWS)
    programs = tl.cdiv(images * down * across, BLOCKS)
    channel = tl.program_id(0) // programs
    block = tl.program_id(0) % programs * BLOCKS + tl.arange(0, BLOCKS)[None, :]
    # Unsigned division is the cheaper one.
    strip = (block.to(tl.uint32) // across.to(tl.uint32)).to(tl.int32)
    image = (strip.to(tl.uint32) // down.to(tl.uint32)).to(tl.int32)
    row = (strip - image * down) * ROWS
    column = (block - strip * across) * COLUMNS
    plane = image.to(tl.int64) * channels + channel

    # Tap (u, v) is at kernel + u * STEP + v, or - v if flipped.
    kernel += channel.to(tl.int64) * kernel_height * KERNEL_WIDTH
    STEP: tl.constexpr = -KERNEL_WIDTH if FLIP else KERNEL_WIDTH
    if FLIP:
        kernel += kernel_height * KERNEL_WIDTH - 1

    j = tl.arange(0, COLUMNS)[:, None]
    sums = ()
    for _ in tl.static_range(ROWS):
        sums += (tl.zeros((COLUMNS, BLOCKS), tl.float32),)

    for start in range(0, WINDOW, CHUNK):
        s = start + tl.arange(0, CHUNK)
        v = s[None, :] - lead - j
        band = (v >= 0) & (v < KERNEL_WIDTH)
        taps = kernel + (-v if FLIP else v)

        x_row = row - rows_before
        x_column = column - units_before * UNIT + s[:, None]
        pixels = x + (plane * height * width + (x_row * width + x_column))
        # As an unsigned number, a negative row is beyond the last one too.
        inside = (image < images) & (x_column >= 0) & (x_column < width)
        x_row = tl.where(inside, x_row, OUTSIDE)

        for t in range(0, kernel_height + ROWS - 1, ROWS):
            matrices = ()
            for d in tl.static_range(1 - ROWS, ROWS):
                u = tl.full((1, 1), t + d, tl.int32).to(tl.uint32)
                matrix = tl.load(
                    taps + t * STEP + d * STEP,
                    mask=band & (u < kernel_height.to(tl.uint32)),
                    other=0.0,
                )
                matrices += (matrix.to(x.dtype.element_ty),)
            for i in tl.static_range(ROWS):
                x_t = tl.load(
                    pixels + (t + i) * width,
                    mask=(x_row + (t + i)).to(tl.uint32) < height.to(tl.uint32),
                    other=0.0,
                    # Neighbouring blocks share most of their windows: use L1 too.
                    cache_modifier='.ca',
                )
                added = ()
                for r in tl.static_range(ROWS):
                    matrix = matrices[i - r + ROWS - 1]
                    added += (tl.dot(matrix, x_t, sums[r], input_precision='tf32x3'),)
                sums = added

    constant = 0.0
    if bias is not None:
        constant = tl.load(bias + channel).to(tl.float32)
    outputs = y + (plane * out_height * out_width + (row * out_width + column + j))
    for r in tl.static_range(ROWS):
        tl.store(
            outputs + r * out_width,
            (sums[r] + constant).to(y.dtype.element_ty),
            mask=(image < images) & (row + r < out_height) & (column + j < out_width),
        )


class Tile(NamedTuple):
    """What a program computes at once, and with how many threads."""

    rows: int
    blocks: int
    widest_chunk: int
    num_warps: int
    num_stages: int


# By the size of a value in bytes, and whether there are many blocks to compute: of the
# tiles that the compiler fits into registers, those with the fewest instructions per
# output.
TILES = {
    (2, True): Tile(rows=4, blocks=128, widest_chunk=32, num_warps=4, num_stages=2),
    (2, False): Tile(rows=4, blocks=64, widest_chunk=32, num_warps=4, num_stages=2),
    (4, True): Tile(rows=2, blocks=64, widest_chunk=32, num_warps=4, num_stages=2),
    (4, False): Tile(rows=2, blocks=64, widest_chunk=32, num_warps=4, num_stages=2),
}
MANY_BLOCKS = 512


class Launch(NamedTuple):
    """All that a launch of :func:`depthwise_kernel` needs beside the four tensors."""

    programs: int
    numbers: dict
    constants: dict
    options: dict


@functools.lru_cache(maxsize=1024)
def plan(
    dtype: torch.dtype,
    shape: tuple[int, ...],
    extent: tuple[int, ...],
    before: tuple[int, int],
    size: tuple[int, int],
    flip: bool,
) -> Launch:
    """Return how :func:`convolve_depthwise` is launched for an x of this shape.

    To compile without a GPU, give `triton.compile` an `ASTSource` of `depthwise_kernel`
    with `constants` as its constexprs, a signature of pointers (x, kernel, bias, y) and
    of 'i32' for each of `numbers`, and `options`.
    """
    images, channels, height, width = shape
    # The widest vector that all rows of x and y consist of. The window starts `lead`
    # columns early, at such a vector.
    unit = gcd(8, width, size[1])
    lead = -before[1] % unit
    window = triton.cdiv(15 + extent[1] + lead, 16) * 16
    across = triton.cdiv(size[1], 16)

    # Narrow loads leave no registers for large tiles.
    many = unit > 2 and images * triton.cdiv(size[0], 4) * across >= MANY_BLOCKS
    tile = TILES[dtype.itemsize, many]
    blocks = images * triton.cdiv(size[0], tile.rows) * across
    return Launch(
        programs=channels * triton.cdiv(blocks, tile.blocks),
        numbers={
            'images': images,
            'channels': channels,
            'height': height,
            'width_units': width // unit,
            'out_height': size[0],
            'out_width_units': size[1] // unit,
            'kernel_height': extent[0],
            'rows_before': before[0],
            'units_before': (before[1] + lead) // unit,
            'lead': lead,
        },
        constants={
            'KERNEL_WIDTH': extent[1],
            'FLIP': flip,
            'UNIT': unit,
            'WINDOW': window,
            # The window's largest divisor that is a power of two.
            'CHUNK': min(tile.widest_chunk, window & -window),
            'ROWS': tile.rows,
            'BLOCKS': tile.blocks,
        },
        options={
            'num_warps': tile.num_warps,
            'num_stages': tile.num_stages,
            **OPTIONS,
        },
    )


def convolve_depthwise(
    x: Tensor,
    kernel: Tensor,
    bias: Tensor | None,
    before: tuple[int, int],
    size: tuple[int, int],
    flip: bool = False,
) -> Tensor:
    """Correlate each channel of x with a kernel of its own.

    y[n, c, i, j] = bias[c] + sum over u, v of
    kernel[c, 0, u, v] * x[n, c, i + u - before[0], j + v - before[1]],
    where x is zero outside the image.

    The input gradient is this function too: of the output's gradient, with the kernel
    flipped, `before` taps - 1 - before, and the size of x.

    The kernel reads and writes contiguous rows, so any other x is copied first. The
    alternative, to read channels_last memory one channel at a time, would use 2 bytes
    of every 32 that are fetched.

    The zeros beside the band are multiplied as well, so a NaN or an infinity in x gives
    NaN not only where a tap touches it, as in torch, but also in the rest of a block
    around: up to 7 rows and 31 columns further, in the same channel of the same image.
    A NaN or infinite tap makes its whole channel NaN, where torch may leave out the
    outputs for which that tap is outside the image.

    Args:
        x: the images, (batch, channels, height, width), float16, bfloat16 or float32.
        kernel: the kernels, (channels, 1, kh, kw), in x's dtype or in float32; rounded
            to x's dtype while loaded.
        bias: one value per channel, in any floating dtype, or None.
        before: rows above the image and columns left of it that are taken as zero;
            negative numbers skip rows and columns of the image.
        size: rows and columns of the result.
        flip: whether to turn the kernel by 180 degrees.

    Returns:
        The result in x's dtype, (batch, channels, *size), contiguous.
    """
    y = x.new_empty((*x.shape[:2], *size))
    if y.numel() > 0:
        extent, before, size = kernel.shape[2:], tuple(before), tuple(size)
        launch = plan(x.dtype, x.shape, extent, before, size, flip)
        with torch.cuda.device_of(x):
            depthwise_kernel[(launch.programs,)](
                x.contiguous(),
                kernel.contiguous(),
                None if bias is None else bias.contiguous(),
                y,
                **launch.numbers,
                **launch.constants,
                **launch.options,
            )
    return y
