"""DCLSConv1d/2d/3d in place of torch.nn.ConvNd, and their parameters in training."""

import copy
import pickle

import pytest
import torch
from conftest import assert_close
from torch import nn

from dcls_mm.layers import DCLSConv1d, DCLSConv2d, DCLSConv3d

LAYERS = {1: DCLSConv1d, 2: DCLSConv2d, 3: DCLSConv3d}
CONVS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


def place_on_the_grid(layer: nn.Module, conv: nn.Module) -> None:
    """Give ``layer`` the weights of ``conv``, at the positions of its taps."""
    places = [
        (torch.arange(k) - (k - 1) / 2) * d
        for k, d in zip(conv.kernel_size, conv.dilation)
    ]
    grid = torch.cartesian_prod(*places).view(-1, len(places))
    with torch.no_grad():
        layer.weight.copy_(conv.weight.flatten(2))
        layer.P.copy_(grid.T[:, None, None].expand_as(layer.P))
        if conv.bias is not None:
            layer.bias.copy_(conv.bias)


@pytest.mark.parametrize('ndim', [1, 2, 3])
@pytest.mark.parametrize(
    'arguments',
    [
        dict(kernel_size=3),
        dict(kernel_size=3, padding=1, groups=2, bias=False),
        dict(kernel_size=3, stride=2, padding=1),
        dict(kernel_size=3, dilation=2, padding=2, padding_mode='circular'),
        dict(kernel_size=1, groups=4),
        dict(kernel_size=5, padding='same'),
        dict(kernel_size=5, padding='valid', groups=4),
    ],
)
@pytest.mark.parametrize('larger', [0, 4])
def test_is_the_replaced_conv_with_elements_on_its_grid(ndim, arguments, larger):
    """Weights are as many, and the output is the same, whatever the extent."""
    conv = CONVS[ndim](4, 8, **arguments)
    span = [d * (k - 1) + 1 for k, d in zip(conv.kernel_size, conv.dilation)]
    extent = tuple(size + larger for size in span) if larger else None
    layer = LAYERS[ndim](4, 8, **arguments, dilated_kernel_size=extent)
    assert layer.weight.numel() == conv.weight.numel()
    place_on_the_grid(layer, conv)
    x = torch.randn(2, 4, *(13, 12, 11)[:ndim])
    assert_close(layer(x), conv(x), factor=5)


def test_extent_alone_defines_the_layer():
    layer = DCLSConv2d(
        4, 4, kernel_count=6, dilated_kernel_size=(9, 5), padding=(4, 2), groups=4
    )
    assert layer.weight.shape == (4, 1, 6)
    assert layer.P.shape == (2, 4, 1, 6)
    assert layer.kernel().shape == (4, 1, 9, 5)
    assert layer(torch.randn(1, 4, 12, 10)).shape == (1, 4, 12, 10)


@pytest.mark.parametrize(
    ('interpolation', 'sigma'),
    [('v0', None), ('triangle', None), ('max', 0.0), ('gauss', 0.23)],
)
def test_published_initial_values(interpolation, sigma):
    layer = DCLSConv2d(
        64, 64, 7, groups=64, dilated_kernel_size=17, interpolation=interpolation
    )
    values = layer.state_dict()
    assert values['P'].mean().abs() < 0.05
    assert values['P'].std().item() == pytest.approx(0.5, abs=0.03)
    bound = (1 / 49) ** 0.5
    assert values['weight'].abs().max() <= bound
    assert values['weight'].std().item() == pytest.approx(bound / 3**0.5, rel=0.05)
    assert values['bias'].abs().max() <= bound
    if sigma is None:
        assert set(values) == {'weight', 'P', 'bias'}
    else:
        assert values['SIG'].unique().item() == pytest.approx(sigma)


def test_clamp_positions_to_the_extent():
    layer = DCLSConv2d(1, 1, kernel_count=2, dilated_kernel_size=(5, 8))
    with torch.no_grad():
        layer.P.copy_(torch.tensor([[-9.0, 9.0], [-9.0, 9.0]]).view_as(layer.P))
    layer.clamp_positions()
    assert layer.P.flatten().tolist() == [-2, 2, -4, 3]


def test_shared_positions_are_one_parameter():
    layers = [
        DCLSConv2d(3, 3, 3, groups=3, dilated_kernel_size=7, interpolation='gauss')
        for _ in range(2)
    ]
    layers[1].share_positions(layers[0])
    names = [name for name, _ in nn.ModuleList(layers).named_parameters()]
    assert names == ['0.weight', '0.P', '0.SIG', '0.bias', '1.weight', '1.bias']
    for other in (
        DCLSConv2d(3, 3, 3, groups=3, dilated_kernel_size=7),
        DCLSConv2d(3, 3, 3, groups=3, interpolation='gauss'),
        DCLSConv2d(3, 3, 5, groups=3, dilated_kernel_size=7, interpolation='gauss'),
    ):
        with pytest.raises(ValueError, match='share positions must have'):
            other.share_positions(layers[0])


@pytest.mark.parametrize('shared', [True, False])
@pytest.mark.parametrize('device', ['cpu', 'meta'])
def test_assigning_a_state_dict_keeps_what_is_shared(shared, device):
    """Nothing else becomes shared, although state_dicts alias shared positions."""
    layers = []
    for place in ('cpu', device):
        pair = nn.ModuleList(
            DCLSConv2d(3, 3, 3, interpolation='max', device=place) for _ in range(2)
        )
        if shared or not layers:
            pair[1].share_positions(pair[0])
        layers.append(pair)
    source, pair = layers
    state_dict = source.state_dict()
    for _ in range(2):
        pair.load_state_dict(state_dict, assign=True)
        for name in ('P', 'SIG'):
            first, second = (getattr(layer, name) for layer in pair)
            assert (first is second) == shared
            with torch.no_grad():
                first.add_(1)
            assert_close(second - int(shared), source[0].state_dict()[name], factor=5)


class CountingConv2d(DCLSConv2d):
    """A layer that counts how often its kernel is constructed."""

    constructions = 0

    def kernel(self):
        self.constructions += 1
        return super().kernel()


def test_kernel_is_kept_in_evaluation_until_a_parameter_changes():
    layer = CountingConv2d(3, 3, 3, groups=3, dilated_kernel_size=5).eval()
    x = torch.randn(1, 3, 8, 8)
    changes = {
        'nothing': lambda: None,
        'in place': lambda: layer.P.add_(0.3),
        'a new parameter': lambda: setattr(
            layer, 'weight', nn.Parameter(torch.randn_like(layer.weight))
        ),
        'a state_dict': lambda: layer.load_state_dict(
            DCLSConv2d(3, 3, 3, groups=3, dilated_kernel_size=5).state_dict()
        ),
        'data, then eval': lambda: (layer.weight.data.mul_(2), layer.eval()),
        'a dtype': lambda: layer.float().double().float(),
    }
    with torch.no_grad():
        for made, (what, change) in enumerate(changes.items(), start=1):
            change()
            assert_close(layer(x), fresh(layer)(x))
            layer(x)
            assert layer.constructions == made, what
    layer(x)
    assert layer.constructions == len(changes) + 1, 'made anew while gradients are on'
    layer.train()
    with torch.no_grad():
        layer(x)
        layer(x)
    assert layer.constructions == len(changes) + 3, 'made anew in training'


def fresh(layer):
    """Return a layer with the same parameters that has not kept anything yet."""
    other = DCLSConv2d(3, 3, 3, groups=3, dilated_kernel_size=5)
    other.load_state_dict(layer.state_dict())
    return other


def test_kept_kernel_is_not_copied_or_saved():
    layer = DCLSConv2d(3, 3, 3, groups=3, dilated_kernel_size=5).eval()
    x = torch.randn(1, 3, 8, 8)
    with torch.inference_mode():
        y = layer(x)
    copies = copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))
    for other in copies:
        with torch.no_grad():
            assert_close(other(x), y)
            other.P.add_(1)
            assert not torch.equal(other(x), y)
    assert set(layer.state_dict()) == {'weight', 'P', 'bias'}


def test_positions_learn_where_a_tap_is():
    """A single element finds the shift that made the target."""
    torch.manual_seed(1)
    x = torch.randn(4, 1, 32, 32)
    x = nn.functional.avg_pool2d(x, 7, 1, 3)
    target = torch.roll(x, (2, -1), (2, 3))
    layer = DCLSConv2d(
        1, 1, kernel_count=1, dilated_kernel_size=9, padding=4, bias=False
    )
    with torch.no_grad():
        layer.weight.fill_(1)
        layer.P.fill_(0.1)
    optimizer = torch.optim.Adam([layer.P], lr=0.1)
    for _ in range(100):
        optimizer.zero_grad()
        error = (layer(x) - target)[..., 8:-8, 8:-8].square().mean()
        error.backward()
        optimizer.step()
    assert layer.P.flatten().tolist() == pytest.approx([-2, 1], abs=0.05)


def test_autocast_constructs_in_float32():
    layer = DCLSConv2d(8, 8, 3, padding=1, dilated_kernel_size=5)
    x = torch.randn(1, 8, 10, 10)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert layer.kernel().dtype == torch.float32
        assert_close(layer(x), layer.float()(x).float(), torch.bfloat16)


@pytest.mark.parametrize(
    ('change', 'error', 'message'),
    [
        (dict(in_channels=0), ValueError, 'in_channels must be at least 1, got 0'),
        (dict(out_channels=-3), ValueError, 'out_channels must be at least 1'),
        (dict(out_channels=4.0), TypeError, 'out_channels must be an integer, got 4.0'),
        (dict(groups=3), ValueError, r'groups must divide in_channels \(4\).*groups=3'),
        (dict(groups=0), ValueError, 'groups must be at least 1'),
        (dict(kernel_size=0), ValueError, 'kernel_size must be at least 1'),
        (dict(kernel_size=(3, 3, 3)), ValueError, 'one integer or 2 of them'),
        (dict(stride=0), ValueError, 'stride must be at least 1'),
        (dict(dilation=0), ValueError, 'dilation must be at least 1'),
        (dict(padding=-1), ValueError, 'padding must be at least 0'),
        (dict(padding='half'), ValueError, "'same' or 'valid', got 'half'"),
        (dict(padding='same', stride=2), ValueError, "'same' needs stride 1"),
        (dict(kernel_count=0), ValueError, 'kernel_count must be at least 1'),
        (dict(kernel_count=3.5), TypeError, 'kernel_count must be an integer'),
        (dict(dilated_kernel_size=6), ValueError, 'odd number.*change it by one'),
        (dict(dilated_kernel_size=-1), ValueError, 'dilated_kernel_size must be'),
        (dict(dilated_kernel_size=1), ValueError, 'padding 0 is too small'),
        (dict(interpolation='cubic'), ValueError, "one of .*'triangle'.*got 'cubic'"),
        (dict(padding_mode='mirror'), ValueError, "one of .*'circular'.*'mirror'"),
        (dict(backend='fast'), ValueError, "one of .*'native'.*got 'fast'"),
        (dict(kernel_size=None), ValueError, 'kernel_count and dilated_kernel_size'),
    ],
)
def test_bad_arguments(change, error, message):
    with pytest.raises(error, match=message):
        DCLSConv2d(**{**dict(in_channels=4, out_channels=4, kernel_size=3), **change})


def test_a_forced_backend_serves_or_says_why_not():
    x = torch.randn(1, 4, 16, 16)
    layers = {
        backend: DCLSConv2d(4, 4, 11, padding=5, groups=4, backend=backend)
        for backend in ('native', 'cpu_depthwise')
    }
    layers['native'].load_state_dict(layers['cpu_depthwise'].state_dict())
    assert_close(layers['cpu_depthwise'](x), layers['native'](x), factor=5)
    with pytest.raises(ValueError, match="'cpu_depthwise' cannot serve.*depthwise"):
        DCLSConv2d(4, 4, 11, padding=5, backend='cpu_depthwise')(x)


def test_bad_input():
    layer = DCLSConv2d(4, 4, 3)
    with pytest.raises(ValueError, match='must have 4 channels.*got 3'):
        layer(torch.randn(1, 3, 8, 8))
    with pytest.raises(ValueError, match='must have 4 axes'):
        layer(torch.randn(8, 8))


def test_repr_says_what_it_is():
    text = repr(DCLSConv2d(4, 4, 3, groups=2, dilated_kernel_size=9, padding=1))
    assert text == (
        'DCLSConv2d(4, 4, kernel_size=(3, 3), stride=(1, 1), padding=(4, 4), groups=2, '
        "kernel_count=9, dilated_kernel_size=(9, 9), interpolation='bilinear')"
    )
