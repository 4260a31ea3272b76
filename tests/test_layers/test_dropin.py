"""The drop-in layers against the published ones: equal, or different for a reason."""

import inspect
import math

import pytest
import torch
from conftest import assert_close
from torch import nn

from dcls_mm.functional.reference import reference_kernel
from dcls_mm.layers import DCLSConv2d, dropin

published = pytest.importorskip('DCLS.construct.modules')

VERSIONS = ['v0', 'v1', 'max', 'gauss']

# Class, version (all if omitted), arguments, size of the input.
CASES = [
    ('Dcls1d', None, dict(dilated_kernel_size=7, padding=3, groups=2), (12,)),
    ('Dcls1d', None, dict(dilated_kernel_size=(6,), stride=2, bias=False), (13,)),
    ('Dcls2d', None, dict(dilated_kernel_size=7, padding=(3, 2), groups=2), (9, 8)),
    ('Dcls2d', None, dict(dilated_kernel_size=6, stride=(2, 1), padding=1), (9, 8)),
    (
        'Dcls2d',
        None,
        dict(dilated_kernel_size=(4, 5), padding=2, padding_mode='circular'),
        (7, 6),
    ),
    ('Dcls2d', 'v0', dict(dilated_kernel_size=(3, 8), use_implicit_gemm=False), (9, 9)),
    ('Dcls3d', None, dict(dilated_kernel_size=5, padding=2, groups=2), (5, 6, 4)),
    ('Dcls3d', None, dict(dilated_kernel_size=(4, 5, 4), stride=2), (6, 7, 8)),
    *(
        (
            'Dcls3_1d',
            version,
            dict(dense_kernel_size=(2, 3), dilated_kernel_size=6, groups=2),
            (4, 5, 8),
        )
        for version in ('v1', 'max', 'gauss')
    ),
    ('Dcls2dK1d', None, dict(dilated_kernel_size=7, padding=(3, 0)), (6, 5)),
    ('Dcls2dK1d', None, dict(dilated_kernel_size=(6,), flat_dim=1, groups=2), (5, 9)),
]
CASES = [
    (name, version, arguments, size)
    for name, only, arguments, size in CASES
    for version in ([only] if only else VERSIONS)
]


def spread(layer: nn.Module) -> nn.Module:
    """Set positions inside and beyond the border, and sigmas of either sign."""
    nn.init.uniform_(layer.P, -4, 4)
    if layer.SIG is not None:
        nn.init.normal_(layer.SIG)
    return layer


@pytest.mark.parametrize(('name', 'version', 'arguments', 'size'), CASES)
def test_equals_the_published_layer(name, version, arguments, size):
    """state_dicts load in either direction; output and all gradients are equal."""
    theirs = getattr(published, name)(4, 6, 3, version=version, **arguments)
    ours = getattr(dropin, name)(4, 6, 3, version=version, **arguments)
    spread(theirs)
    ours.load_state_dict(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    ours, theirs = ours.double(), theirs.double()

    x = torch.randn(2, 4, *size, dtype=torch.float64)
    results = []
    for layer in (ours, theirs):
        leaf = x.clone().requires_grad_()
        y = layer(leaf)
        torch.manual_seed(1)
        y.backward(torch.randn_like(y))
        results.append({'y': y, 'x': leaf.grad})
        results[-1].update((key, p.grad) for key, p in layer.named_parameters())
    assert list(results[0]) == list(results[1])
    for key, expected in results[1].items():
        assert_close(results[0][key], expected)


def test_on_the_fast_backend():
    arguments = dict(dilated_kernel_size=17, padding=8, groups=8)
    theirs = spread(published.Dcls2d(8, 8, 5, **arguments))
    x = torch.randn(1, 8, 20, 24)
    for forced in (True, False):
        ours = dropin.Dcls2d(8, 8, 5, **arguments, use_implicit_gemm=forced)
        ours.load_state_dict(theirs.state_dict())
        assert ours.backend == (None if forced else 'native')
        assert_close(ours(x), theirs(x), factor=5)


@pytest.mark.parametrize(
    'name',
    [name for name in dropin.__all__ if name[0] != '_' and hasattr(published, name)],
)
def test_published_signature(name):
    """Names, order and defaults are equal; added arguments are keyword-only."""
    theirs, ours = (
        [
            (argument.name, argument.default)
            for argument in inspect.signature(getattr(module, name)).parameters.values()
            if argument.kind is argument.POSITIONAL_OR_KEYWORD
        ]
        for module in (published, dropin)
    )
    assert ours == theirs


def test_arguments_by_position():
    """The last ones are those outside the common signature."""
    common = 4, 4, 3, 1, 0
    rest = 1, True, 'zeros', 'v1'
    assert dropin.Dcls2d(*common, 5, *rest, False).backend == 'native'
    assert dropin.Dcls2dK1d(*common, 5, *rest, 1).extent == (1, 5)
    assert dropin.Dcls3_1d(*common, (2, 3), 5, *rest).extent == (2, 3, 5)
    with pytest.raises(TypeError, match='Dcls2d.* too many positional arguments'):
        dropin.Dcls2d(*common, 5, *rest, False, None)


@pytest.mark.parametrize('version', VERSIONS)
@pytest.mark.parametrize(('name', 'dense'), [('Dcls2_1d', (3,)), ('Dcls3_1d', (2, 3))])
def test_dense_taps_have_elements_of_their_own(name, dense, version):
    """This includes what the published package lacks: Dcls2_1d, and 'v0' of both."""
    layer = getattr(dropin, name)(
        4, 2, 3, 1, 0, dense, 6, 2, True, 'zeros', version
    ).double()
    assert layer.weight.shape == (2, 2, *dense, 3)
    assert layer.P.shape == (1, 2, 2, *dense, 3)
    assert layer.dense_kernel_size == dense
    assert layer.dilated_kernel_size == (6,)
    spread(layer)
    kernel = layer.kernel()
    assert kernel.shape == (2, 2, *dense, 6)
    for tap in torch.cartesian_prod(*map(torch.arange, dense)).view(-1, len(dense)):
        at = (slice(None), slice(None), *tap.tolist())
        rows = [
            None if p is None else p[(slice(None), *at)] for p in (layer.P, layer.SIG)
        ]
        expected = reference_kernel(
            layer.weight[at], *rows, kernel_size=(6,), interpolation=version
        )
        assert_close(kernel[at], expected)


def test_gauss_width_of_one_learned_axis():
    """0.27 + |SIG|, worked by hand; the published Dcls2_1d has 1.0 + |SIG|."""
    layer = dropin.Dcls2_1d(1, 1, 1, dilated_kernel_size=5)
    nn.init.ones_(layer.weight)
    nn.init.zeros_(layer.P)
    nn.init.constant_(layer.SIG, -0.23)
    kernels = []
    for width in (0.27 + 0.23, 1.0 + 0.23):
        taps = [math.exp(-((i / width) ** 2) / 2) for i in (-2, -1, 0, 1, 2)]
        kernels.append(torch.tensor(taps)[None, None, None] / sum(taps))
    ours, theirs = kernels
    assert_close(layer.kernel(), ours, factor=5)
    assert layer.kernel().max() > 1.5 * theirs.max()


def test_published_initial_values():
    for name in ('Dcls1d', 'Dcls2d', 'Dcls2dK1d', 'Dcls3_1d'):
        arguments = dict(kernel_count=9, dilated_kernel_size=17, version='gauss')
        torch.manual_seed(0)
        theirs = getattr(published, name)(32, 32, **arguments).state_dict()
        torch.manual_seed(0)
        ours = getattr(dropin, name)(32, 32, **arguments).state_dict()
        assert torch.equal(ours['weight'], theirs['weight'])
        assert torch.equal(ours['bias'], theirs['bias'])
        assert torch.equal(ours['SIG'], theirs['SIG'])
        assert ours['P'].std().item() == pytest.approx(
            theirs['P'].std().item(), rel=0.02
        )
        assert ours['P'].abs().max().item() == pytest.approx(
            theirs['P'].abs().max().item(), rel=0.2
        )


@pytest.mark.parametrize('version', ['v1', 'max', 'gauss'])
def test_rectangles_have_their_own_centre(version):
    """The published kernel centres its columns by the extent of its rows."""
    arguments = dict(dilated_kernel_size=(5, 17), version=version, bias=False)
    theirs = published.Dcls2d(1, 1, 1, **arguments)
    ours = dropin.Dcls2d(1, 1, 1, **arguments)
    for layer in (ours, theirs):
        nn.init.ones_(layer.weight)
        nn.init.zeros_(layer.P)
    peak = ours.kernel()[0, 0].argmax().item()
    assert divmod(peak, 17) == (2, 8)
    if version == 'gauss':
        kernel = theirs.DCK(theirs.weight, theirs.P, theirs.SIG)
        assert divmod(kernel[0, 0].argmax().item(), 17) == (4, 2)
    with torch.no_grad():
        ours.P[:, 0, 0, 0] = torch.tensor([-6.0, 1.0])
    peak = ours.kernel()[0, 0].argmax().item()
    assert divmod(peak, 17) == (3, 2), 'P[0] stands for the columns'


def test_moved_layers_work():
    """The published layer keeps index tensors on the device of its first call."""
    x = torch.randn(1, 2, 8, 8)
    layers = [m.Dcls2d(2, 2, 3, dilated_kernel_size=5) for m in (dropin, published)]
    for layer in layers:
        layer(x)
        layer.to('meta')
    assert layers[0](x.to('meta')).shape == (1, 2, 4, 4)
    with pytest.raises(RuntimeError, match='device'):
        layers[1](x.to('meta'))


def test_clamping_keeps_the_elements_of_an_even_extent():
    arguments = dict(dilated_kernel_size=4, version='v0', bias=False)
    ours, theirs = (m.Dcls1d(1, 1, 1, **arguments) for m in (dropin, published))
    for layer in (ours, theirs):
        nn.init.ones_(layer.weight)
        nn.init.constant_(layer.P, 9.0)
        layer.clamp_parameters()
    assert ours.P.item() == 1
    assert ours.kernel().flatten().tolist() == [0, 0, 0, 1]
    assert theirs.P.item() == 2
    assert not theirs.DCK(theirs.weight, theirs.P, None).any()


def test_state_dicts_with_another_meaning_are_refused():
    square = dict(kernel_count=3, dilated_kernel_size=5)
    theirs = published.Dcls2d(4, 4, **square).state_dict()
    with pytest.raises(RuntimeError, match=r'axes \(1, 0\), here for \(0, 1\)'):
        DCLSConv2d(4, 4, **square, interpolation='gauss').load_state_dict(theirs)
    ours = dropin.Dcls2d(4, 4, **square).state_dict()
    with pytest.raises(RuntimeError, match=r'axes \(1, 0\), here for \(0, 1\)'):
        DCLSConv2d(4, 4, **square, interpolation='gauss').load_state_dict(ours)

    flat = dict(kernel_count=3, dilated_kernel_size=(5, 7))
    model = nn.Sequential(published.Dcls2d(4, 4, **flat))
    ours = nn.Sequential(dropin.Dcls2d(4, 4, **flat))
    with pytest.raises(RuntimeError, match=r"0\.P: .*'gauss'.*from_published"):
        ours.load_state_dict(model.state_dict())
    ours.load_state_dict(ours.state_dict())

    layer = dropin.Dcls2_1d(4, 4, 3, dense_kernel_size=2, dilated_kernel_size=5)
    theirs = layer.state_dict()
    del theirs._metadata['']['position_axes']
    with pytest.raises(RuntimeError, match='Dcls2_1d .*computes something else'):
        layer.load_state_dict(theirs)


@pytest.mark.parametrize(
    ('name', 'arguments', 'message'),
    [
        ('Dcls2d', dict(version='v2'), r"version must be one of \['v0', .*got 'v2'"),
        ('Dcls2d', dict(version='triangle'), "version must be .*got 'triangle'"),
        ('Dcls2d', dict(dilated_kernel_size=(3, 3, 3)), 'dilated_kernel_size must be'),
        ('Dcls3_1d', dict(dense_kernel_size=(3, 3, 3)), 'dense_kernel_size must be'),
        ('Dcls3_1d', dict(dilated_kernel_size=(3, 3)), 'dilated_kernel_size must be'),
        ('Dcls2dK1d', dict(flat_dim=2), 'flat_dim must be 0 or 1, got 2'),
        ('Dcls1d', dict(kernel_count=0), 'kernel_count must be at least 1'),
    ],
)
def test_bad_arguments(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        getattr(dropin, name)(4, 4, **{'kernel_count': 3, **arguments})


def test_from_conv_is_of_the_other_layers():
    with pytest.raises(TypeError, match=r'use DCLSConv2d\.from_conv'):
        dropin.Dcls2d.from_conv(nn.Conv2d(4, 4, 3))
