"""All backends give a call the same result: values, dtype, memory format, errors."""

import math
from contextlib import nullcontext
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from conftest import TOLERANCE
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dcls_mm.functional import convolve
from dcls_mm.functional.backends import BACKENDS
from dcls_mm.functional.padding import PADDING_MODES

CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
LARGEST = {1: 40, 2: 16, 3: 4}

# Those that take a dense kernel and run here.
ON_CPU = [name for name in BACKENDS if name not in ('direct', 'triton')]

# Pixels times taps; more takes torch seconds in float16.
MOST_PRODUCTS = 50_000

# Name -> a function from a shape to a tensor with that memory layout.
LAYOUTS = {
    'contiguous': lambda shape: torch.randn(shape),
    'channels last': lambda shape: channels_last(shape),
    'some channels': lambda shape: channels_last((shape[0], 2 * shape[1], *shape[2:]))[
        :, : shape[1]
    ],
    'reversed': lambda shape: torch.randn(shape[::-1]).permute(
        *reversed(range(len(shape)))
    ),
    'strided': lambda shape: torch.randn(*shape[:-1], 2 * shape[-1])[..., ::2],
    'one for all': lambda shape: torch.randn(1, *shape[1:]).expand(shape),
}
DTYPES = [torch.float32] * 6 + [torch.float64, torch.float16, torch.bfloat16]


def channels_last(shape):
    axes = len(shape)
    inner = torch.randn(shape[0], *shape[2:], shape[1])
    return inner.permute(0, axes - 1, *range(1, axes - 1))


class Call(NamedTuple):
    """The arguments of a call of :func:`convolve`; see :func:`calls`."""

    batch: int | None  # None: no batch axis
    size: tuple[int, ...]
    kernel: tuple[int, ...]
    groups: int
    padding: tuple[int, ...] | str = 'same'
    padding_mode: str = 'zeros'
    stride: tuple[int, ...] = (1,)
    has_bias: bool = True
    layouts: tuple[str, str] = ('contiguous', 'contiguous')
    dtypes: tuple = (torch.float32,) * 3
    learned: tuple[bool, bool, bool] = (True, True, True)
    autocast: torch.dtype | None = None

    @property
    def options(self):
        names = ('groups', 'padding', 'padding_mode')
        stride = self.stride * (len(self.size) // len(self.stride))
        return dict(stride=stride, **{name: getattr(self, name) for name in names})

    def tensors(self):
        """Return x, kernel and bias, the same for every call."""
        torch.manual_seed(0)
        shape = (
            1 if self.batch is None else self.batch,
            self.groups * self.kernel[1],
            *self.size,
        )
        x, kernel = (
            LAYOUTS[self.layouts[0]](shape),
            LAYOUTS[self.layouts[1]](self.kernel),
        )
        bias = torch.randn(self.kernel[0]) if self.has_bias else None
        made = (x if self.batch is not None else x[0], kernel, bias)
        return [
            None if t is None else t.to(dtype).requires_grad_(learned)
            for t, dtype, learned in zip(made, self.dtypes, self.learned)
        ]

    def context(self):
        if self.autocast is None:
            return nullcontext()
        return torch.autocast('cpu', dtype=self.autocast)


@st.composite
def calls(draw):
    ndim = draw(st.sampled_from([1, 2, 2, 3]))

    def a_tuple(*values):
        return tuple(draw(st.sampled_from(range(*values))) for _ in range(ndim))

    extent = a_tuple(1, LARGEST[ndim] + 1)
    groups, group_in, group_out = draw(
        st.sampled_from([(3, 1, 1), (4, 1, 1), (2, 2, 1), (1, 3, 2), (1, 1, 1)])
    )
    padding = draw(st.sampled_from(['any', 'any', 'half', 'same', 'valid']))
    if padding == 'half':
        padding = tuple(size // 2 for size in extent)
    elif padding == 'any':
        padding = tuple(draw(st.sampled_from(range(3 * size + 1))) for size in extent)
    size = a_tuple(0, LARGEST[ndim] + 8)
    if padding not in ('same', 'valid'):
        pixels = [n + 2 * p for n, p in zip(size, padding)]
        if math.prod((*pixels, *extent)) > MOST_PRODUCTS:
            padding = tuple(k // 2 for k in extent)
    plain = draw(st.booleans())
    mixed = st.tuples(*[st.sampled_from(DTYPES)] * 3)
    return Call(
        batch=draw(st.sampled_from([2, 2, 1, None, 0])),
        size=size,
        kernel=(groups * group_out, group_in, *extent),
        groups=groups,
        padding=padding,
        padding_mode=draw(st.sampled_from(['zeros'] * 3 + list(PADDING_MODES))),
        stride=(1,) * ndim if plain or padding == 'same' else a_tuple(1, 4),
        has_bias=draw(st.booleans()),
        layouts=tuple(draw(st.sampled_from(list(LAYOUTS))) for _ in range(2)),
        dtypes=draw(st.one_of(st.sampled_from(DTYPES).map(lambda d: (d,) * 3), mixed)),
        learned=tuple(draw(st.booleans()) for _ in range(3)),
        autocast=draw(st.sampled_from([None, None, torch.bfloat16, torch.float16])),
    )


class Result(NamedTuple):
    """The result of a call; gradients are those of the learned tensors."""

    y: torch.Tensor
    gradients: list


def outcome(tensors, function):
    """Return a :class:`Result` or the error; None if a backend doesn't support it."""
    try:
        y = function(*tensors)
    except (RuntimeError, TypeError, ValueError) as error:
        return None if 'cannot serve this call' in str(error) else error
    wanted = [t for t in tensors if t is not None and t.requires_grad]
    assert y.requires_grad == bool(wanted)
    if not wanted:
        return Result(y, [])
    seed = torch.linspace(-1, 2, y.numel()).sin().view(y.shape).to(y)
    return Result(y, list(torch.autograd.grad(y, wanted, seed)))


def by_torch(call):
    """Return torch's own result for the same values in float64."""
    options = call.options
    padding, mode = options.pop('padding'), options.pop('padding_mode')
    if padding == 'valid':
        sides = [(0, 0)] * len(call.size)
    elif padding == 'same':
        sides = [((k - 1) // 2, k // 2) for k in call.kernel[2:]]
    else:
        sides = [(p, p) for p in padding]
    last_first = [side for pair in reversed(sides) for side in pair]

    def function(x, kernel, bias):
        x = x.unsqueeze(0) if call.batch is None else x
        x = F.pad(x, last_first, PADDING_MODES[mode])
        y = CONVOLUTIONS[len(call.size)](x, kernel, bias, **options)
        return y.squeeze(0) if call.batch is None else y

    tensors = [
        None if t is None else t.detach().double().requires_grad_(t.requires_grad)
        for t in call.tensors()
    ]
    return outcome(tensors, function)


def check(call):
    """Check all backends that support a call, and the one that is chosen."""

    def by(name):
        def function(*tensors):
            with call.context():
                return convolve(*tensors, backend=name, **call.options)

        return outcome(call.tensors(), function)

    native, expected = by('native'), by_torch(call)
    assert native is not None, 'it serves every call'
    if isinstance(native, Exception) and len(set(call.dtypes)) == 1:
        assert isinstance(expected, Exception) or 0 in call.size, native
    for name in (None, *BACKENDS):
        result = by(name)
        if result is None:
            continue
        if isinstance(native, Exception):
            assert (type(result), str(result)) == (type(native), str(native)), name
            continue
        assert isinstance(result, Result), (name, result)
        assert result.y.dtype == native.y.dtype, name
        assert strides(result.y) == strides(native.y), name
        values = [result.y, *result.gradients]
        for value, exact in zip(values, [expected.y, *expected.gradients]):
            assert_near(value, exact, result.y.dtype)


def strides(y):
    """Return the strides along axes with more than one entry."""
    return [step for step, size in zip(y.stride(), y.shape) if size > 1 and y.numel()]


def assert_near(value, exact, dtype):
    """Compare with the tolerance of the dtype that a convolution may compute in."""
    assert value.shape == exact.shape
    if value.numel():
        allowed = 5 * TOLERANCE[dtype] * max(1.0, exact.abs().max().item())
        assert (value.double() - exact).abs().max() <= allowed


LARGE = Call(2, (16, 16), (4, 1, 15, 15), 4)
LONG = Call(2, (50,), (4, 1, 40), 4)
DOUBLE, HALF = torch.float64, torch.float16


@settings(max_examples=250, deadline=None, derandomize=True, database=None)
@given(calls())
@example(LONG._replace(padding=(100,)))
@example(LONG._replace(padding=(4,), size=(20,)))
@example(LARGE._replace(padding=(2, 2), size=(16, 4)))
@example(LARGE._replace(dtypes=(torch.float32, torch.float32, DOUBLE)))
@example(LARGE._replace(dtypes=(torch.float32, DOUBLE, torch.float32)))
@example(LONG._replace(dtypes=(torch.float32, torch.float32, HALF)))
@example(LONG._replace(dtypes=(DOUBLE, torch.float32, torch.float32)))
@example(LARGE._replace(autocast=torch.bfloat16))
@example(LARGE._replace(autocast=torch.bfloat16, dtypes=(HALF, torch.float32, HALF)))
@example(LARGE._replace(autocast=torch.bfloat16, dtypes=(DOUBLE,) * 3))
@example(LONG._replace(autocast=HALF, dtypes=(torch.float32, torch.float32, DOUBLE)))
@example(LARGE._replace(layouts=('contiguous', 'channels last')))
@example(LARGE._replace(layouts=('some channels', 'contiguous')))
@example(LARGE._replace(layouts=('channels last', 'reversed'), batch=None))
@example(LARGE._replace(batch=0))
@example(
    Call(
        *(2, (1, 3), (3, 1, 1, 2), 3),
        padding=(0, 0),
        padding_mode='circular',
        layouts=('channels last', 'contiguous'),
    )
)
@example(LARGE._replace(size=(0, 16)))
def test_one_call_has_one_result(call):
    check(call)


@pytest.mark.parametrize('padding_mode', PADDING_MODES)
@pytest.mark.parametrize('backend', [None, *ON_CPU])
def test_memory_format_is_that_of_the_input(backend, padding_mode):
    """It doesn't depend on the padding, and holds for part of a channels_last batch."""
    kernel = LAYOUTS['channels last']((4, 1, 15, 15))
    options = dict(padding=7, padding_mode=padding_mode, groups=4, backend=backend)
    for layout in ('channels last', 'some channels'):
        y = convolve(LAYOUTS[layout]((2, 4, 16, 16)), kernel, **options)
        assert y.is_contiguous(memory_format=torch.channels_last), layout
    for layout in ('contiguous', 'reversed', 'strided', 'one for all'):
        y = convolve(LAYOUTS[layout]((2, 4, 16, 16)), kernel, **options)
        assert y.is_contiguous(), layout


def test_on_another_device():
    """The error comes before any backend computes, as each would fail differently."""
    x, kernel = torch.randn(1, 4, 16, 16), torch.randn(4, 1, 15, 15)
    for name in (None, *BACKENDS):
        with pytest.raises(RuntimeError, match='kernel should be on the same device'):
            convolve(x, kernel.to('meta'), groups=4, backend=name)
