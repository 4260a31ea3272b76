"""The depthwise kernel's gradient against torch's own in float64."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from dcls_mm.functional.triton_kernels import kernel_gradient
from dcls_mm.functional.triton_kernels.kernel_gradient import (
    constants,
    depthwise_kernel_gradient,
)

DTYPES = [torch.float32, torch.float16]
# Of the sum of all |grad_y * x| of a tap. Products of two float16 are exact in float32,
# so it holds for both dtypes.
TOLERANCE = 1e-6
MARGIN = 100  # zeros around x, more than any call here reaches


@pytest.fixture(autouse=True)
def poisoned_memory():
    """torch.empty gives NaN, so that a tap that nobody writes is seen."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def expected(x, grad_y, extent, before, flip=False):
    rows, columns = (
        slice(MARGIN - first, MARGIN - first + out + taps - 1)
        for first, out, taps in zip(before, grad_y.shape[2:], extent, strict=True)
    )
    gradient = torch.nn.grad.conv2d_weight(
        F.pad(x.double(), [MARGIN] * 4)[:, :, rows, columns],
        (x.shape[1], 1, *extent),
        grad_y.double(),
        groups=x.shape[1],
    )
    return gradient.flip(2, 3) if flip else gradient


def check(x, grad_y, extent, before, flip=False):
    result = depthwise_kernel_gradient(x, grad_y, extent, before, flip)
    assert result.dtype == torch.float32
    assert result.shape == (x.shape[1], 1, *extent)
    error = (result - expected(x, grad_y, extent, before, flip)).abs()
    scale = expected(x.abs(), grad_y.abs(), extent, before, flip)
    assert (error <= TOLERANCE * scale).all()
    return result


def images(*shape, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator).to(dtype)


def axis(most):
    """Size of x, size of grad_y, taps, zeros before."""
    size = st.integers(1, most)
    return st.tuples(size, size, st.integers(1, 19), st.integers(-4, 22))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_call(data):
    dtype = data.draw(st.sampled_from(DTYPES))
    batch, channels = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    heights = data.draw(axis(12))
    widths = data.draw(axis(40))
    (height, y_height, rows, top), (width, y_width, columns, left) = heights, widths
    check(
        images(batch, channels, height, width, dtype=dtype),
        images(batch, channels, y_height, y_width, dtype=dtype, seed=1),
        (rows, columns),
        (top, left),
        data.draw(st.booleans()),
    )


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
@pytest.mark.parametrize(
    'extent',
    [(17, 17), (31, 31), (33, 9), (5, 63), (63, 63), (1, 1), (4, 18), (62, 34)],
    ids=str,
)
@pytest.mark.parametrize('width', [24, 39])
def test_extents_with_same_padding(extent, dtype, width):
    x = images(2, 2, 5, width, dtype=dtype)
    grad_y = images(2, 2, 5, width, dtype=dtype, seed=1)
    check(x, grad_y, extent, (extent[0] // 2, extent[1] // 2))


def test_every_call_fits_a_tile():
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        for taps in range(1, 64):
            for before in range(-9, 64):
                for width in (1, 6, 20, 64):
                    chosen = constants(dtype, (width, 64), taps, before)
                    unit = chosen['UNIT']
                    reach = chosen['COLUMNS'] + taps - 1 + -before % unit
                    assert reach <= chosen['WINDOW']
                    assert width % unit == 0


@pytest.mark.parametrize('before', range(9))
def test_widest_loads_at_any_padding(before):
    assert constants(torch.float16, (64, 64), 9, before)['UNIT'] == 8


def test_splits_of_the_images_are_added(monkeypatch):
    x, grad_y = images(3, 1, 50, 16), images(3, 1, 48, 16, seed=1)
    results = []
    for programs in (1, 4, 2048):  # 5 blocks in 1 split, in 2 of 3, and in 5
        monkeypatch.setattr(kernel_gradient, 'PROGRAMS', programs)
        results.append(check(x, grad_y, (9, 9), (3, 4)))
    assert not torch.equal(results[0], results[2])  # rounded in another order


def test_short_of_memory_one_program_sums_up_everything(monkeypatch):
    """With a warning; where there is no memory for that either, torch's error stays."""
    asked = []

    def short(x, planes, shape):
        asked.append(planes)
        if len(asked) % 2:
            raise torch.OutOfMemoryError('no memory')
        return x.new_empty((planes, *shape), dtype=torch.float32)

    monkeypatch.setattr(kernel_gradient, 'empty_sums', short)
    x, grad_y = images(2, 1, 90, 20), images(2, 1, 90, 20, seed=1)
    with pytest.warns(UserWarning, match='summed up by fewer programs'):
        check(x, grad_y, (3, 3), (1, 1))
    assert asked[0] > asked[1] > 0
    monkeypatch.setattr(kernel_gradient, 'PROGRAMS', 1)
    asked.clear()
    with pytest.raises(torch.OutOfMemoryError):
        check(x, grad_y, (3, 3), (1, 1))


def test_the_same_bits_in_every_run():
    x, grad_y = images(2, 2, 40, 20), images(2, 2, 40, 20, seed=1)
    first, *others = (
        depthwise_kernel_gradient(x, grad_y, (9, 9), (4, 4)) for _ in range(3)
    )
    assert all(torch.equal(first, other) for other in others)


@pytest.mark.parametrize(
    'arranged',
    [
        lambda t: t.contiguous(memory_format=torch.channels_last),
        lambda t: t.transpose(2, 3).contiguous().transpose(2, 3),
        lambda t: torch.cat([t, t], 3)[..., ::2],
        lambda t: torch.cat([t.flatten()[:1], t.flatten()])[1:].view(t.shape),
        lambda t: t[:, :1, :1, :1].expand(t.shape),
    ],
    ids=['channels_last', 'transposed', 'strided', 'misaligned', 'expanded'],
)
def test_any_strides(arranged):
    x, grad_y = arranged(images(2, 3, 6, 16)), arranged(images(2, 3, 6, 16, seed=1))
    check(x, grad_y, (5, 7), (2, 3))


@pytest.mark.parametrize(
    ('shape', 'before'),
    [((0, 2, 5, 8), (1, 1)), ((2, 2, 0, 8), (1, 1)), ((2, 2, 5, 8), (40, 1)),
     ((2, 2, 5, 8), (1, -30)), ((2, 0, 5, 8), (1, 1))],
    ids=['no images', 'no rows', 'all above', 'all to the right', 'no channels'],
)  # fmt: skip
def test_zeros_where_nothing_meets(shape, before):
    x, grad_y = images(*shape), images(*shape[:2], 5, 8, seed=1)
    result = depthwise_kernel_gradient(x, grad_y, (3, 3), before)
    assert torch.equal(result, torch.zeros(shape[1], 1, 3, 3))


def test_float16_does_not_overflow():
    full = torch.full((2, 1, 8, 16), 6e4, dtype=torch.float16)
    assert check(full, full, (3, 3), (1, 1)).max() > 1e11


@pytest.mark.parametrize('value', [float('inf'), float('nan')])
@pytest.mark.parametrize('of_x', [True, False])
def test_no_infinity_is_lost_or_reaches_another_channel(value, of_x):
    x, grad_y = images(2, 3, 6, 20), images(2, 3, 6, 20, seed=1)
    clean = depthwise_kernel_gradient(x, grad_y, (3, 3), (1, 1))
    (x if of_x else grad_y)[1, 1, 3, 10] = value  # all nine taps touch it
    result = depthwise_kernel_gradient(x, grad_y, (3, 3), (1, 1))
    assert not result[1].isfinite().any()
    assert torch.equal(result[[0, 2]], clean[[0, 2]])


def test_what_no_tap_reaches_has_no_effect():
    x, grad_y = images(1, 1, 12, 20), images(1, 1, 6, 9, seed=1)
    x[:, :, :2] = x[:, :, 10:] = x[..., :3] = x[..., 14:] = float('nan')
    result = depthwise_kernel_gradient(x, grad_y, (3, 3), (-2, -3))
    assert torch.equal(
        result,
        depthwise_kernel_gradient(x.nan_to_num(), grad_y, (3, 3), (-2, -3)),
    )
    assert result.isfinite().all()
