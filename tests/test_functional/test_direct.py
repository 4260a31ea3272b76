"""The compiled direct convolution, against torch's convolution in float64."""

import re

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from dcls_mm import construct_kernel
from dcls_mm.functional import native_code
from dcls_mm.functional.convolution import pad
from dcls_mm.functional.native_code import direct
from dcls_mm.functional.operators.direct import (
    convolve_elements,
    convolve_taps,
    elements_gradient,
    elements_input_gradient,
    kernel_of_taps,
    taps_of_kernel,
)

pytestmark = pytest.mark.skipif(
    native_code.missing() is not None, reason=str(native_code.missing())
)

# The errors of sums in float32, relative to the sum of the products' magnitudes.
TOLERANCE = 2e-6
BFLOAT16_TOLERANCE = 5e-3

ROUNDED = pytest.mark.parametrize('rounded', [False, True])


@pytest.fixture(params=['plain', 'avx2', 'avx512'])
def instructions(request):
    try:
        yield native_code.instructions(request.param)
    except ValueError as error:
        pytest.skip(str(error))
    finally:
        native_code.instructions()


def images(batch, channels, size, layout='contiguous', dtype=torch.float32):
    """Random images: in a format, or a part of larger ones in it."""
    height, width = size
    if layout.startswith('part'):
        whole = images(batch + 1, channels + 2, (height + 3, width + 5), layout[8:])
        return whole.to(dtype)[1:, 1:-1, 2:-1, 3:-2]
    x = torch.randn(batch, channels, height, width, dtype=dtype)
    last = layout == 'channels_last'
    return x.contiguous(memory_format=torch.channels_last) if last else x


LAYOUTS = ['contiguous', 'channels_last', 'part of contiguous', 'part of channels_last']


def dense_kernel(weight, positions, extent, normalized):
    kernel = construct_kernel(
        weight.unsqueeze(1),
        positions.unsqueeze(2),
        kernel_size=tuple(extent[-len(positions) :]),
        interpolation='triangle' if normalized else 'bilinear',
    )
    return kernel.reshape(len(weight), 1, *extent)


def dense(x, bias, weight, positions, extent, before, size, normalized):
    kernel = dense_kernel(weight, positions, extent, normalized)
    sides = [
        (b, n + k - 1 - b - s) for b, n, k, s in zip(before, size, extent, x.shape[2:])
    ]
    padded = pad(x, sides, 'zeros')
    return F.conv2d(padded, kernel, bias, groups=x.shape[1])


def compare(x, grad_y, bias, weight, positions, extent, before, normalized):
    """Compare the output and all gradients with those of the dense convolution."""
    learned = x, bias, weight, positions
    arguments = list(extent), list(before), list(grad_y.shape[2:]), normalized
    inputs = [t.detach().requires_grad_() for t in learned]
    y = convolve_elements(*inputs, *arguments)
    found = [y, *torch.autograd.grad(y, inputs, grad_y)]

    exact = [t.detach().double().requires_grad_() for t in learned]
    expected = dense(*exact, *arguments)
    expected = [expected, *torch.autograd.grad(expected, exact, grad_y.double())]
    # The same with magnitudes bounds the rounding of the sums; that of the positions
    # is bounded by that of the weights, which are sums over the same products.
    bounds = [t.detach().double().abs().requires_grad_() for t in learned[:3]]
    bound = dense(*bounds, exact[3].detach(), *arguments)
    bounds = [bound, *torch.autograd.grad(bound, bounds, grad_y.double().abs())]
    steep = 4 * weight.abs().amax().double()
    if normalized:  # near the border, few shares are left to divide by
        steep = steep * 100
    bounds.append(bounds[3].amax() * steep)
    # Where only taps with small shares lie in the image, these bounds are small, but
    # each share is still off by what rounds a position inside the extent.
    most_x, most_y, most_w = (t.abs().amax().double() for t in (x, grad_y, weight))
    elements = weight.shape[-1] * len(weight) // x.shape[1]
    off = max(extent) * torch.finfo(torch.float32).eps
    slack = {
        'output': off * elements * most_x * most_w,
        'input': off * elements * most_y * most_w,
        'weight': off * grad_y[:, 0].numel() * most_x * most_y,
    }
    slack['positions'] = slack['weight'] * steep
    names = 'output', 'input', 'bias', 'weight', 'positions'
    for name, one, other, limit in zip(names, found, expected, bounds):
        narrow = one.dtype == torch.bfloat16
        error = (one.double() - other).abs()
        allowed = BFLOAT16_TOLERANCE if narrow else TOLERANCE * (1 + max(extent) / 16)
        allowed = allowed * limit.amax() + slack.get(name, 0)
        assert one.shape == other.shape
        assert (error <= allowed).all(), (name, error.max(), limit.amax())
        assert one.dtype == x.dtype or name not in ('output', 'input')


def random_case(
    batch=2, channels=3, multiplier=1, size=(9, 8), extent=(5, 5), before=None,
    out_size=None, count=6, spread=2.0, shared=False, axes=2, layout='contiguous',
    dtype=torch.float32, rounded=False, normalized=False,
):  # fmt: skip
    before = [k // 2 for k in extent] if before is None else before
    out_size = size if out_size is None else out_size
    out = channels * multiplier
    positions = spread * torch.randn(axes, 1 if shared else out, count)
    compare(
        images(batch, channels, size, layout, dtype),
        images(batch, out, out_size, layout, dtype),
        torch.randn(out),
        torch.randn(out, count),
        positions.round() if rounded else positions,
        extent,
        before,
        normalized,
    )


@ROUNDED
@pytest.mark.parametrize('normalized', [False, True])
@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.usefixtures('instructions')
def test_values_and_gradients(layout, normalized, rounded):
    random_case(
        channels=35, size=(21, 37), extent=(7, 9), count=12, layout=layout,
        normalized=normalized, rounded=rounded,
    )  # fmt: skip


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.usefixtures('instructions')
def test_images_of_several_tiles(layout):
    random_case(
        channels=16, size=(70, 150), extent=(9, 11), count=9, spread=3, layout=layout
    )


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.usefixtures('instructions')
def test_bfloat16(layout):
    random_case(channels=18, size=(12, 19), layout=layout, dtype=torch.bfloat16)


@pytest.mark.usefixtures('instructions')
def test_lines():
    for axes, width in ((1, 700), (2, 5000), (1, 5)):
        random_case(size=(1, width), extent=(1, 31), count=9, spread=8, axes=axes)
    random_case(size=(6, 40), extent=(1, 31), count=9, spread=8, axes=1)
    random_case(size=(1, 40), extent=(5, 7), count=9)


@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(1, 3),
    channels=st.integers(1, 20),
    multiplier=st.integers(1, 3),
    size=st.tuples(st.integers(1, 33), st.integers(1, 40)),
    out_size=st.tuples(st.integers(1, 33), st.integers(1, 40)),
    extent=st.tuples(st.integers(1, 63), st.integers(1, 63)),
    before=st.tuples(st.integers(-9, 70), st.integers(-9, 70)),
    count=st.integers(1, 300),
    spread=st.sampled_from([0.1, 3.0, 40.0, 1e30]),
    shared=st.booleans(),
    layout=st.sampled_from(LAYOUTS),
    rounded=st.booleans(),
    normalized=st.booleans(),
)
@example(  # only taps with a small share lie in the image
    batch=1,
    channels=1,
    multiplier=1,
    size=(1, 1),
    out_size=(5, 1),
    extent=(40, 2),
    before=(25, 0),
    count=1,
    spread=0.1,
    shared=False,
    layout='contiguous',
    rounded=False,
    normalized=False,
)
def test_any_sizes(batch, channels, **case):
    channels = channels if case['count'] < 30 else min(channels, 3)
    random_case(batch, channels, **case)


@pytest.mark.parametrize('bad', [float('nan'), float('inf'), -float('inf')])
def test_positions_that_are_no_numbers(bad, instructions):
    """Their output channel is NaN, the others are as without them."""
    torch.manual_seed(1)
    x, weight, positions = images(1, 3, (6, 7)), torch.randn(3, 4), torch.randn(2, 3, 4)
    arguments = [5, 5], [2, 2], [6, 7], False
    good = convolve_elements(x, None, weight, positions, *arguments)
    positions[1, 1, 2] = bad
    y = convolve_elements(x, None, weight, positions, *arguments)
    assert y[:, 1].isnan().all()
    assert torch.equal(y[:, ::2], good[:, ::2])
    expected = dense(x, None, weight, positions, *arguments)
    assert torch.equal(y.isnan(), expected.isnan())
    grad_x = elements_input_gradient(
        y.new_ones(y.shape), 3, weight, positions, *arguments
    )
    assert grad_x[:, 1].isnan().all() and grad_x[:, ::2].isfinite().all()
    grads = elements_gradient(
        x, torch.ones_like(y), weight, positions, *arguments[:2], False
    )
    assert grads[0].isnan().sum() <= 1 and grads[1].isnan().sum() <= 2


def test_positions_far_outside(instructions):
    x, weight = images(1, 2, (6, 7)), torch.randn(2, 3)
    positions = torch.full((2, 2, 3), 1e38).requires_grad_()
    bias = torch.randn(2)
    y = convolve_elements(x, bias, weight, positions, [5, 5], [2, 2], [6, 7], True)
    assert torch.equal(y, bias.view(1, 2, 1, 1).expand_as(y))
    assert not torch.autograd.grad(y.sum(), positions)[0].any()


def test_no_number_depends_on_the_threads(instructions):
    torch.manual_seed(2)
    x, weight, positions = (
        images(3, 40, (40, 50)),
        torch.randn(40, 9),
        torch.randn(2, 40, 9),
    )
    threads, results = torch.get_num_threads(), []
    try:
        for number in (1, 2, 5):
            torch.set_num_threads(number)
            y = convolve_elements(
                x, None, weight, positions, [9, 9], [4, 4], [40, 50], False
            )
            results.append(
                [y, *elements_gradient(x, y, weight, positions, [9, 9], [4, 4], False)]
            )
    finally:
        torch.set_num_threads(threads)
    for result in results[1:]:
        assert all(torch.equal(*pair) for pair in zip(result, results[0]))


@pytest.mark.parametrize('layout', LAYOUTS)
def test_results_have_the_format_of_the_image(layout):
    x, positions = images(2, 4, (5, 6), layout), torch.randn(2, 4, 3)
    last = torch.channels_last if 'last' in layout else torch.contiguous_format
    y = convolve_elements(
        x, None, torch.randn(4, 3), positions, [3, 3], [1, 1], [5, 6], False
    )
    assert y.is_contiguous(memory_format=last)


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.usefixtures('instructions')
def test_taps(layout):
    x, bias = images(2, 5, (11, 12), layout), torch.randn(10)
    kernel = torch.randn(10, 1, 7, 5) * (torch.rand(10, 1, 7, 5) < 0.3)
    kernel[3] = 0
    y = convolve_taps(x, bias, *taps_of_kernel(kernel), [7, 5], [3, 2], [11, 12])
    expected = F.conv2d(
        x.double(), kernel.double(), bias.double(), padding=(3, 2), groups=5
    )
    assert (y - expected).abs().max() < 1e-5


def test_taps_that_coincide_add_up(instructions):
    x = images(1, 1, (4, 4))
    kinds = torch.tensor([[0, *[2] * 8]], dtype=torch.int32)
    places = torch.ones(2, 2, dtype=torch.int32)
    values = torch.tensor([[2.0, 0, 0, 0], [3, 0, 0, 0]])
    y = convolve_taps(x, None, kinds, places, values, [3, 3], [1, 1], [4, 4])
    torch.testing.assert_close(y, 5 * x, rtol=1e-6, atol=0)


def operator_arguments():
    x = images(2, 3, (6, 7), 'channels_last')
    weight, positions = torch.randn(6, 4), torch.randn(2, 1, 4)
    return x, torch.randn(6), weight, positions, [5, 3], [2, 1], [6, 7], True


def test_operators_are_as_torch_wants_them():
    x, bias, weight, positions, *geometry, normalized = operator_arguments()
    learned = [t.requires_grad_() for t in (x, bias, weight, positions)]
    operators = torch.ops.dcls_mm
    torch.library.opcheck(
        operators.convolve_elements.default, (*learned, *geometry, normalized)
    )
    x, bias, weight, positions = (t.detach() for t in learned)
    grad_y = images(2, 6, (6, 7))
    torch.library.opcheck(
        operators.elements_input_gradient.default,
        (grad_y, 3, weight, positions, *geometry, normalized),
    )
    torch.library.opcheck(
        operators.elements_gradient.default,
        (x, grad_y, weight, positions, *geometry[:2], normalized),
    )
    taps = taps_of_kernel(torch.randn(6, 1, 5, 3))
    torch.library.opcheck(operators.convolve_taps.default, (x, bias, *taps, *geometry))


def test_gradients_of_gradients():
    x, bias, weight, positions, *rest = operator_arguments()

    def second_order(function, tensors):
        y = function(*tensors, *rest)
        first = torch.autograd.grad(y.square().sum(), tensors, create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in first), tensors)

    tensors = [t.requires_grad_() for t in (x, bias, weight, positions)]
    found = second_order(convolve_elements, tensors)
    exact = [t.detach().double().requires_grad_() for t in tensors]
    for one, other in zip(found, second_order(dense, exact)):
        assert (one - other).abs().max() <= 1e-4 * other.abs().max()


def test_flops_are_those_of_the_taps():
    x, bias, weight, positions, *rest = operator_arguments()
    with FlopCounterMode(display=False) as counter:
        y = convolve_elements(x, bias, weight.requires_grad_(), positions, *rest)
        y.sum().backward()
    assert counter.get_total_flops() == 2 * (2 * 2 * 6 * 6 * 7 * 4 * 4)


def test_an_empty_batch():
    x, bias, weight, positions, *rest = operator_arguments()
    learned = [t.requires_grad_() for t in (bias, weight, positions)]
    y = convolve_elements(x[:0], *learned, *rest)
    assert y.shape == (0, 6, 6, 7)
    assert not any(g.any() for g in torch.autograd.grad(y.sum(), learned))


@pytest.mark.parametrize(
    'change, error, message',
    [
        ({0: torch.zeros(2, 3, 6, 7, dtype=torch.float64)}, TypeError, 'float64'),
        ({0: torch.zeros(3, 6, 7)}, ValueError, '4 axes'),
        ({0: torch.zeros(2, 4, 6, 7)}, ValueError, 'multiple of the 4 channels'),
        ({1: torch.zeros(5)}, ValueError, 'bias'),
        ({3: torch.zeros(2, 2, 4)}, ValueError, 'positions'),
        ({3: torch.zeros(1, 6, 4)}, ValueError, 'one row'),
    ],
)
def test_wrong_arguments(change, error, message):
    arguments = list(operator_arguments())
    for index, value in change.items():
        arguments[index] = value
    with pytest.raises(error, match=message):
        convolve_elements(*arguments)


@pytest.mark.parametrize(
    'kinds, place, message',
    [
        ([0, 1, 1, 1, 1, 1, 1, 1, 1], (3, 0), 'within'),
        ([0, 1, 1, 1, 1, 1, 1, 1, 1], (0, 3), 'within'),
        ([0, 1, 1, 1, 1, 1, 1, 1, 1], (-1, 0), 'within'),
        ([0, 1, 1, 1, 1, 1, 1, 1, 1], (0, -1), 'within'),
        ([0, 1, 1, 1, 1, 1, 1, 1, 1], (2**31 - 1, 2**31 - 1), 'within'),
        ([0, 0, 1, 1, 1, 1, 1, 1, 1], (2, 0), 'within'),
        ([0, 0, 0, 1, 1, 1, 1, 1, 1], (1, 0), 'within'),
        ([0, 0, 0, 0, 0, 0, 0, 0, 1], (0, 0), 'within'),
        ([0, 2, 2, 2, 2, 2, 2, 2, 2], (0, 0), 'rise'),
        ([0, 0, 0, 0, 0, 0, 0, 0, 0], (0, 0), 'rise'),
        ([1, 1, 1, 1, 1, 1, 1, 1, 1], (0, 0), 'rise'),
        ([0, 1, 0, 1, 1, 1, 1, 1, 1], (0, 0), 'rise'),
        ([0, -1, 0, 1, 1, 1, 1, 1, 1], (0, 0), 'rise'),
    ],
)
def test_taps_outside_are_refused(kinds, place, message):
    taps = (
        torch.tensor([kinds], dtype=torch.int32),
        torch.tensor([place], dtype=torch.int32),
        torch.ones(1, 4),
    )
    with pytest.raises(ValueError, match=message):
        convolve_taps(images(1, 1, (4, 4)), None, *taps, [3, 3], [1, 1], [4, 4])


def test_outputs_must_have_consecutive_windows():
    kinds = torch.tensor([[0, *[1] * 8], [0, *[1] * 8]], dtype=torch.int32)
    places, values = torch.zeros(1, 2, dtype=torch.int32), torch.ones(1, 4)
    with pytest.raises(ValueError, match='rise'):
        convolve_taps(
            images(1, 1, (4, 4)), None, kinds, places, values, [3, 3], [1, 1], [4, 4]
        )


@pytest.mark.parametrize(
    'change, error, message',
    [
        ({0: torch.zeros(6, 9)}, TypeError, 'int32'),
        ({0: torch.zeros(6, 8, dtype=torch.int32)}, ValueError, r'\(out, 9\)'),
        ({1: torch.zeros(5, 2, dtype=torch.int32)}, ValueError, r'\(windows, 2\)'),
        ({0: torch.zeros(5, 9, dtype=torch.int32)}, ValueError, 'multiple'),
    ],
)
def test_wrong_taps(change, error, message):
    x, bias, _, _, *geometry, _ = operator_arguments()
    taps = list(taps_of_kernel(torch.ones(6, 1, 5, 3)))
    for index, value in change.items():
        taps[index] = value
    with pytest.raises(error, match=message):
        convolve_taps(x, bias, *taps, *geometry)


@given(
    shape=st.tuples(st.integers(0, 6), st.integers(1, 20), st.integers(1, 9)),
    share=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
)
def test_packed_taps(shape, share):
    """They give the kernel back, and are as ``Taps`` says."""
    out, rows, columns = shape
    kernel = torch.randn(out, 1, rows, columns)
    kernel = kernel * (torch.rand_like(kernel) < share)
    taps = taps_of_kernel(kernel)
    assert torch.equal(kernel_of_taps(taps, (rows, columns)), kernel)
    assert [t.dtype for t in taps] == [torch.int32, torch.int32, torch.float32]
    ends = [0, *(end for row in taps.kinds.tolist() for end in row[1:])]
    assert taps.kinds[:, 0].tolist() == ends[:-1:8]
    assert ends == sorted(ends) and ends[-1] == len(taps.places) == len(taps.values)
    for group, (start, end) in enumerate(zip(ends, ends[1:])):
        mask = 2 * (group % 8) + 1
        for values in taps.values[start:end].tolist():
            assert [v != 0 for v in values] == [bool(mask >> t & 1) for t in range(4)]


def test_strides_beyond_32_bits(tmp_path):
    """Of a file with a hole, of which two pages are read."""
    stride = 2**31 + 5
    whole = torch.from_file(str(tmp_path / 'hole'), shared=True, size=stride + 64)
    x = whole.as_strided((1, 2, 4, 16), (1, stride, 16, 1))
    x.copy_(torch.randn(x.shape))
    _, bias, weight, positions, *_ = operator_arguments()
    arguments = bias[:2], weight[:2], positions, [5, 3], [2, 1], [4, 16], True
    y = convolve_elements(x, *arguments)
    assert torch.equal(y, convolve_elements(x.contiguous(), *arguments))
    gradients = elements_gradient(x, y, *arguments[1:5], True)
    expected = elements_gradient(x.contiguous(), y, *arguments[1:5], True)
    assert all(map(torch.equal, gradients, expected))


def test_one_runtime_of_threads():
    """The library brings no OpenMP runtime beside torch's."""
    if direct._parallel() is None:
        pytest.skip('torch uses another runtime of threads')
    with open('/proc/self/maps') as maps:
        files = {line.split()[-1] for line in maps}
    files = {f for f in files if re.match('lib.*omp', f.rpartition('/')[2])}
    assert len(files) == 1
