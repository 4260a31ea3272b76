"""sampled_convolution against kernel construction, the loops, and hand-worked cases."""

import itertools

import pytest
import torch
from conftest import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from dcls_mm.functional import construct_kernel, convolve, sampling
from dcls_mm.functional.reference import reference_convolution, reference_kernel
from dcls_mm.functional.sampling import sampled_convolution

# size, extent, options
CASES = [
    ((11,), (5,), dict()),
    ((11,), (4,), dict(padding='same')),
    ((9,), (1,), dict(stride=2)),
    ((9, 8), (5, 5), dict(padding=2, groups=4)),
    ((9, 8), (4, 6), dict(padding='same', groups=2)),
    ((9, 8), (4, 6), dict(padding='same', padding_mode='circular')),
    ((9, 8), (3, 4), dict(padding=(2, 1), padding_mode='reflect', groups=4)),
    ((9, 8), (3, 4), dict(padding=(1, 3), padding_mode='replicate', stride=(2, 3))),
    ((9, 8), (5, 2), dict(padding=(4, 0), stride=(3, 1), groups=2)),
    ((5, 6), (9, 11), dict(padding=(5, 6), stride=2)),
    ((5, 4, 6), (3, 4, 3), dict(padding='same')),
    ((5, 4, 6), (3, 3, 5), dict(padding=(1, 0, 2), stride=(1, 2, 3), groups=4)),
    ((5, 4, 6), (3, 3, 3), dict(padding=1, padding_mode='circular', groups=2)),
]
# One set of positions per input, per output and input, or per output.
SHARING = ['shared', 'per output', 'shared by inputs']


def make_inputs(size, extent, groups=1, sharing='shared', count=7, dtype=torch.float64):
    """Return x, weight, positions inside and outside, and bias, requiring gradients.

    The first positions along the last axis are integers and halves around the borders.
    """
    out, group_in = 8, 4 // groups
    kernels = {
        'shared': (group_in,),
        'per output': (out, group_in),
        'shared by inputs': (out, 1),
    }[sharing]
    x = torch.randn(2, 4, *size, dtype=dtype)
    weight = torch.randn(out, group_in, count, dtype=dtype)
    positions = torch.stack(
        [(torch.rand(*kernels, count, dtype=dtype) - 0.5) * (n + 2) for n in extent]
    )
    first, last = -(extent[-1] // 2), (extent[-1] - 1) // 2
    special = [first - 1, first - 0.5, first, 0, last, last + 0.5, last + 1, last + 9]
    flat = positions[-1].view(-1)
    number = min(len(special), len(flat))
    flat[:number] = torch.tensor(special[:number], dtype=dtype)
    bias = torch.randn(out, dtype=dtype)
    return [tensor.requires_grad_() for tensor in (x, weight, positions, bias)]


def construct_and_convolve(x, weight, positions, bias=None, *, kernel_size, **options):
    if positions.ndim == 3:
        positions = positions.unsqueeze(1)
    kernel = construct_kernel(
        weight, positions.expand(-1, *weight.shape), kernel_size=kernel_size
    )
    return convolve(x, kernel, bias, **options, backend='native')


def assert_equal_with_gradients(inputs, factor=1, **options):
    y = sampled_convolution(*inputs, **options)
    expected = construct_and_convolve(*inputs, **options)
    assert_close(y, expected, factor=factor)
    seed = torch.randn_like(expected)
    gradients = torch.autograd.grad(y, inputs, seed)
    for gradient, wanted in zip(gradients, torch.autograd.grad(expected, inputs, seed)):
        assert_close(gradient, wanted, factor=factor)


@pytest.mark.parametrize('sharing', SHARING)
@pytest.mark.parametrize(('size', 'extent', 'options'), CASES)
def test_equals_the_constructed_kernel(size, extent, options, sharing):
    inputs = make_inputs(size, extent, options.get('groups', 1), sharing)
    assert_equal_with_gradients(inputs, kernel_size=extent, **options)


@pytest.mark.parametrize('count', [1, 9])
@pytest.mark.parametrize('ndim', [1, 2, 3])
def test_one_element_and_more_than_taps(count, ndim):
    extent = (2,) * ndim
    inputs = make_inputs((5, 4, 6)[:ndim], extent, 2, 'per output', count)
    assert_equal_with_gradients(inputs, kernel_size=2, padding=1, groups=2)


@pytest.mark.parametrize('step_pixels', [1, 2000, 13000])
@pytest.mark.parametrize('sharing', SHARING)
def test_many_steps(sharing, step_pixels, monkeypatch):
    """Steps cover one element of an output, some of its elements, or some outputs."""
    monkeypatch.setattr(sampling, 'STEP_PIXELS', step_pixels)
    inputs = make_inputs((9, 8), (5, 4), 2, sharing)
    assert_equal_with_gradients(inputs, kernel_size=(5, 4), padding=2, groups=2)


@pytest.mark.parametrize('ndim', [1, 2, 3])
@pytest.mark.parametrize('groups', [1, 2])
@pytest.mark.parametrize(('stride', 'padding'), [(1, 1), (3, 2)])
def test_equals_the_loops(ndim, groups, stride, padding):
    size, extent = (5, 4, 3)[:ndim], (3, 2, 4)[:ndim]
    x, weight, positions, bias = make_inputs(size, extent, groups, count=3)
    with torch.no_grad():
        kernel = reference_kernel(
            weight,
            positions.unsqueeze(1).expand(-1, *weight.shape),
            kernel_size=extent,
            interpolation='bilinear',
        )
        expected = reference_convolution(
            x,
            kernel,
            bias,
            stride=(stride,) * ndim,
            padding=(padding,) * ndim,
            groups=groups,
        )
        y = sampled_convolution(
            x,
            weight,
            positions,
            bias,
            kernel_size=extent,
            stride=stride,
            padding=padding,
            groups=groups,
        )
    assert_close(y, expected)


@pytest.mark.parametrize(
    ('position', 'expected', 'slope'),
    [
        (0.0, 10.0, 90.0),
        (0.25, 32.5, 90.0),
        (1.0, 100.0, -100.0),
        (1.5, 50.0, -100.0),
        (2.0, 0.0, 0.0),
        (-1.25, 0.75, 1.0),
        (-2.0, 0.0, 1.0),
        (-2.5, 0.0, 0.0),
    ],
)
def test_by_hand(position, expected, slope):
    """At an integer, the slope is that towards the next tap; dropped taps are 0."""
    x = torch.tensor([[1.0, 10.0, 100.0]])
    place = torch.full((1, 1, 1), position, requires_grad=True)
    y = sampled_convolution(x, torch.ones(1, 1, 1), place, kernel_size=3)
    y.sum().backward()
    assert y.item() == pytest.approx(expected)
    assert place.grad.item() == pytest.approx(slope)


@pytest.mark.parametrize('sharing', ['shared', 'per output'])
@pytest.mark.parametrize(('size', 'stride'), [((5,), 1), ((4, 3), 2), ((2, 2, 3), 1)])
def test_gradients_of_first_and_second_order(size, stride, sharing, monkeypatch):
    """Positions avoid integers, where slopes jump; steps cover one element."""
    monkeypatch.setattr(sampling, 'STEP_PIXELS', 1)
    extent = (3,) * len(size)
    x, weight, positions, bias = make_inputs(size, extent, 4, sharing, count=2)
    with torch.no_grad():
        positions.copy_(positions.floor() + 0.2 + 0.6 * torch.rand_like(positions))
    inputs = [x[:1].detach().requires_grad_(), weight, positions, bias]

    def convolution(*tensors):
        return sampled_convolution(
            *tensors, kernel_size=extent, stride=stride, padding=1, groups=4
        )

    assert torch.autograd.gradcheck(convolution, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(convolution, inputs, fast_mode=True)


def test_float32():
    inputs = make_inputs((16, 17), (9, 8), 2, dtype=torch.float32)
    assert_equal_with_gradients(
        inputs, factor=20, kernel_size=(9, 8), padding=4, groups=2
    )


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype):
    halves = [t.detach().to(dtype) for t in make_inputs((9, 8), (5, 5))]
    inputs = [t.clone().requires_grad_() for t in halves]
    y = sampled_convolution(*inputs, kernel_size=5, padding=2)
    single = [t.float().requires_grad_() for t in halves]
    expected = sampled_convolution(*single, kernel_size=5, padding=2)
    assert torch.equal(y, expected.to(dtype))
    seed = torch.randn_like(y)
    for gradient, wanted in zip(
        torch.autograd.grad(y, inputs, seed),
        torch.autograd.grad(expected, single, seed.float()),
    ):
        assert torch.equal(gradient, wanted.to(dtype))


def test_autocast_changes_nothing():
    inputs = make_inputs((9, 8), (5, 5), dtype=torch.float32)
    expected = sampled_convolution(*inputs, kernel_size=5)
    wanted = torch.autograd.grad(expected.sum(), inputs)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        y = sampled_convolution(*inputs, kernel_size=5)
    gradients = torch.autograd.grad(y.sum(), inputs)
    assert y.dtype == torch.float32
    assert torch.equal(y, expected)
    assert all(map(torch.equal, gradients, wanted))


def test_half_input_with_float32_parameters():
    """This happens under autocast, after a layer in bfloat16."""
    x, *parameters = make_inputs((9, 8), (5, 5), dtype=torch.float32)
    y = sampled_convolution(x.bfloat16(), *parameters, kernel_size=5)
    expected = sampled_convolution(x.bfloat16().float(), *parameters, kernel_size=5)
    assert torch.equal(y, expected.bfloat16())


def test_memory_layout_of_the_inputs():
    inputs = make_inputs((9, 8), (5, 5), 2, 'per output')
    expected = sampled_convolution(*inputs, kernel_size=5, groups=2)
    strided = [
        t.detach().transpose(0, -1).contiguous().transpose(0, -1) for t in inputs
    ]
    assert not any(t.is_contiguous() for t in strided[:3])
    y = sampled_convolution(*strided, kernel_size=5, groups=2)
    assert torch.equal(y, expected)
    channels_last = inputs[0].to(memory_format=torch.channels_last)
    y = sampled_convolution(channels_last, *inputs[1:], kernel_size=5, groups=2)
    assert torch.equal(y, expected)


@pytest.mark.parametrize('batch', [None, 2])
def test_channels_last_images_of_three_axes(batch):
    """Without a batch, they have as many axes as a batch in 2-d."""
    x, *parameters = make_inputs((5, 4, 6), (3, 3, 3))
    images = x.detach().to(memory_format=torch.channels_last_3d)
    options = dict(kernel_size=3, padding=1)
    expected = sampled_convolution(x, *parameters, **options)
    if batch is None:
        y = sampled_convolution(images[0], *parameters, **options)
        assert torch.equal(y, expected[0])
        return
    y = sampled_convolution(images, *parameters, **options)
    assert torch.equal(y, expected)
    assert y.is_contiguous(memory_format=torch.channels_last_3d)


def test_without_batch_and_with_empty_batch():
    x, *parameters = make_inputs((9, 8), (5, 5))
    options = dict(kernel_size=5, padding=2, padding_mode='reflect')
    y = sampled_convolution(x[0], *parameters, **options)
    assert_close(y, sampled_convolution(x, *parameters, **options)[0])
    empty = x.detach()[:0].requires_grad_()
    inputs = [empty, *parameters]
    y = sampled_convolution(*inputs, kernel_size=5, padding=2)
    assert y.shape == (0, 8, 9, 8)
    gradients = torch.autograd.grad(y.sum(), inputs)
    assert [g.shape for g in gradients] == [t.shape for t in inputs]
    assert not any(g.any() for g in gradients)


@pytest.mark.parametrize('bad', [float('nan'), float('inf'), -float('inf')])
@pytest.mark.parametrize('axis', [0, 1])
def test_bad_positions_show(bad, axis):
    """Exactly the output pixels that use them are NaN."""
    x, weight, positions, bias = make_inputs((9, 8), (5, 5), 2, 'per output')
    with torch.no_grad():
        positions[1 - axis] += 20  # all taps beyond the extent
        positions[axis, 3, 1, 2] = bad
    y = sampled_convolution(x, weight, positions, bias, kernel_size=5, groups=2)
    of_channels = y.isnan().transpose(0, 1).flatten(1)
    assert of_channels[3].all()
    assert not of_channels[torch.arange(8) != 3].any()
    shared = positions[:, 3]
    assert sampled_convolution(x, weight, shared, kernel_size=5, groups=2).isnan().all()


def test_huge_positions_are_beyond_the_extent():
    x, weight, positions, _ = make_inputs((9, 8), (5, 5))
    y = sampled_convolution(x, weight, positions + 1e30, kernel_size=5)
    assert torch.equal(y, torch.zeros_like(y))


class LargestTensor(TorchDispatchMode):
    """The size of the largest tensor that an operator returns."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.numel = max(self.numel, result.numel())
        return result


@pytest.mark.parametrize('sharing', ['shared', 'per output'])
def test_memory_follows_neither_extent_nor_count(sharing, monkeypatch):
    monkeypatch.setattr(sampling, 'STEP_PIXELS', 1)
    kept, largest = {}, set()
    for extent, count in itertools.product((3, 65), (2, 20)):
        inputs = make_inputs((16, 16), (extent, extent), 4, sharing, count)
        saved = []

        def pack(tensor, saved=saved):
            saved.append(tensor)
            return tensor

        with LargestTensor() as mode:
            with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
                y = sampled_convolution(
                    *inputs, kernel_size=extent, padding=extent // 2, groups=4
                )
            storages = {
                s.data_ptr(): s for s in map(torch.Tensor.untyped_storage, saved)
            }
            kept[extent, count] = sum(s.nbytes() for s in storages.values())
            torch.autograd.grad(y.sum(), inputs)
        largest.add(mode.numel)
    assert kept[3, 2] == kept[65, 2]
    assert kept[3, 20] == kept[65, 20]
    # Weights and positions grow with count, images don't.
    assert kept[3, 20] - kept[3, 2] < y.nbytes
    assert len(largest) == 1
    assert largest.pop() <= 2 * 8 * 18**2


def test_functional_transforms():
    x, weight, positions, bias = (t.detach() for t in make_inputs((9, 8), (5, 4)))

    def loss(weight, positions, x):
        y = sampled_convolution(x, weight, positions, bias, kernel_size=(5, 4))
        return y.square().sum()

    gradients = torch.func.grad(loss, (0, 1, 2))(weight, positions, x)
    inputs = [t.clone().requires_grad_() for t in (weight, positions, x)]
    wanted = torch.autograd.grad(loss(*inputs), inputs)
    for gradient, expected in zip(gradients, wanted):
        assert_close(gradient, expected)

    stacked = torch.stack([positions, positions + 0.3, positions - 0.6])
    losses = torch.func.vmap(loss, (None, 0, None))(weight, stacked, x)
    expected = torch.stack([loss(weight, some, x) for some in stacked])
    assert_close(losses, expected)
    a_sample = torch.func.vmap(torch.func.grad(loss, 0), (None, None, 0))
    gradients = a_sample(weight, positions, x)
    expected = torch.stack(
        [torch.func.grad(loss, 0)(weight, positions, some) for some in x]
    )
    assert_close(gradients, expected)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(weight=torch.ones(6, 4)), r'weight must .*got \(6, 4\)'),
        (dict(weight=torch.ones(0, 2, 4)), r'weight must .*got \(0, 2, 4\)'),
        (dict(positions=torch.ones(2, 2, 5)), r'positions must .*\(ndim, 2, 4\)'),
        (dict(positions=torch.ones(2, 5, 2, 4)), r'must .*\(ndim, 6, 2, 4\)'),
        (dict(positions=torch.ones(4, 2, 4)), '1, 2 or 3 rows, got 4'),
        (dict(x=torch.ones(4, 9)), 'the input must have 4 axes'),
        (dict(x=torch.ones(1, 3, 9, 9)), 'the input must have 4 channels, got 3'),
        (dict(bias=torch.ones(4)), r'bias must have the shape \(6,\)'),
        (dict(kernel_size=0), 'kernel_size must be at least 1, got 0'),
        (dict(kernel_size=(5, 5, 5)), 'kernel_size must be one integer or 2'),
        (dict(stride=0), 'stride must be at least 1'),
        (dict(stride=2, padding='same'), "'same' needs stride 1"),
        (dict(padding='full'), "'same' or 'valid', got 'full'"),
        (dict(padding=-1), 'padding must be at least 0'),
        (dict(groups=4), 'groups must divide the 6 output channels, got 4'),
        (dict(padding_mode='mirror'), "one of .*'reflect'.*got 'mirror'"),
    ],
)
def test_bad_arguments(change, message):
    arguments = dict(
        x=torch.ones(1, 4, 9, 9),
        weight=torch.ones(6, 2, 4),
        positions=torch.ones(2, 2, 4),
        kernel_size=5,
        padding=1,
        groups=2,
    )
    sampled_convolution(**arguments)
    with pytest.raises(ValueError, match=message):
        sampled_convolution(**{**arguments, **change})


def test_kernel_size_must_be_an_integer():
    with pytest.raises(TypeError, match='kernel_size must be an integer, got 2.5'):
        sampled_convolution(
            torch.ones(1, 4), torch.ones(1, 1, 1), torch.ones(1, 1, 1), kernel_size=2.5
        )
