"""The gradient of a depthwise kernel as products of matrices, without atomics.

Row i of the output's gradient meets row i + u - before of the image under row u of the
kernel. Cut the image into strips of STRIP rows d, and both into blocks of columns:
COLUMNS columns j of the gradient, and the WINDOW columns s of the image that the kernel
brings together with them. A strip whose first row is `row` gives::

    products[(u, j), (d, s)] += grad_y[row + before - u, j] * x[row + d, s - shift]

Over all strips and blocks of a channel this is one matrix product, on tensor cores, for
KERNEL_ROWS values of u at once. Its two rows meet under kernel row u + d, and its two
columns under tap v = s - j - lead, so that a tap is a sum along a diagonal. These are
gathered once, at the end::

    s: 0 1 2 3 4 5
    j=0  a b c              a, b, c: taps v = 0, 1, 2 of a kernel of width 3, lead = 1;
    j=1    a b c            lead moves the window to the left until its loads are
    j=2      a b c          aligned; what is not on the diagonals is left out

A program has one channel, one group of values u and a share of the strips. It writes
the taps of each d apart from the others. torch adds up the rows d and the shares in a
fixed order, so that every run gives the same bits.
"""

import warnings
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import OPTIONS


@triton.jit(
    do_not_specialize=[
        'images', 'channels', 'x_height', 'x_width_units', 'y_height', 'y_width_units',
        'kernel_height', 'kernel_width', 'before', 'shift_units', 'lead', 'blocks',
    ]
)  # fmt: skip
def depthwise_kernel_sums(
    x,  # (images, channels, x_height, x_width)
    grad_y,  # (images, channels, y_height, y_width)
    sums,  # (splits * STRIP, channels, kernel_height, kernel_width), float32
    images,
    channels,
    x_height,
    x_width_units,
    y_height,
    y_width_units,
    kernel_height,
    kernel_width,
    before,
    shift_units,
    lead,
    blocks,  # of STRIPS strips, for one program
    FLIP: tl.constexpr,
    UNIT: tl.constexpr,
    COLUMNS: tl.constexpr,
    WINDOW: tl.constexpr,
    KERNEL_ROWS: tl.constexpr,
    STRIP: tl.constexpr,
    STRIPS: tl.constexpr,
):
    # Multiples of a constant, so that the compiler knows how wide loads may be.
    x_width = x_width_units * UNIT
    y_width = y_width_units * UNIT
    shift = shift_units * UNIT

    groups = tl.cdiv(kernel_height + STRIP - 1, KERNEL_ROWS)
    channel = tl.program_id(0) // groups
    first_u = tl.program_id(0) % groups * KERNEL_ROWS - (STRIP - 1)
    split = tl.program_id(1)

    uj = tl.arange(0, KERNEL_ROWS * COLUMNS)
    u = first_u + uj // COLUMNS
    j = uj % COLUMNS
    ds = tl.arange(0, STRIP * WINDOW)
    d = ds // WINDOW
    s = ds % WINDOW
    products = tl.zeros((KERNEL_ROWS * COLUMNS, STRIP * WINDOW), tl.float32)
    strips = tl.cdiv(x_height, STRIP)  # in an image
    for block in range(split * blocks, (split + 1) * blocks):
        strip = block * STRIPS + tl.arange(0, STRIPS)
        image = strip // strips
        row = strip % strips * STRIP
        plane = image.to(tl.int64) * channels + channel
        y_row = row[None, :] + before - u[:, None]
        y_at = (plane * (y_height * y_width))[None, :] + y_row * y_width + j[:, None]
        y_present = (image < images)[None, :] & (u < kernel_height)[:, None]
        y_present &= (y_row >= 0) & (y_row < y_height)
        x_row = row[:, None] + d[None, :]
        x_at = (plane * (x_height * x_width))[:, None] + x_row * x_width + s[None, :]
        x_present = (image < images)[:, None] & (x_row < x_height)
        for column in range(0, y_width, COLUMNS):
            y_inside = column + j < y_width
            y_part = tl.load(
                grad_y + y_at + column, y_present & y_inside[:, None], other=0.0
            )
            x_column = column - shift + s
            x_inside = (x_column >= 0) & (x_column < x_width)
            x_part = tl.load(
                x + x_at + (column - shift), x_present & x_inside[None, :], other=0.0
            )
            products = tl.dot(y_part, x_part, products, input_precision='tf32x3')

    # From [(u, j), (d, s)] to [(u, j), (d, v)] to [u, (d, v)].
    diagonal = tl.minimum(j[:, None] + lead + s[None, :], WINDOW - 1)
    taps = tl.gather(products, d[None, :] * WINDOW + diagonal, 1)
    taps = tl.sum(tl.reshape(taps, (KERNEL_ROWS, COLUMNS, STRIP * WINDOW)), 1)
    row = (first_u + tl.arange(0, KERNEL_ROWS))[:, None] + d[None, :]
    column = s[None, :]
    size = kernel_height * kernel_width
    tap = row * kernel_width + column
    if FLIP:
        tap = size - 1 - tap
    sums += ((split * STRIP + d).to(tl.int64) * channels + channel)[None, :] * size
    inside = (row >= 0) & (row < kernel_height) & (column < kernel_width)
    tl.store(sums + tap, taps, inside)


class Tile(NamedTuple):
    """How the product is cut, and the warps that share it."""

    columns: int
    window: int
    kernel_rows: int
    strip: int
    num_warps: int


# The first that holds the kernel's columns is taken. They follow the compiler's counts
# of instructions and registers, not timings.
TILES = (
    Tile(16, 32, 8, 2, 4),  # up to 17 columns
    Tile(32, 64, 4, 1, 4),  # up to 33
    Tile(64, 128, 2, 1, 8),  # up to 65
)

# Enough to fill the largest GPUs several times.
PROGRAMS = 2048


def constants(
    dtype: torch.dtype, widths: tuple[int, int], kernel_width: int, before: int
) -> dict[str, int]:
    """Return what the kernel is compiled for, as keyword arguments of its launch.

    Beside these and FLIP, nothing but the dtype and the pointers' alignment compiles it
    anew.

    Args:
        dtype: of x and grad_y.
        widths: of x and grad_y.
        kernel_width: columns of the kernel, 1 to 63.
        before: columns of zeros before the image.
    """
    unit, tile = next(
        (unit, tile)
        for unit in (8, 4, 2, 1)
        if unit * dtype.itemsize <= 16 and not any(width % unit for width in widths)
        for tile in TILES
        if tile.columns + kernel_width - 1 + -before % unit <= tile.window
    )
    return {
        'UNIT': unit,
        'COLUMNS': tile.columns,
        'WINDOW': tile.window,
        'KERNEL_ROWS': tile.kernel_rows,
        'STRIP': tile.strip,
        # The inner axis of one step: 64 bytes, less where loads are narrow.
        'STRIPS': min(64 // dtype.itemsize, 16 * unit),
        'num_warps': tile.num_warps,
        'num_stages': 2,
        # Without a limit of its own, ptxas spills on sm_86 to fit one more program.
        'maxnreg': 255,
        **OPTIONS,
    }


def touched(size: int, out: int, taps: int, before: int) -> slice:
    """Return the part of an axis of x that some tap multiplies with some output."""
    first = max(0, -before)
    return slice(first, max(first, min(size, out + taps - 1 - before)))


def empty_sums(x: Tensor, planes: int, shape: tuple[int, ...]) -> Tensor:
    """Allocate sums of x; this may run out of memory."""
    return x.new_empty((planes, *shape), dtype=torch.float32)


def depthwise_kernel_gradient(
    x: Tensor,
    grad_y: Tensor,
    extent: tuple[int, int],
    before: tuple[int, int],
    flip: bool = False,
) -> Tensor:
    """Return the gradient of a depthwise convolution with respect to its kernel.

    It is ``sum grad_y[n, c, i, j] * x[n, c, i + u - before[0], j + v - before[1]]`` for
    tap (u, v) of channel c, where x is zero outside, accumulated in float32.

    An infinity or NaN in a channel of x or grad_y makes every tap that it touches
    infinite or NaN. It may do so to other taps of that channel too, where it is
    multiplied by zeros of the padding, but to no other channel; and what lies beyond
    the reach of all taps has no effect.

    Args:
        x: the images, (batch, channels, height, width), float16, bfloat16 or float32.
        grad_y: the gradient of the output, (batch, channels, height, width), in x's
            dtype; its height and width need not be those of x.
        extent: rows and columns of the kernel, 1 to 63.
        before: rows above the image and columns left of it that are taken as zero;
            negative where the first output starts inside.
        flip: whether the kernel was turned by 180 degrees.

    Returns:
        The gradient, (channels, 1, rows, columns), in float32, the same bits in every
        run.
    """
    rows, columns = (
        touched(*axis)
        for axis in zip(x.shape[2:], grad_y.shape[2:], extent, before, strict=True)
    )
    x = x[:, :, rows, columns].contiguous()
    grad_y = grad_y.contiguous()
    before_rows, before_columns = before[0] + rows.start, before[1] + columns.start
    batch, channels, x_height, x_width = x.shape
    y_height, y_width = grad_y.shape[2:]
    if x.numel() == 0 or grad_y.numel() == 0:
        return x.new_zeros((channels, 1, *extent), dtype=torch.float32)

    fixed = constants(x.dtype, (x_width, y_width), extent[1], before_columns)
    unit = fixed['UNIT']
    lead = -before_columns % unit
    strip = fixed['STRIP']
    programs = channels * triton.cdiv(extent[0] + strip - 1, fixed['KERNEL_ROWS'])
    all_blocks = triton.cdiv(batch * triton.cdiv(x_height, strip), fixed['STRIPS'])
    splits = max(1, min(all_blocks, PROGRAMS // programs))
    blocks = triton.cdiv(all_blocks, splits)
    splits = triton.cdiv(all_blocks, blocks)
    shape = channels, 1, *extent
    try:
        sums = empty_sums(x, splits * strip, shape)
    except torch.OutOfMemoryError as error:
        if splits == 1:
            raise
        warnings.warn(
            'out of memory: the gradient of a depthwise kernel is summed up by fewer '
            f'programs, which is slower but takes {splits} times less memory. {error}',
            stacklevel=2,
        )
        splits, blocks = 1, all_blocks
        sums = empty_sums(x, strip, shape)
    with torch.cuda.device_of(x):
        depthwise_kernel_sums[programs, splits](
            x,
            grad_y,
            sums,
            batch,
            channels,
            x_height,
            x_width // unit,
            y_height,
            y_width // unit,
            *extent,
            before_rows,
            (before_columns + lead) // unit,
            lead,
            blocks,
            FLIP=flip,
            **fixed,
        )
    return sums.sum(0)
