"""The depthwise convolution in Triton, against torch's own in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from dcls_mm.functional.triton_kernels.convolution import convolve_depthwise

# Largest error, relative to the largest sum of absolute products.
TOLERANCE = {torch.float32: 3e-7, torch.float16: 6e-4}


def expected(x, kernel, bias, before, size, flip):
    """Return the same by F.conv2d, on an image that F.pad extends or crops."""
    if flip:
        kernel = kernel.flip(2, 3)
    after = [
        out + taps - 1 - length - first
        for out, taps, length, first in zip(size, kernel.shape[2:], x.shape[2:], before)
    ]
    x = F.pad(x.double(), (before[1], after[1], before[0], after[0]))
    bias = None if bias is None else bias.double()
    return F.conv2d(x, kernel.double(), bias, groups=len(kernel))


def check(x, kernel, bias, before, size, flip=False):
    y = convolve_depthwise(x, kernel, bias, before, size, flip)
    assert y.dtype == x.dtype
    arguments = (x, kernel.to(x.dtype), bias)
    wanted = expected(*arguments, before, size, flip)
    scale = expected(
        *(None if t is None else t.abs() for t in arguments), before, size, flip
    )
    assert y.shape == wanted.shape
    torch.testing.assert_close(
        y.double(), wanted, rtol=0, atol=TOLERANCE[x.dtype] * scale.max().item()
    )
    return y


def same(kernel):
    return tuple(taps // 2 for taps in kernel.shape[2:])


@st.composite
def cases(draw):
    dtype = draw(st.sampled_from([torch.float32, torch.float16]))
    batch, channels = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    height, width = draw(st.integers(1, 20)), draw(st.integers(1, 40))
    extent = draw(st.integers(1, 19)), draw(st.integers(1, 33))
    before = tuple(draw(st.integers(-3, taps + 2)) for taps in extent)
    size = draw(st.integers(1, 20)), draw(st.integers(1, 40))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    x = torch.randn(batch, channels, height, width, generator=generator).to(dtype)
    kernel = torch.randn(channels, 1, *extent, generator=generator)
    kernel = kernel.to(draw(st.sampled_from([dtype, torch.float32])))
    bias = None
    if draw(st.booleans()):
        bias = torch.randn(channels, generator=generator)
        bias = bias.to(draw(st.sampled_from([dtype, torch.float32, torch.float64])))
    return x, kernel, bias, before, size, draw(st.booleans())


@given(case=cases())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_any_shape_padding_and_size(case):
    check(*case)


@pytest.mark.parametrize('dtype', TOLERANCE, ids=str)
@pytest.mark.parametrize('extent', [(9, 9), (17, 17), (31, 31), (63, 3), (5, 63)])
@pytest.mark.parametrize('width', [24, 12, 13])
def test_same_padding(dtype, extent, width):
    x = torch.randn(2, 2, 11, width).to(dtype)
    kernel = torch.randn(2, 1, *extent).to(dtype)
    check(x, kernel, torch.randn(2), same(kernel), x.shape[2:])
