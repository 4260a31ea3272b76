"""FlexConv layers: the paper's formulas, cropping, resolution, causality, errors."""

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from conftest import assert_close
from flex_paper import paper_kernel
from mmcv.cnn import build_conv_layer
from torch import nn

import dcls_mm  # noqa: F401
from dcls_mm.conversion import without_extent
from dcls_mm.layers import FlexConv1d, FlexConv2d
from dcls_mm.layers.flexconv.kernel_nets import KERNEL_NETS
from dcls_mm.layers.folding import fold

NETS = {
    'magnet': 'magnet',
    'rotated': dict(type='magnet', hidden_channels=5, num_layers=2, rotated=True),
    'siren': dict(type='siren', hidden_channels=6, num_layers=3, omega_0=12.0),
    'mlp': dict(type='mlp', hidden_channels=7),
}


def flex2d(channels=3, extent=9, dtype=torch.float64, **options):
    options = {'groups': channels, 'padding': extent // 2, **options}
    return FlexConv2d(channels, channels, extent, dtype=dtype, **options)


@torch.no_grad()
def perturb(layer):
    """Move away from initial values, including a mask that is off the centre."""
    for parameter in layer.parameters():
        parameter.add_(0.1 * torch.rand_like(parameter))
    return layer


@pytest.mark.parametrize('net', NETS.values(), ids=NETS)
@pytest.mark.parametrize('mask_width', [0.3, None])
@pytest.mark.parametrize('groups', [1, 2, 4])
def test_kernel_of_the_formulas_in_2d(net, mask_width, groups):
    layer = FlexConv2d(
        4,
        8,
        (5, 7),
        groups=groups,
        dtype=torch.float64,
        kernel_net=net,
        mask_width=mask_width,
        crop_threshold=None,
    )
    assert_close(perturb(layer).kernel(), paper_kernel(layer))


@pytest.mark.parametrize('net', ['magnet', 'siren', 'mlp'])
@pytest.mark.parametrize('padding', [0, 'causal'])
def test_kernel_of_the_formulas_in_1d(net, padding):
    options = dict(kernel_net=net, mask_width=0.4, crop_threshold=None)
    layer = FlexConv1d(2, 4, 9, 1, padding, dtype=torch.float64, **options)
    assert_close(perturb(layer).kernel(), paper_kernel(layer))


@pytest.mark.parametrize('net', NETS.values(), ids=NETS)
def test_gradcheck(net):
    layer = perturb(flex2d(2, 5, kernel_net=net, mask_width=0.7))
    x = torch.randn(1, 2, 6, 5, dtype=torch.float64, requires_grad=True)
    names = list(dict(layer.named_parameters()))

    def function(x, *parameters):
        return torch.func.functional_call(layer, dict(zip(names, parameters)), x)

    inputs = x, *layer.parameters()
    assert torch.autograd.gradcheck(function, inputs, fast_mode=True)
    # In torch.func's transforms, taps are set to zero instead of cropped.
    assert torch.autograd.gradcheck(
        function, inputs, fast_mode=True, check_forward_ad=True
    )


def uncropped(layer):
    threshold, layer.crop_threshold = layer.crop_threshold, None
    try:
        return layer.kernel()
    finally:
        layer.crop_threshold = threshold


@pytest.mark.parametrize('threshold', [0.1, 0.01])
@pytest.mark.parametrize('net', KERNEL_NETS)
@pytest.mark.parametrize('mean', [0.0, -0.15])
def test_cropping(threshold, net, mean):
    """Kept taps are exact; others are at most the threshold times the network."""
    layer = flex2d(4, 33, kernel_net=net, mask_width=0.2, crop_threshold=threshold)
    with torch.no_grad():
        layer.mask_mean[1] = mean
    cropped, whole = layer.kernel(), uncropped(layer)
    rows, columns = cropped.shape[2:]
    assert rows < 33 and rows % 2 and columns % 2
    assert (columns > rows) == (mean != 0), 'the other side is kept too'
    before = [(33 - taps) // 2 for taps in (rows, columns)]
    pad = [before[1], before[1], before[0], before[0]]
    widened = F.pad(cropped, pad)
    inside = F.pad(torch.ones_like(cropped), pad).bool()
    assert_close(cropped.flatten(), whole[inside])
    mask, layer.mask_width = layer.mask_width, None
    values = uncropped(layer)
    layer.mask_width = mask
    assert ((widened - whole).abs() <= threshold * values.abs()).all()
    # The next taps outwards are below the threshold, except on the other side.
    outermost = (whole / values)[
        :, :, 16, 16 - columns // 2 - 1 : 16 + columns // 2 + 2
    ]
    assert (outermost[..., [0, -1]] < threshold).all()
    assert (outermost[..., [1, -2]].amax(-1) >= threshold).all()


@pytest.mark.parametrize('padding_mode', ['zeros', 'reflect'])
@pytest.mark.parametrize('padding', [8, 7, 2, 0, 'same', 'valid'])
@pytest.mark.parametrize('groups', [1, 4])
def test_a_cropped_kernel_convolves_as_the_whole(padding_mode, padding, groups):
    """This holds for any padding, even below what is cropped, and when folded."""
    stride = 1 if padding == 'same' else 2
    layer = FlexConv2d(
        4,
        8,
        17,
        stride,
        padding,
        groups=groups,
        padding_mode=padding_mode,
        mask_width=0.2,
        dtype=torch.float64,
    )
    kernel = layer.kernel()
    assert kernel.shape[2:] == (7, 7)
    conv = nn.Conv2d(
        4,
        8,
        17,
        stride,
        padding,
        groups=groups,
        padding_mode=padding_mode,
        dtype=torch.float64,
    )
    with torch.no_grad():
        conv.weight.copy_(F.pad(kernel, [5, 5, 5, 5]))
        conv.bias.copy_(layer.bias)
    x = torch.randn(2, 4, 20, 23, dtype=torch.float64)
    assert_close(layer(x), conv(x))
    folded = fold(layer)
    assert type(folded) is nn.Conv2d
    assert_close(folded(x), conv(x))


@pytest.mark.parametrize('net', KERNEL_NETS)
@pytest.mark.parametrize('options', [dict(), dict(groups=1), dict(mask_width=None)])
def test_initial_outputs_have_the_variance_of_the_inputs(net, options):
    layer = flex2d(32, 17, torch.float32, kernel_net=net, **options)
    y = layer(torch.randn(8, 32, 48, 48))[..., 8:-8, 8:-8]
    assert y.var().item() == pytest.approx(1, rel=0.03)
    assert layer.kernel().square().sum().item() == pytest.approx(32, rel=1e-5)


@pytest.mark.parametrize('seed', range(8))
def test_initial_values_of_a_network_that_is_off_are_finite(seed):
    """With one unit and one tap, half of the seeds have no slope to scale by."""
    torch.manual_seed(seed)
    net = dict(type='mlp', hidden_channels=1)
    assert torch.isfinite(FlexConv1d(1, 1, 1, kernel_net=net).kernel()).all()


def test_a_mask_that_is_not_learned():
    layer = flex2d(learn_mask=False)
    layer(torch.randn(1, 3, 9, 9, dtype=torch.float64)).sum().backward()
    assert layer.mask_width.grad is None and layer.net.output.weight.grad is not None


@pytest.mark.parametrize('padding', ['causal', 8])
def test_resolution(padding):
    """A finer grid has the same values at the same places, divided by its density."""
    options = dict(mask_width=0.3, dtype=torch.float64)
    layer = FlexConv1d(2, 2, 17, 1, padding, **options)
    kernel, extent = uncropped(layer), layer.extent
    layer.set_resolution(2.0)
    assert layer.extent == (33,)
    assert layer.padding == ('causal' if padding == 'causal' else (16,))
    assert_close(2 * uncropped(layer)[..., ::2], kernel)
    finer = layer.kernel().shape[-1]
    layer.set_resolution(0.5)
    assert_close(uncropped(layer) / 2, kernel[..., ::2])
    layer.set_resolution(1.0)
    assert layer.extent == extent and torch.equal(uncropped(layer), kernel)
    assert 2 * (layer.kernel().shape[-1] - 1) <= finer - 1 < 33 - 1


def test_resolution_of_a_smooth_picture():
    """An input sampled twice as finely gives about the same output there."""
    layer = flex2d(1, 33, kernel_net=dict(type='magnet', input_scale=2.0))
    with torch.no_grad():
        layer.mask_width.fill_(0.3)

    def picture(size):
        x = torch.linspace(-3, 3, size, dtype=torch.float64)
        return torch.outer((1.3 * x).sin(), (0.7 * x).cos()).view(1, 1, size, size)

    coarse = layer(picture(129))
    finer = flex2d(1, 33, kernel_net=dict(type='magnet', input_scale=2.0), resolution=2)
    finer.load_state_dict(layer.state_dict())
    fine = finer(picture(257))
    error = (fine[..., ::2, ::2] - coarse)[..., 32:-32, 32:-32].abs().max()
    assert error < 0.05 * coarse.abs().max()


def test_causal():
    layer = FlexConv1d(2, 4, None, 1, 'causal', dilated_kernel_size=64, mask_width=0.2)
    assert layer.mask_mean.tolist() == [1.0]
    x = torch.randn(2, 2, 100)
    changed = x.clone()
    changed[..., 60:] += 1
    y, other = layer(x), layer(changed)
    assert y.shape == (2, 4, 100)
    assert torch.equal(y[..., :60], other[..., :60])
    assert not torch.equal(y[..., 60], other[..., 60])
    taps = layer.kernel().shape[-1]
    assert taps < 32
    expected = F.conv1d(F.pad(x, (taps - 1, 0)), layer.kernel(), layer.bias)
    assert_close(y, expected, factor=5)
    folded = fold(layer)
    assert [type(m) for m in folded] == [nn.ConstantPad1d, nn.Conv1d]
    assert_close(folded(x), y)


LONG_SEQUENCE = """
import resource, sys, torch
from dcls_mm.layers import FlexConv1d
torch.manual_seed(0)
torch.set_num_threads(1)
size = int(sys.argv[1])
layer = FlexConv1d(8, 8, None, 1, 'causal', dilated_kernel_size='same',
                   input_size=size, mask_width=None)
x = torch.randn(2, 8, size, requires_grad=True)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
y = layer(x)
y.square().mean().backward()
assert y.shape == x.shape and torch.isfinite(x.grad).all()
short = (layer.kernel()[0, :, -1000:] * x[0, :, :1000]).sum()
assert torch.allclose(y[0, 0, 999], short, atol=1e-4), (y[0, 0, 999], short)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def test_a_long_sequence_in_bounded_memory():
    """16384 steps with an equally long kernel, forward and backward, take megabytes."""
    command = [sys.executable, '-W', 'ignore', '-c', LONG_SEQUENCE, '16384']
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    # Unfolding the input would take 2 * 8 * 16384 * 16384 * 4 bytes, 17 GB.
    assert float(done.stdout) < 400


def test_compiled_as_one_graph():
    torch._dynamo.reset()
    layer = perturb(flex2d(dtype=torch.float32, mask_width=0.3))
    x = torch.randn(2, 3, 12, 12)
    compiled = torch.compile(layer, fullgraph=True, backend='aot_eager')
    assert layer.kernel().shape[2] < 9
    assert_close(compiled(x), layer(x), factor=5)
    grads = [
        torch.autograd.grad(run(x).square().sum(), list(layer.parameters()))
        for run in (compiled, layer)
    ]
    for grad, expected in zip(*grads):
        assert_close(grad, expected, factor=50)
    program = torch.export.export(layer.eval(), (x,))
    assert_close(program.module()(x), layer(x), factor=5)


def test_kept_in_evaluation_until_it_changes():
    layer, x = flex2d(dtype=torch.float32).eval(), torch.randn(1, 3, 12, 12)
    with torch.no_grad():
        before = layer(x)
        assert torch.equal(layer(x), before)
        layer.mask_width.mul_(3)
        assert not torch.equal(layer(x), before)
        changed = layer(x)
        layer.set_resolution(2)
        assert not torch.equal(layer(x), changed)


def test_under_autocast_and_in_half_precision():
    layer, x = flex2d(dtype=torch.float32), torch.randn(1, 3, 12, 12)
    expected = layer(x)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert layer.kernel().dtype == torch.float32
        assert_close(layer(x).float(), expected, torch.bfloat16)
    kernel = layer.kernel()
    assert_close(layer.bfloat16().kernel(), kernel, torch.bfloat16, factor=10)


def test_mask_far_out_of_bounds():
    """Nothing crashes if the mask leaves the extent, vanishes or becomes NaN."""
    layer, x = flex2d(), torch.randn(1, 3, 12, 12, dtype=torch.float64)
    for mean, width in ((5.0, 0.1), (0.0, 1e-9), (0.0, -0.2), (0.0, 50.0)):
        with torch.no_grad():
            layer.mask_mean.fill_(mean)
            layer.mask_width.fill_(width)
        assert torch.isfinite(layer(x)).all()
    assert layer.kernel().shape[2:] == (9, 9)
    with torch.no_grad():
        layer.mask_width.fill_(float('nan'))
    assert layer.kernel().isnan().all()


def test_is_registered_and_takes_the_place_of_a_conv():
    cfg = dict(type='FlexConv2d', dilated_kernel_size=9, kernel_net='siren')
    layer = build_conv_layer(cfg, 4, 8, 3, stride=2, padding=1, bias=False)
    assert isinstance(layer, FlexConv2d) and layer.bias is None
    assert layer.extent == (9, 9) and layer.padding == (4, 4)
    assert layer(torch.randn(1, 4, 15, 15)).shape == (1, 8, 8, 8)
    assert isinstance(build_conv_layer(dict(type='FlexConv1d'), 4, 4, 5), FlexConv1d)


def test_extents_by_the_size_of_the_input():
    full = flex2d(1, 3, dilated_kernel_size='full', input_size=14, padding=1)
    assert full.extent == (27, 27) and full.padding == (13, 13)
    same = flex2d(1, 3, dilated_kernel_size='same', input_size=15, padding=1)
    assert same.extent == (15, 15)


def test_initialisers_by_class_leave_the_networks_alone():
    """mmengine's init_cfg for 'Conv2d' or 'Linear' would overwrite them."""
    layer = flex2d()
    assert not any(isinstance(m, (nn.Linear, nn.Conv2d)) for m in layer.modules())


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(mask_width=0), 'mask_width must be one positive number or 2.*got 0'),
        (dict(mask_width=-0.1), 'mask_width must be .*got -0.1'),
        (dict(mask_width=(0.1, 0.2, 0.3)), 'mask_width must be .* or 2 of them'),
        (dict(mask_width=None, learn_mask=False), 'learn_mask must be left out where'),
        (dict(crop_threshold=0.0), r'crop_threshold must be in \(0, 1\).*got 0.0'),
        (dict(crop_every=0), 'crop_every must be at least 1, got 0'),
        (dict(crop_threshold=1.0), r'crop_threshold must be in \(0, 1\).*got 1.0'),
        (dict(extent=8), r'dilated_kernel_size .*must be odd.*got \(8, 8\)'),
        (dict(dilated_kernel_size='same', input_size=14), 'must be odd'),
        (dict(dilated_kernel_size='full'), "'full' needs input_size"),
        (dict(dilated_kernel_size='half'), "one of .*'full', 'same'.*got 'half'"),
        (dict(input_size=9), "input_size is for dilated_kernel_size 'full' or 'same'"),
        (dict(kernel_net='cnn'), "kernel_net must name one of .*'magnet'.*got 'cnn'"),
        (dict(kernel_net=dict(type='magnet', num_layers=0)), 'num_layers must be at l'),
        (dict(kernel_net=dict(type='siren', num_layers=0)), 'num_layers must be at le'),
        (dict(kernel_net=dict(type='mlp', hidden_channels=0)), 'hidden_channels must'),
        (dict(kernel_net=dict(type='siren', omega_0=0.0)), 'omega_0 must be positive'),
        (dict(kernel_net=dict(type='magnet', input_scale=0)), 'input_scale must be po'),
        (dict(kernel_net=dict(type='mlp', axes=2)), r"must leave out \['axes'\]"),
        (dict(padding='causal'), "padding 'causal' needs 1 axis"),
        (dict(padding='middle'), "'same' or 'valid', got 'middle'"),
        (dict(resolution=0), 'resolution must be a positive number, got 0'),
        (dict(resolution=0.5, padding=0), 'too small for the padding'),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        flex2d(**options)


def test_more_bad_arguments():
    with pytest.raises(ValueError, match='rotated needs 2 axes to turn, the layer has'):
        FlexConv1d(1, 1, 5, kernel_net=dict(type='magnet', rotated=True))
    with pytest.raises(TypeError, match='kernel_net .*unexpected keyword.*omega'):
        flex2d(kernel_net=dict(type='magnet', omega=1.0))
    with pytest.raises(ValueError, match='kernel_size may be left out only'):
        FlexConv2d(1, 1)
    with pytest.raises(ValueError, match="take dilated_kernel_size 'same'"):
        options = dict(dilated_kernel_size='full', input_size=9)
        FlexConv1d(1, 1, None, 1, 'causal', **options)


def test_a_kernel_of_another_extent_is_another_kernel():
    """The network's coordinates stretch over the extent, but not over a finer grid."""
    options = dict(kernel_size=3, padding='same')
    state_dict = FlexConv1d(2, 2, dilated_kernel_size=9, **options).state_dict()
    FlexConv1d(2, 2, dilated_kernel_size=9, resolution=2, **options).load_state_dict(
        state_dict
    )
    other = FlexConv1d(2, 2, dilated_kernel_size=11, **options)
    with pytest.raises(RuntimeError, match=r'extent \(9,\), this one has \(11,\)'):
        other.load_state_dict(state_dict)
    other.load_state_dict(without_extent(state_dict))
    causal = FlexConv1d(2, 2, dilated_kernel_size=9, padding='causal')
    with pytest.raises(RuntimeError, match="without padding 'causal', this one"):
        causal.load_state_dict(state_dict)
