"""The 2-d depthwise convolution at stride 1, as products with Toeplitz matrices.

One row of the kernel, applied to one row of the image, is a product with a banded
matrix: with S = 16 + kw - 1 columns of x in the window of 16 outputs,

    y[0:16] = x[0:S] @ T,    T[s, j] = kernel[s - j] where 0 <= s - j < kw, else 0.

A *block* is R rows by 16 columns of the output. Row t of the image, counted from the
first that a block touches, reaches its output row r through row t - r of the kernel. So
the R matrices stand side by side, and each row of x is loaded once for R output rows:

    acc[BM, R * 16] += x_t[BM, S] @ [T_t | T_{t-1} | ... | T_{t-R+1}],  t < kh + R - 1

A program has one channel and BM blocks, counted through images, rows and columns, so
that small images fill it too. Products run on tensor cores and are summed in float32.
"""

import contextlib
from math import gcd

import torch
import triton
import triton.language as tl

COLUMNS = tl.constexpr(16)


@triton.jit(
    do_not_specialize=[
        'images',
        'channels',
        'height',
        'width_units',
        'out_height',
        'out_width_units',
        'kernel_height',
        'kernel_width',
        'rows_before',
        'units_before',
        'lead',
    ]
)
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
    kernel_width,
    rows_before,
    units_before,
    lead,
    FLIP: tl.constexpr,
    UNIT: tl.constexpr,
    WINDOW: tl.constexpr,
    CHUNK: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCKS: tl.constexpr,
):
    # Written as multiples of a constant, so that the compiler sees whole vectors.
    width = width_units * UNIT
    out_width = out_width_units * UNIT

    across = tl.cdiv(out_width, COLUMNS)
    down = tl.cdiv(out_height, ROWS)
    programs = tl.cdiv(images * down * across, BLOCKS)
    channel = tl.program_id(0) // programs
    block = tl.program_id(0) % programs * BLOCKS + tl.arange(0, BLOCKS)
    image = block // (down * across)
    row = block // across % down * ROWS
    column = block % across * COLUMNS
    plane = image.to(tl.int64) * channels + channel

    # Row and column of x at which each block's window starts.
    x += plane[:, None] * height * width
    x_row = row[:, None] - rows_before
    x_column = column[:, None] - units_before * UNIT

    # Of the product's columns: output row and column in the block.
    r = tl.arange(0, ROWS * COLUMNS)[None, :] // COLUMNS
    j = tl.arange(0, ROWS * COLUMNS)[None, :] % COLUMNS

    taps = kernel_height * kernel_width
    kernel += channel.to(tl.int64) * taps
    sums = tl.zeros((BLOCKS, ROWS * COLUMNS), tl.float32)
    for t in range(kernel_height + ROWS - 1):
        in_rows = (image[:, None] < images) & (x_row + t >= 0) & (x_row + t < height)
        u = t - r
        for start in tl.static_range(0, WINDOW, CHUNK):
            s = start + tl.arange(0, CHUNK)
            at = x_column + s[None, :]
            pixels = tl.load(
                x + ((x_row + t) * width + at),
                mask=in_rows & (at >= 0) & (at < width),
                other=0.0,
            )
            v = s[:, None] - lead - j
            tap = u * kernel_width + v
            if FLIP:
                tap = taps - 1 - tap
            toeplitz = tl.load(
                kernel + tap,
                mask=(u >= 0) & (u < kernel_height) & (v >= 0) & (v < kernel_width),
                other=0.0,
            )
            sums = tl.dot(
                pixels, toeplitz.to(pixels.dtype), sums, input_precision='tf32x3'
            )

    if bias is not None:
        sums += tl.load(bias + channel).to(tl.float32)
    y_row = row[:, None] + r
    y_column = column[:, None] + j
    tl.store(
        y + (plane[:, None] * out_height * out_width + (y_row * out_width + y_column)),
        sums.to(y.dtype.element_ty),
        mask=(image[:, None] < images) & (y_row < out_height) & (y_column < out_width),
    )


def convolve_depthwise(
    x: torch.Tensor,
    kernel: torch.Tensor,
    bias: torch.Tensor | None,
    before: tuple[int, int],
    size: tuple[int, int],
    flip: bool = False,
) -> torch.Tensor:
    """Correlate each channel of x with its own kernel."""
    y = x.new_empty((*x.shape[:2], *size))
    if y.numel() == 0:
        return y
    x = x.contiguous()
    kernel = kernel.contiguous()
    images, channels, height, width = x.shape
    kernel_height, kernel_width = kernel.shape[2:]
    unit = gcd(8, width, size[1])
    lead = -before[1] % unit
    window = triton.cdiv(15 + kernel_width + lead, 16) * 16
    rows, blocks = 4, 64
    programs = triton.cdiv(
        images * triton.cdiv(size[0], rows) * triton.cdiv(size[1], 16), blocks
    )
    device = torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext()
    with device:
        depthwise_kernel[(channels * programs,)](
            x,
            kernel,
            bias,
            y,
            images,
            channels,
            height,
            width // unit,
            size[0],
            size[1] // unit,
            kernel_height,
            kernel_width,
            before[0],
            (before[1] + lead) // unit,
            lead,
            FLIP=flip,
            UNIT=unit,
            WINDOW=window,
            CHUNK=window & -window,
            ROWS=rows,
            BLOCKS=blocks,
            num_warps=4,
        )
    return y
