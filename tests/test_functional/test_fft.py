"""The FFT backend, against torch's own convolution."""

import pytest
import torch
import torch.nn.functional as F
from conftest import assert_close
from hypothesis import given
from hypothesis import strategies as st

from dcls_mm import layers
from dcls_mm.functional import convolve
from dcls_mm.functional.backends import ConvolutionCall, fft, select_backend
from dcls_mm.layers import dropin

CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}

CASES = [
    # size, extent, padding, stride, channels, out channels, groups
    ((40,), (33,), (16,), (1,), 4, 4, 4),
    ((40,), (33,), (32,), (1,), 4, 6, 2),
    ((64,), (64,), (0,), (1,), 3, 5, 1),
    ((7,), (15,), (14,), (2,), 2, 4, 2),
    ((16, 11), (9, 13), (4, 6), (1, 1), 6, 6, 6),
    ((16, 11), (8, 5), (7, 0), (2, 3), 4, 8, 1),
    ((6, 20), (6, 3), (0, 3), (1, 2), 4, 2, 2),
    ((6, 5, 8), (5, 5, 7), (2, 4, 3), (1, 1, 1), 3, 3, 3),
    ((6, 5, 8), (3, 5, 4), (1, 0, 2), (2, 1, 3), 2, 4, 1),
    # Padding of at least the extent.
    ((50,), (40,), (100,), (1,), 4, 4, 4),
    ((9,), (4,), (12,), (3,), 2, 4, 2),
    ((1,), (1,), (4,), (2,), 2, 2, 1),
    ((6, 20), (7, 3), (7, 9), (1, 1), 3, 3, 3),
    ((6, 5, 8), (3, 2, 4), (9, 2, 0), (2, 1, 1), 2, 4, 1),
]


@pytest.mark.parametrize('case', CASES)
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_equals_torch(case, dtype):
    """Output and all gradients are equal."""
    size, extent, padding, stride, channels, out, groups = case
    shapes = (2, channels, *size), (out, channels // groups, *extent), (out,)
    inputs = [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]
    doubles = [t.detach().double().requires_grad_() for t in inputs]
    options = dict(padding=padding, stride=stride, groups=groups)
    y = convolve(*inputs, backend='fft', **options)
    expected = CONVOLUTIONS[len(size)](*doubles, **options)
    assert_close(y, expected, dtype)
    seed = torch.randn_like(y)
    for grad, expected_grad in zip(
        torch.autograd.grad(y, inputs, seed),
        torch.autograd.grad(expected, doubles, seed.double()),
    ):
        assert_close(grad, expected_grad, dtype, factor=2)


def test_padding_over_the_extent_where_fft_is_chosen():
    """The output has its full size, and its causal crop the right values."""
    x, kernel = torch.randn(2, 4, 500), torch.randn(4, 1, 40)
    y = convolve(x, kernel, padding=100, groups=4)
    expected = F.conv1d(x, kernel, padding=100, groups=4)
    assert expected.shape == (2, 4, 661)
    assert_close(y, expected, factor=5)
    assert_close(y[..., -100:], expected[..., -100:], factor=5)


# Layers whose padding exceeds the extent and for which FFT is chosen.
PADDED = {
    '1d': (layers.DCLSConv1d, dict(dilated_kernel_size=41, padding=100), (500,)),
    '2d': (layers.DCLSConv2d, dict(dilated_kernel_size=33, padding=(70, 40)), (20, 30)),
    '3d': (
        layers.DCLSConv3d,
        dict(dilated_kernel_size=9, padding=(20, 4, 9)),
        (9,) * 3,
    ),
    'drop-in': (
        dropin.Dcls1d,
        dict(dilated_kernel_size=41, padding=100, version='gauss'),
        (500,),
    ),
}


@pytest.mark.parametrize('kind', PADDED)
def test_layers_with_padding_over_the_extent(kind):
    """Output and the gradients of all parameters are equal."""
    cls, options, size = PADDED[kind]
    layer = cls(4, 4, kernel_count=5, groups=4, **options)
    x = torch.randn(2, 4, *size, requires_grad=True)
    kernel, inputs = layer.kernel(), [x, *layer.parameters()]
    sides = layer.padding_sides(kernel)
    call = ConvolutionCall(x, kernel, layer.bias, layer.stride, sides, 4)
    assert select_backend(None, call) is fft
    expected = CONVOLUTIONS[len(size)](
        x, kernel, layer.bias, padding=layer.padding, groups=4
    )
    y = layer(x)
    assert_close(y, expected, factor=5)
    seed = torch.randn_like(y)
    for grad, expected_grad in zip(
        torch.autograd.grad(y, inputs, seed),
        torch.autograd.grad(expected, inputs, seed),
    ):
        assert_close(grad, expected_grad, factor=20)


def test_memory_format_is_kept():
    kernel = torch.randn(4, 1, 11, 11)
    for layout in (torch.contiguous_format, torch.channels_last):
        x = torch.randn(2, 4, 12, 12).contiguous(memory_format=layout)
        y = convolve(x, kernel, padding=5, groups=4, backend='fft')
        assert y.is_contiguous(memory_format=layout)
        assert_close(y, F.conv2d(x, kernel, padding=5, groups=4))
    x = torch.randn(2, 4, 6, 7, 8).contiguous(memory_format=torch.channels_last_3d)
    y = convolve(x, torch.randn(4, 1, 5, 5, 5), padding=2, groups=4, backend='fft')
    assert y.is_contiguous(memory_format=torch.channels_last_3d)


def test_autocast_stays_in_float32():
    x = torch.randn(1, 3, 64).bfloat16()
    kernel = torch.randn(3, 1, 65)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        y = convolve(x, kernel, padding=32, groups=3, backend='fft')
    assert y.dtype == torch.bfloat16
    assert_close(y, F.conv1d(x.float(), kernel, padding=32, groups=3))


def call(size, extent, groups=4, device='cpu', learned=False):
    x = torch.randn(2, 4, *size, device=device)
    kernel = torch.randn(4, 4 // groups, *extent, device=device, requires_grad=learned)
    sides, stride = [(k // 2, k // 2) for k in extent], (1,) * len(extent)
    return ConvolutionCall(x, kernel, None, stride, sides, groups)


@pytest.mark.parametrize(
    ('arguments', 'expected'),
    [
        (dict(size=(512,), extent=(101,)), True),
        (dict(size=(512,), extent=(17,)), False),
        (dict(size=(512,), extent=(101,), groups=1), False),
        (dict(size=(4096,), extent=(1025,), groups=1), True),
        (dict(size=(64, 64), extent=(17, 17)), False),
        (dict(size=(64, 64), extent=(33, 33)), True),
        (dict(size=(64, 64), extent=(33, 33), groups=1), False),
        (dict(size=(64, 64), extent=(65, 65), groups=1), True),
        (dict(size=(16, 16, 16), extent=(7, 7, 7)), False),
        (dict(size=(16, 16, 16), extent=(7, 7, 7), learned=True), True),
        (dict(size=(16, 16, 16), extent=(9, 9, 9), groups=1), False),
        (dict(size=(64, 64), extent=(33, 33), device='meta'), False),
        (dict(size=(200, 200), extent=(127, 127), device='meta'), True),
        (dict(size=(16384,), extent=(16383,), device='meta'), True),
        (dict(size=(4096,), extent=(4095,), groups=1, device='meta'), False),
        (dict(size=(16384,), extent=(16383,), groups=1, device='meta'), True),
    ],
)
def test_selection(arguments, expected):
    """It is chosen where it was measured to be faster; elsewhere, by a device's limits.

    Those of dense convolutions are the tensor cores'.
    """
    assert (select_backend(None, call(**arguments)) is fft) == expected


@given(
    size=st.lists(st.integers(1, 60), min_size=1, max_size=3),
    extent=st.lists(st.integers(1, 60), min_size=3, max_size=3),
    groups=st.sampled_from([1, 2, 4]),
)
def test_few_taps_are_ruled_out_by_a_bound(size, extent, groups):
    of = call(tuple(size), tuple(extent[: len(size)]), groups, 'meta')
    direct, by_fft = fft._operations(of)
    assert direct <= fft._most_gain(of) * by_fft


def test_says_why_it_cannot_serve():
    with pytest.raises(ValueError, match="'fft' cannot serve this call: .*empty"):
        select_backend('fft', call((0,), (5,)))
    whole = call((9,), (5,))
    half = ConvolutionCall(whole.x.half(), whole.kernel.half(), None, (1,), [(2, 2)], 4)
    with pytest.raises(ValueError, match='float32 or float64, got torch.float16'):
        select_backend('fft', half)


def test_records_a_plain_convolution():
    """Other programs and FLOP counters need one."""

    def function(x, kernel):
        return convolve(x, kernel, padding=50, groups=4, backend='fft')

    traced = torch.jit.trace(function, (torch.randn(1, 4, 99), torch.randn(4, 1, 101)))
    assert 'fft' not in str(traced.graph) and 'conv' in str(traced.graph)


def test_double_backward():
    inputs = torch.randn(2, 3, 9), torch.randn(3, 1, 7), torch.randn(3)
    inputs = [t.double().requires_grad_() for t in inputs]

    def function(*inputs):
        return convolve(*inputs, padding=3, groups=3, backend='fft')

    assert torch.autograd.gradcheck(function, inputs, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(function, inputs)
