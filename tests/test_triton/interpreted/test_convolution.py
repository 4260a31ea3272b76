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


@pytest.mark.parametrize('before', [(4, 2), (-1, 3), (0, 9)])
def test_flipped_it_is_the_adjoint(before):
    extent, lengths, size = (7, 9), (10, 14), (9, 17)
    x = torch.randn(2, 2, *lengths)
    kernel = torch.randn(2, 1, *extent)
    grad_y = torch.randn(2, 2, *size)
    back = tuple(taps - 1 - first for taps, first in zip(extent, before))

    y = convolve_depthwise(x, kernel, None, before, size)
    grad_x = convolve_depthwise(grad_y, kernel, None, back, lengths, flip=True)

    onward = (y.double() * grad_y).sum()
    torch.testing.assert_close(onward, (x.double() * grad_x).sum(), rtol=0, atol=1e-4)
    at = x.double().requires_grad_()
    reference = expected(at, kernel, None, before, size, False)
    (wanted,) = torch.autograd.grad(reference, at, grad_y.double())
    torch.testing.assert_close(grad_x.double(), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize('dtype', TOLERANCE, ids=str)
def test_several_programs_per_channel(dtype):
    x, kernel = torch.randn(2, 2, 37, 464).to(dtype), torch.randn(2, 1, 3, 9)
    check(x, kernel, torch.randn(2), (1, 4), (37, 464))


@pytest.mark.parametrize('dtype', TOLERANCE, ids=str)
def test_memory_formats_and_slices(dtype):
    x = torch.randn(2, 3, 8, 16).to(dtype)
    kernel = torch.randn(3, 1, 5, 9).to(dtype)
    bias = torch.randn(3)
    y = check(x, kernel, bias, (2, 4), (8, 16))
    assert y.is_contiguous()

    last = check(x.to(memory_format=torch.channels_last), kernel, bias, (2, 4), (8, 16))
    assert last.is_contiguous() and last.equal(y)

    wide = torch.randn(2, 3, 17, 33).to(dtype)
    part = wide[:, :, 1::2, 1::2].copy_(x)
    turned = kernel.transpose(2, 3).contiguous().transpose(2, 3)
    spaced = torch.stack((bias, torch.full_like(bias, 9.0)), 1)[:, 0]
    assert check(part, turned, spaced, (2, 4), (8, 16)).equal(y)


@pytest.mark.parametrize('shape', [(0, 2, 8, 8), (2, 0, 8, 8)])
def test_nothing_to_convolve(shape):
    kernel = torch.randn(shape[1], 1, 9, 9)
    y = convolve_depthwise(torch.empty(shape), kernel, None, (4, 4), (8, 8))
    assert y.shape == shape


def test_float16_overflows_only_when_rounded():
    # The sum passes 65504 on its way to 60000, and stays beyond it in the second row.
    x = torch.full((1, 1, 2, 8), 30000.0, dtype=torch.float16)
    x[..., 1, :] = -30000.0
    kernel = torch.tensor([3.0, -1.0], dtype=torch.float16).reshape(1, 1, 1, 2)
    kernel = torch.cat([kernel, kernel], dim=3)
    y = convolve_depthwise(x, kernel, None, (0, 0), (2, 8))
    assert (y[0, 0, 0, :5] == float('inf')).all()
    assert (y[0, 0, 1, :5] == -float('inf')).all()
    kernel[..., 3] = -3.0
    y = convolve_depthwise(x, kernel, None, (0, 0), (2, 8))
    assert (y[0, 0, 0, :5] == 60000).all()


@pytest.mark.parametrize('dtype', TOLERANCE, ids=str)
@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_a_pixel_that_is_not_finite_stays_nearby(dtype, value):
    x = torch.randn(2, 2, 40, 112).to(dtype)
    kernel = torch.randn(2, 1, 9, 9).to(dtype)
    clean = convolve_depthwise(x, kernel, None, (4, 4), (40, 112))
    x[1, 1, 20, 50] = value
    y = convolve_depthwise(x, kernel, None, (4, 4), (40, 112))

    touched = torch.zeros(y.shape, dtype=torch.bool)
    touched[1, 1, 16:25, 46:55] = True
    assert not y[touched].isfinite().any()
    around = torch.zeros(y.shape, dtype=torch.bool)
    around[1, 1, 16 - 7 : 25 + 7, 46 - 31 : 55 + 31] = True
    assert y[~around].equal(clean[~around])


def test_a_tap_that_is_not_finite_spoils_its_channel_only():
    x, kernel = torch.randn(2, 2, 12, 20), torch.randn(2, 1, 9, 9)
    clean = convolve_depthwise(x, kernel, None, (4, 4), (12, 20))
    kernel[1, 0, 0, 0] = float('nan')
    y = convolve_depthwise(x, kernel, None, (4, 4), (12, 20))
    assert y[:, 1].isnan().all()
    assert y[:, 0].equal(clean[:, 0])
