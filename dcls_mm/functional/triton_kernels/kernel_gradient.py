"""The gradient of a depthwise kernel as products of matrices, without atomics.

Tap (u, v) of one channel's gradient is the sum, over the images, of the output's
gradient times the image moved by u rows and v columns. Take an image row and, at the
same place, COLUMNS columns of the gradient's row that meets it under kernel row u::

    products[(u, j), s] = sum  grad_y[row + before - u, j] * x[row, s - shift]

The product is summed over all image rows and column blocks of the channel: these are
the inner axis of one matrix product, for KERNEL_ROWS rows u of the kernel at once and
WINDOW columns s. Column j of the gradient meets column s under tap v = s - j - lead, so
a tap is the sum along a diagonal of the products; they are gathered once, at the end::

    s: 0 1 2 3 4 5          lead moves the window left until its loads are aligned
    j=0  a b c              a, b, c: the taps v = 0, 1, 2 of a kernel of width 3
    j=1    a b c            entries off the diagonals are computed and left out
    j=2      a b c

A program has one channel, one group of kernel rows and one of the `splits` of the image
rows. It writes sums of its own, which torch adds up in a fixed order: the result is the
same in every run.
"""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit(
    do_not_specialize=[
        'channels', 'image_rows', 'x_height', 'x_width', 'y_height', 'y_width',
        'kernel_height', 'kernel_width', 'before_rows', 'shift', 'lead', 'blocks',
    ]
)  # fmt: skip
def depthwise_kernel_sums(
    x,  # (batch, channels, x_height, x_width)
    grad_y,  # (batch, channels, y_height, y_width)
    sums,  # (splits, channels, kernel_height, kernel_width), float32
    channels,
    image_rows,  # batch * x_height
    x_height,
    x_width,  # this, y_width and shift are in units of UNIT elements
    y_height,
    y_width,
    kernel_height,
    kernel_width,
    before_rows,
    shift,  # (before columns + lead) / UNIT
    lead,
    blocks,  # of IMAGE_ROWS image rows, for one program
    FLIP: tl.constexpr,
    UNIT: tl.constexpr,
    COLUMNS: tl.constexpr,
    WINDOW: tl.constexpr,
    KERNEL_ROWS: tl.constexpr,
    IMAGE_ROWS: tl.constexpr,
):
    groups = tl.cdiv(kernel_height, KERNEL_ROWS)
    channel = tl.program_id(0) // groups
    first_u = tl.program_id(0) % groups * KERNEL_ROWS
    split = tl.program_id(1)
    # A product of units with a constant tells the compiler how wide loads may be.
    x_width *= UNIT
    y_width *= UNIT
    shift *= UNIT

    uj = tl.arange(0, KERNEL_ROWS * COLUMNS)
    u = first_u + uj // COLUMNS
    j = uj % COLUMNS
    s = tl.arange(0, WINDOW)
    products = tl.zeros((KERNEL_ROWS * COLUMNS, WINDOW), tl.float32)
    for block in range(split * blocks, (split + 1) * blocks):
        image_row = block * IMAGE_ROWS + tl.arange(0, IMAGE_ROWS)
        present = image_row < image_rows
        row = image_row % x_height
        plane = (image_row // x_height).to(tl.int64) * channels + channel
        y_row = row[:, None] + before_rows - u[None, :]
        y_present = present[:, None] & (u < kernel_height)[None, :]
        y_present &= (y_row >= 0) & (y_row < y_height)
        y_at = (plane * (y_height * y_width))[:, None] + y_row * y_width + j[None, :]
        x_at = (plane * (x_height * x_width) + row * x_width)[:, None] + s[None, :]
        for column in range(0, y_width, COLUMNS):
            y_inside = column + j < y_width
            y_part = tl.load(
                grad_y + y_at + column, y_present & y_inside[None, :], other=0.0
            )
            x_column = column - shift + s
            x_inside = (x_column >= 0) & (x_column < x_width)
            x_part = tl.load(
                x + x_at + (column - shift),
                present[:, None] & x_inside[None, :],
                other=0.0,
            )
            products = tl.dot(
                tl.trans(y_part), x_part, products, input_precision='tf32x3'
            )

    diagonal = tl.minimum(j[:, None] + lead + s[None, :], WINDOW - 1)
    along = tl.gather(products, diagonal, 1)  # [(u, j), v]
    taps = tl.sum(tl.reshape(along, (KERNEL_ROWS, COLUMNS, WINDOW)), 1)
    u = first_u + tl.arange(0, KERNEL_ROWS)
    tap = u[:, None] * kernel_width + s[None, :]
    size = kernel_height * kernel_width
    if FLIP:
        tap = size - 1 - tap
    place = (split.to(tl.int64) * channels + channel) * size
    wanted = (u < kernel_height)[:, None] & (s < kernel_width)[None, :]
    tl.store(sums + place + tap, taps, wanted)


class Tile(NamedTuple):
    """A configuration of the kernel; the tile is the least that holds the extent."""

    columns: int
    window: int
    kernel_rows: int
    image_rows: int
    num_warps: int
    num_stages: int


# Chosen by the compiler's counts, not timed on a GPU.
TILES = (
    Tile(16, 32, 8, 32, 4, 3),  # up to 17 columns of the kernel
    Tile(32, 64, 4, 32, 4, 3),  # up to 33
    Tile(64, 128, 2, 32, 4, 2),  # up to 65
)

# Enough programs to fill the largest GPUs some times; more would only gather more.
PROGRAMS = 2048


def constants(
    dtype: torch.dtype, widths: tuple[int, int], kernel_width: int, before: int
) -> dict[str, Any]:
    """Return what the kernel is compiled for, as keyword arguments of its launch.

    Args:
        dtype (torch.dtype): The dtype of x and grad_y.
        widths (tuple[int, int]): The widths of x and grad_y.
        kernel_width (int): The number of columns of the kernel, 1 to 63.
        before (int): The columns of zeros before the image.
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
        'IMAGE_ROWS': tile.image_rows,
        'num_warps': tile.num_warps,
        'num_stages': tile.num_stages,
    }


def touched(size: int, out: int, taps: int, before: int) -> slice:
    """Return the part of an axis of x that some tap multiplies with some output."""
    first = max(0, -before)
    return slice(first, max(first, min(size, out + taps - 1 - before)))


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
        x (Tensor): The images (batch, channels, height, width).
        grad_y (Tensor): The gradient of the output (batch, channels, height, width), in
            the dtype of x; its height and width need not be those of x.
        extent (tuple[int, int]): Rows and columns of the kernel, 1 to 63.
        before (tuple[int, int]): Rows and columns of zeros before the image; negative
            where the first output starts inside.
        flip (bool): Whether the kernel was flipped along both axes.

    Returns:
        Tensor: The gradient (channels, 1, rows, columns) in float32, the same bits in
        every run.
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
    programs = channels * triton.cdiv(extent[0], fixed['KERNEL_ROWS'])
    all_blocks = triton.cdiv(batch * x_height, fixed['IMAGE_ROWS'])
    splits = max(1, min(all_blocks, PROGRAMS // programs))
    blocks = triton.cdiv(all_blocks, splits)
    splits = triton.cdiv(all_blocks, blocks)
    sums = x.new_empty((splits, channels, 1, *extent), dtype=torch.float32)
    with torch.cuda.device_of(x):
        depthwise_kernel_sums[programs, splits](
            x,
            grad_y,
            sums,
            channels,
            batch * x_height,
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
    return sums.sum(0) if splits > 1 else sums[0]
