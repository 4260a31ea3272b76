"""The gradient of a depthwise kernel as products of matrices, without atomics.

Take a row of the image and, under row u of the kernel, the row of the output's gradient
that meets it. From the two take a block: COLUMNS columns j of the gradient's row, and
the WINDOW columns s of the image that the kernel can bring together with them::

    products[(u, j), s] = sum of grad_y[row + before - u, j] * x[row, s - shift]

The sum is over all images, rows and blocks of a channel: the inner axis of one matrix
product, for KERNEL_ROWS rows u at once, on tensor cores. Column j meets column s under
tap v = s - j - lead, so a tap is the sum along a diagonal; these are gathered once, at
the end::

    s: 0 1 2 3 4 5
    j=0  a b c              a, b, c: taps v = 0, 1, 2 of a kernel of width 3, lead = 1;
    j=1    a b c            lead moves the window to the left until its loads are
    j=2      a b c          aligned; what is not on the diagonals is left out

A program has one channel, one group of kernel rows and a share of the image rows. It
writes sums of its own, which torch adds up in a fixed order, so that every run gives
the same bits.
"""

from typing import NamedTuple

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
        y_row = row[None, :] + before_rows - u[:, None]
        y_present = present[None, :] & (u < kernel_height)[:, None]
        y_present &= (y_row >= 0) & (y_row < y_height)
        y_at = (plane * (y_height * y_width))[None, :] + y_row * y_width + j[:, None]
        x_at = (plane * (x_height * x_width) + row * x_width)[:, None] + s[None, :]
        for column in range(0, y_width, COLUMNS):
            y_inside = column + j < y_width
            y_part = tl.load(
                grad_y + y_at + column, y_present & y_inside[:, None], other=0.0
            )
            x_column = column - shift + s
            x_inside = (x_column >= 0) & (x_column < x_width)
            x_part = tl.load(
                x + x_at + (column - shift),
                present[:, None] & x_inside[None, :],
                other=0.0,
            )
            products = tl.dot(y_part, x_part, products, input_precision='tf32x3')

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
    """How a product is cut: kernel_rows * columns by window, on num_warps warps."""

    columns: int
    window: int
    kernel_rows: int
    num_warps: int


# The first that holds the kernel's columns is taken. These and IMAGE_ROWS, the inner
# axis, follow the compiler's counts of instructions and registers; they are not timed.
TILES = (
    Tile(16, 32, 8, 4),  # up to 17 columns
    Tile(32, 64, 4, 4),  # up to 33
    Tile(64, 128, 2, 8),  # up to 65
)
IMAGE_ROWS = {torch.float16: 64, torch.bfloat16: 64, torch.float32: 16}

# Enough to fill the largest GPUs several times.
PROGRAMS = 2048


def constants(
    dtype: torch.dtype, widths: tuple[int, int], kernel_width: int, before: int
) -> dict[str, int]:
    """Return what the kernel is compiled for, as keyword arguments of its launch.

    Beside these and FLIP, nothing but the dtype and the pointers' alignment compiles it
    anew.

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
        'IMAGE_ROWS': IMAGE_ROWS[dtype],
        'num_warps': tile.num_warps,
        'num_stages': 2,
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
