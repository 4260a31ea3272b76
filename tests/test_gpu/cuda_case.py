"""Where these tests run: on a CUDA device, or as a rehearsal in Triton's interpreter.

`make gpu` runs them in an environment with torch, triton, pytest, hypothesis and numpy.
Without a CUDA device they are skipped, unless DCLS_MM_REHEARSAL=1: then what needs no
CUDA runs on the CPU with tiny shapes, and TRITON_INTERPRET=1 must be set.
"""

import contextlib
import os
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dcls_mm.functional import triton_kernels

CUDA = torch.cuda.is_available()
REHEARSAL = not CUDA and os.environ.get('DCLS_MM_REHEARSAL') == '1'
DEVICE = 'cuda' if CUDA else 'cpu'

needs_cuda = pytest.mark.skipif(not CUDA, reason='needs a CUDA device')
needs_device = pytest.mark.skipif(
    not (CUDA or REHEARSAL), reason='needs a CUDA device; `make gpu` runs these tests'
)
needs_two_devices = pytest.mark.skipif(
    torch.cuda.device_count() < 2, reason='needs two CUDA devices'
)
needs_triton = pytest.mark.skipif(
    triton_kernels.missing() is not None, reason='needs triton'
)
KERNEL_TESTS = [needs_device, needs_triton]

# tl.dot of bfloat16 is wrong in the interpreter.
DTYPES = [
    pytest.param(torch.float16, id='fp16'),
    pytest.param(
        torch.bfloat16,
        id='bf16',
        marks=pytest.mark.skipif(REHEARSAL, reason='not in the interpreter'),
    ),
    pytest.param(torch.float32, id='fp32'),
]

# How far sums over many pixels or taps may be off, as a factor of the tolerance:
# tensor cores truncate when they add in float32, so errors grow with the length of the
# sum, not with its root.
SUM_FACTOR = 5 if REHEARSAL else 50

# The first fills whole vectors, the second is ragged.
SHAPES = [(2, 6, 40, 64), (3, 5, 33, 45)]
# All odd extents from 7 to 31, a large one and rectangular ones. Each is compiled anew,
# so the ragged shape only gets some.
EXTENTS = [(k, k) for k in range(7, 32, 2)] + [(63, 63), (5, 17), (17, 5), (31, 9)]
FEW_EXTENTS = [(9, 9), (17, 17), (31, 31), (5, 17)]
if REHEARSAL:
    SHAPES, EXTENTS = [(1, 1, 6, 16), (2, 1, 5, 7)], [(9, 9), (3, 7)]
    FEW_EXTENTS = EXTENTS[1:]
CASES = [
    pytest.param(shape, extent, id=f'{shape}-{extent}')
    for shape, extents in zip(SHAPES, (EXTENTS, FEW_EXTENTS))
    for extent in extents
]
FEW_CASES = [
    pytest.param(shape, extent, id=f'{shape}-{extent}')
    for shape in SHAPES
    for extent in FEW_EXTENTS
]


def randn(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, device=DEVICE).to(dtype)


def correlated(
    x: Tensor,
    kernel: Tensor,
    bias: Tensor | None,
    before: tuple[int, int],
    size: tuple[int, int],
    flip: bool = False,
) -> Tensor:
    """Return what ``convolve_depthwise`` computes, by torch in float64."""
    x, kernel = x.double(), kernel.double()
    after = [
        n + k - 1 - b - s
        for n, k, b, s in zip(size, kernel.shape[2:], before, x.shape[2:])
    ]
    padded = F.pad(x, (before[1], after[1], before[0], after[0]))
    taps = kernel.flip(2, 3) if flip else kernel
    offset = None if bias is None else bias.double()
    return F.conv2d(padded, taps, offset, groups=len(kernel))


@contextlib.contextmanager
def poisoned_memory() -> Iterator[None]:
    """Let torch.empty give NaN, so that what isn't written shows."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def assert_repeats(call, times: int = 10) -> None:
    """Compare the tensors of repeated calls bit by bit."""
    first = call()
    for _ in range(times - 1):
        again = call()
        for a, b in zip(first, again, strict=True):
            assert torch.equal(a, b)
