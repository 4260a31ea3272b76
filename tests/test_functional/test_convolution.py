"""convolve and its backends, against the loops and torch's own convolution."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from conftest import assert_close

from dcls_mm.functional import _torch, convolve
from dcls_mm.functional.backends import (
    BACKENDS,
    ConvolutionCall,
    cpu_depthwise,
    direct,
    fft,
    fft_correlation,
    native,
    select_backend,
    triton_depthwise,
)
from dcls_mm.functional.reference import reference_convolution

CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


@pytest.mark.parametrize('ndim', [1, 2, 3])
@pytest.mark.parametrize('groups', [1, 2, 4])
@pytest.mark.parametrize(('stride', 'padding'), [(1, 0), (2, 1), (1, 2)])
def test_equals_the_loops(ndim, groups, stride, padding):
    x = torch.randn(2, 4, *(6, 5, 4)[:ndim], dtype=torch.float64)
    kernel = torch.randn(8, 4 // groups, *(3, 2, 3)[:ndim], dtype=torch.float64)
    bias = torch.randn(8, dtype=torch.float64)
    y = convolve(x, kernel, bias, stride=stride, padding=padding, groups=groups)
    expected = reference_convolution(
        x,
        kernel,
        bias,
        stride=(stride,) * ndim,
        padding=(padding,) * ndim,
        groups=groups,
    )
    assert_close(y, expected)


@pytest.mark.parametrize('padding_mode', ['zeros', 'reflect', 'replicate', 'circular'])
@pytest.mark.parametrize('padding', [0, 2, (1, 2), 'same', 'valid'])
def test_padding_equals_torch_conv(padding_mode, padding):
    conv = torch.nn.Conv2d(3, 6, (4, 3), padding=padding, padding_mode=padding_mode)
    x = torch.randn(2, 3, 8, 9)
    y = convolve(x, conv.weight, conv.bias, padding=padding, padding_mode=padding_mode)
    assert_close(y, conv(x), factor=5)


def test_without_batch_and_with_empty_batch():
    kernel = torch.randn(4, 1, 11, 11)
    x = torch.randn(4, 16, 16)
    y = convolve(x, kernel, padding=5, groups=4)
    expected = F.conv2d(x, kernel, padding=5, groups=4)
    assert_close(y, expected, factor=5)
    empty = x.new_zeros(0, 4, 16, 16).requires_grad_()
    y = convolve(empty, kernel, padding=5, groups=4)
    assert y.shape == (0, 4, 16, 16)
    y.sum().backward()
    assert empty.grad.shape == empty.shape


SHAPES = [
    # batch, channels, size, extent, padding
    (2, 8, (32, 32), (17, 17), (8, 8)),
    (1, 5, (20, 31), (11, 11), (5, 5)),
    (3, 4, (9, 7), (17, 17), (8, 8)),
    (2, 3, (16, 16), (12, 5), (6, 2)),
    (1, 6, (25, 18), (13, 15), (0, 3)),
    (2, 1, (14, 14), (11, 11), (10, 10)),
    (1, 3, (11, 11), (11, 11), (0, 0)),
]


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('layout', ['contiguous', 'channels_last', 'strided'])
def test_cpu_depthwise_equals_torch(shape, layout):
    """Output and all gradients, against torch's own in float64."""
    batch, channels, size, extent, padding = shape
    x = torch.randn(batch, channels, *size)
    if layout == 'channels_last':
        x = x.contiguous(memory_format=torch.channels_last)
    if layout == 'strided':
        x = torch.randn(batch, channels, size[1], 2 * size[0])[..., ::2].transpose(2, 3)
    x.requires_grad_()
    kernel = torch.randn(channels, 1, *extent, requires_grad=True)
    bias = torch.randn(channels, requires_grad=True)
    inputs = [x, kernel, bias]
    y = convolve(
        x, kernel, bias, padding=padding, groups=channels, backend='cpu_depthwise'
    )
    doubles = [t.detach().double().requires_grad_() for t in inputs]
    expected = F.conv2d(*doubles, padding=padding, groups=channels)
    assert_close(y, expected, factor=5)
    seed = torch.randn_like(y)
    for grad, expected_grad in zip(
        torch.autograd.grad(y, inputs, seed),
        torch.autograd.grad(expected, doubles, seed.double()),
    ):
        assert_close(grad, expected_grad, factor=5)


def test_kernel_gradient_in_chunks(monkeypatch):
    """The gradient doesn't depend on the number of channels per FFT."""
    x, grad_y = torch.randn(2, 39, 20, 20), torch.randn(2, 39, 20, 20)
    arguments = (x, grad_y, (11, 11), (5, 5))
    whole = fft_correlation.kernel_gradient(*arguments)
    monkeypatch.setattr(fft_correlation, 'CHUNK_BYTES', 1)
    assert_close(fft_correlation.kernel_gradient(*arguments), whole)


@pytest.mark.parametrize('shape', [(2, 3, 7, 5), (1, 40, 33, 70)])
def test_copies_between_memory_formats(shape, monkeypatch):
    monkeypatch.setattr(_torch, 'BLOCK_BYTES', 50_000)
    x = torch.randn(shape).contiguous(memory_format=torch.channels_last)
    y = torch.full(shape, float('nan'))
    _torch.copy_by_rows(y, x)
    assert torch.equal(y, x)


def test_contiguous_images_in_chunks(monkeypatch):
    """The size of what is converted at a time doesn't matter, with a bias either."""
    x, bias = torch.randn(2, 39, 9, 8), torch.ones(39)
    kernel = torch.randn(39, 1, 15, 15)
    options = dict(padding=(7, 6), groups=39, backend='cpu_depthwise')
    whole = convolve(x, kernel, bias, **options)
    monkeypatch.setattr(cpu_depthwise, 'CONVERTED_BYTES', 1)
    assert_close(convolve(x, kernel, bias, **options), whole)
    assert_close(whole, convolve(x, kernel, bias, **{**options, 'backend': 'native'}))


# Each pass may take the fast way or torch's own, by extent and memory format.
@pytest.mark.parametrize(
    'extent', [(3, 3), (5, 5), (7, 7), (5, 9), (1, 17), (17, 1), (13, 15), (21, 21)]
)
@pytest.mark.parametrize('channels_last', [False, True])
def test_cpu_depthwise_of_all_extents(extent, channels_last):
    padding = tuple(size // 2 for size in extent)
    x = torch.randn(2, 5, 18, 22)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    kernel, bias = torch.randn(5, 1, *extent), torch.randn(5)
    inputs = [t.requires_grad_() for t in (x, kernel, bias)]
    options = dict(padding=padding, groups=5)
    y = convolve(*inputs, **options, backend='cpu_depthwise')
    doubles = [t.detach().double().requires_grad_() for t in inputs]
    expected = F.conv2d(*doubles, **options)
    assert_close(y, expected, factor=5)
    seed = torch.randn_like(y)
    for grad, expected_grad in zip(
        torch.autograd.grad(y, inputs, seed),
        torch.autograd.grad(expected, doubles, seed.double()),
    ):
        assert_close(grad, expected_grad, factor=5)


def test_memory_format_is_kept():
    kernel = torch.randn(4, 1, 11, 11)
    for layout in (torch.contiguous_format, torch.channels_last):
        x = torch.randn(2, 4, 12, 12).contiguous(memory_format=layout)
        y = convolve(x, kernel, padding=5, groups=4, backend='cpu_depthwise')
        assert y.is_contiguous(memory_format=layout)


def test_only_the_gradients_asked_for():
    for wanted in itertools.product([False, True], repeat=3):
        if not any(wanted):
            continue
        x, kernel, bias = (
            t.requires_grad_(w)
            for t, w in zip(
                (torch.randn(1, 3, 12, 12), torch.randn(3, 1, 11, 11), torch.randn(3)),
                wanted,
            )
        )
        y = convolve(x, kernel, bias, padding=5, groups=3, backend='cpu_depthwise')
        y.sum().backward()
        assert [t.grad is not None for t in (x, kernel, bias)] == list(wanted)


def test_autocast_stays_in_float32():
    """Only the result has another dtype, that of torch's own."""
    x = torch.randn(1, 3, 16, 16).bfloat16()
    kernel = torch.randn(3, 1, 15, 15, requires_grad=True)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        y = convolve(x, kernel, padding=7, groups=3)
    expected = F.conv2d(x.float(), kernel, padding=7, groups=3).bfloat16()
    assert y.dtype == torch.bfloat16
    assert (y == expected).float().mean() > 0.99
    assert_close(y, expected)
    y.sum().backward()
    assert kernel.grad.dtype == torch.float32


def call(x, kernel, stride=(1, 1), padding=(7, 7), groups=None):
    sides = [*zip(padding, padding)]
    return ConvolutionCall(x, kernel, None, stride, sides, groups or len(kernel))


LARGE = torch.randn(4, 1, 15, 15)
IMAGE = torch.randn(2, 4, 16, 16)


@pytest.mark.parametrize(
    ('arguments', 'reason'),
    [
        (call(IMAGE.to('meta'), LARGE.to('meta')), 'runs on a CPU.*meta'),
        (call(torch.randn(2, 4, 16), torch.randn(4, 1, 15), (1,), (7,)), '2 spatial'),
        (call(IMAGE, torch.randn(4, 4, 15, 15), groups=1), 'depthwise'),
        (call(IMAGE, LARGE, stride=(2, 1)), r'stride 1, got \(2, 1\)'),
        (call(IMAGE, LARGE, padding=(15, 7)), 'padding below the kernel size'),
        (call(IMAGE[:0], LARGE), 'empty'),
        (call(IMAGE.double(), LARGE.double()), 'float32, got torch.float64'),
    ],
)
def test_forced_backend_says_why_it_cannot_serve(arguments, reason):
    with pytest.raises(ValueError, match=f"'cpu_depthwise' cannot serve.*{reason}"):
        select_backend('cpu_depthwise', arguments)
    assert select_backend(None, arguments) is native


@pytest.mark.parametrize(
    ('extent', 'channels_last', 'learned', 'expected'),
    [
        ((15, 15), False, False, cpu_depthwise),
        ((15, 15), True, False, native),
        ((15, 15), True, True, cpu_depthwise),
        ((7, 7), False, False, native),
        ((7, 7), False, True, cpu_depthwise),
        ((5, 5), True, True, native),
        ((15, 3), False, True, native),
        ((3, 3), False, True, native),
    ],
)
def test_selection(extent, channels_last, learned, expected):
    """It is chosen where it was measured to be faster, given the gradients needed."""
    order = [direct, fft, cpu_depthwise, triton_depthwise, native]
    assert list(BACKENDS.values()) == order
    layout = torch.channels_last if channels_last else torch.contiguous_format
    kernel = torch.randn(64, 1, *extent, requires_grad=learned)
    padding = tuple(size // 2 for size in extent)
    image = torch.randn(2, 64, 32, 32).contiguous(memory_format=layout)
    chosen = call(image, kernel, padding=padding)
    assert select_backend(None, chosen) is expected
    assert select_backend('cpu_depthwise', chosen) is cpu_depthwise
    with torch.no_grad():
        wide = extent[1] >= 15 and not channels_last
        chosen_again = select_backend(None, chosen)
        assert chosen_again is (cpu_depthwise if wide else native)


def test_small_images_are_left_to_torch():
    """Whose gradient of the kernel is faster there, unless it has many columns."""
    for extent, expected in (((7, 7), native), ((7, 15), cpu_depthwise)):
        kernel = torch.randn(4, 1, *extent, requires_grad=True)
        padding = tuple(size // 2 for size in extent)
        assert select_backend(None, call(IMAGE, kernel, padding=padding)) is expected


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(x=torch.randn(2, 5, 16, 16)), 'must have 4 channels, got 5'),
        (dict(x=torch.randn(16, 16)), r'must have 4 axes.*got the shape \(16, 16\)'),
        (dict(kernel=torch.randn(4, 1)), r'1, 2 or 3 axes of extent, got \(4, 1\)'),
        (dict(groups=3), 'groups must divide the 4 output channels, got 3'),
        (dict(groups=0), 'groups must be at least 1, got 0'),
        (dict(bias=torch.randn(3)), r'bias must have the shape \(4,\), got \(3,\)'),
        (dict(stride=0), 'stride must be at least 1, got 0'),
        (dict(padding=-1), 'padding must be at least 0, got -1'),
        (dict(padding='full'), "'same' or 'valid', got 'full'"),
        (dict(padding='same', stride=2), "'same' needs stride 1"),
        (dict(padding_mode='mirror'), "one of .*'reflect'.*got 'mirror'"),
        (dict(backend='cudnn'), "backend must be one of .*'native'.*got 'cudnn'"),
    ],
)
def test_bad_arguments(change, message):
    arguments = dict(x=IMAGE, kernel=LARGE, padding=7, groups=4)
    with pytest.raises(ValueError, match=message):
        convolve(**{**arguments, **change})
