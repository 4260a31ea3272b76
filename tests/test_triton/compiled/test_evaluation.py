"""The evaluator itself, on small kernels whose results numpy and torch know."""

import evaluation
import operations
import pytest
import torch
import triton
import triton.language as tl
from offline import Launch, recorded, ttir


def evaluate(launch: Launch):
    evaluation.launch(ttir(launch), launch)


@pytest.fixture
def evaluated():
    with recorded(arch=80, on_launch=evaluate) as launches:
        yield launches


def poisoned(*shape, dtype=torch.float32):
    return torch.full(shape, torch.nan, dtype=dtype)


@triton.jit
def _add_one(x):
    return x + 1


@triton.jit
def _arithmetic(out, x, n, scale, size: tl.constexpr):
    i = tl.program_id(0) * size + tl.arange(0, size)
    inside = i < n
    value = tl.load(x + i, mask=inside, other=-1.0).to(tl.float32)
    value = _add_one(tl.exp(-tl.abs(value)) * scale)
    if n % 7 == 3:
        value = tl.where(i % 3 == 1, tl.maximum(value, 1.5), tl.sqrt(value))
    value += (i // 4) + (-i) // 4 + tl.cdiv(n, 4) + tl.floor(value)
    tl.store(out + i, value.to(out.dtype.element_ty), mask=inside)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16])
def test_arithmetic(dtype, evaluated):
    n = 45
    x = torch.randn(n).to(dtype)
    out = poisoned(n, dtype=dtype)
    _arithmetic[triton.cdiv(n, 16),](out, x, n, 0.75, 16)
    i = torch.arange(n)
    value = torch.exp(-x.float().abs()) * 0.75 + 1
    value = torch.where(i % 3 == 1, value.clamp(min=1.5), value.sqrt())
    # Integers are divided towards zero, as in C.
    value = value + i // 4 + torch.div(-i, 4, rounding_mode='trunc') + 12
    value = value + torch.floor(value - 12)
    torch.testing.assert_close(out, value.to(dtype), rtol=1e-6, atol=0)


@triton.jit
def _matrices(
    out, x, w, rows, SIZE: tl.constexpr, precision: tl.constexpr, step: tl.constexpr
):
    i = tl.arange(0, SIZE)[:, None]
    j = tl.arange(0, SIZE)[None, :]
    total = tl.zeros((SIZE, SIZE), tl.float32)
    for k in range(0, rows, step):
        a = tl.load(x + k * SIZE * SIZE + i * SIZE + j)
        b = tl.load(w + k * SIZE * SIZE + i + j * SIZE)
        total = tl.dot(a, b, total, input_precision=precision)
    halves = tl.sum(tl.reshape(tl.trans(total), (SIZE // 2, 2, SIZE)), axis=1)
    tl.store(out + tl.arange(0, SIZE // 2)[:, None] * SIZE + j, halves)
    tl.store(out + SIZE // 2 * SIZE + tl.arange(0, SIZE), tl.max(total, axis=0))
    place = tl.argmax(total, axis=1).to(tl.float32)
    tl.store(out + SIZE // 2 * SIZE + SIZE + tl.arange(0, SIZE), place)


@pytest.mark.parametrize(
    'dtype, precision, error',
    [
        (torch.float16, 'ieee', 1e-6),
        (torch.bfloat16, 'ieee', 1e-6),
        (torch.float32, 'ieee', 1e-6),
        (torch.float32, 'tf32x3', 2e-6),
        (torch.float32, 'tf32', 2e-3),
    ],
)
def test_matrices(dtype, precision, error, evaluated):
    x, w = torch.randn(2, 3, 16, 16).to(dtype)
    out = poisoned(10, 16)
    _matrices[1,](out, x, w, 3, 16, precision, 2)
    total = (x[::2].double() @ w[::2].double().mT).sum(0)
    expected = torch.cat(
        [
            total.T.reshape(8, 2, 16).sum(1),
            total.max(0).values[None],
            total.argmax(1)[None],
        ]
    )
    scale = total.abs().max()
    off = (out - expected).abs().max() / scale
    assert off < error
    assert precision != 'tf32' or off > 1e-5


@triton.jit
def _aliases(out, x, rows, SIZE: tl.constexpr):
    i = tl.arange(0, SIZE)
    newest = tl.zeros((SIZE,), tl.float32)
    older = newest
    total = tl.zeros((SIZE,), tl.float32)
    for k in range(rows):
        total += older
        older = newest
        newest = tl.load(x + k * SIZE + i)
    tl.store(out + i, total)


def test_a_miscompilation_of_the_front_end_shows(evaluated):
    """Start values that are one tensor make Triton drop loop-carried values.

    The day that a version compiles this rightly, this test fails, and the kernels no
    longer need separate zeros.
    """
    x, out = torch.rand(5, 16) + 1, poisoned(16)
    _aliases[1,](out, x, 5, 16)
    assert (out == 0).all() and not torch.equal(out, x[:3].sum(0))


@triton.jit
def _copy(out, x, n, size: tl.constexpr, masked: tl.constexpr):
    i = tl.arange(0, size)
    value = tl.load(x + i, mask=i < n) if masked else tl.load(x + i)
    tl.store(out + i, value)


def test_an_access_outside_is_an_error(evaluated):
    with pytest.raises(IndexError, match='outside of every tensor'):
        _copy[1,](torch.zeros(16), torch.zeros(12), 12, 16, False)
    with pytest.raises(IndexError, match='outside of every tensor'):
        _copy[1,](torch.zeros(12), torch.zeros(16), 16, 16, False)


def test_what_a_masked_load_leaves_undefined_is_nan(evaluated):
    out = torch.zeros(16)
    _copy[1,](out, torch.ones(12), 12, 16, True)
    assert (out[:12] == 1).all() and out[12:].isnan().all()


@triton.jit
def _atomic(out):
    tl.atomic_add(out, 1.0)


def test_an_unknown_operation_is_named(evaluated):
    with pytest.raises(operations.UnknownOperation, match='tt.atomic_rmw'):
        _atomic[1,](torch.zeros(1))
