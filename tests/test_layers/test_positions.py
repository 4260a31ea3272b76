"""Where positions are learned, and how they are initialised, frozen and rounded."""

import itertools

import pytest
import torch
from conftest import assert_close
from torch import nn

from dcls_mm.conversion import without_extent
from dcls_mm.functional.reference import reference_kernel
from dcls_mm.layers import DCLSConv1d, DCLSConv2d, DCLSConv3d
from dcls_mm.layers.published import published_axes

LAYERS = {1: DCLSConv1d, 2: DCLSConv2d, 3: DCLSConv3d}
CONVS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


def mixed_layer(axes, interpolation='bilinear', **options):
    """Build a 3-d layer with random positions along ``axes``, the others dense."""
    layer = DCLSConv3d(
        2,
        3,
        kernel_size=(4, 3, 2),
        kernel_count=2,
        dilated_kernel_size=[(6, 7, 4)[i] if i in axes else 4 - i for i in range(3)],
        padding=1,
        interpolation=interpolation,
        position_axes=axes,
        **options,
    ).double()
    nn.init.uniform_(layer.P, -3, 3)
    if layer.SIG is not None:
        nn.init.normal_(layer.SIG)
    return layer


@pytest.mark.parametrize('interpolation', ['bilinear', 'triangle', 'max', 'gauss'])
@pytest.mark.parametrize('axes', [(0,), (2,), (0, 1), (2, 0), (2, 1), (2, 1, 0)])
def test_positions_along_some_axes(axes, interpolation):
    """Each tap of the dense axes has its own elements along the learned ones."""
    layer = mixed_layer(axes, interpolation)
    learned = sorted(axes)
    dense = [axis for axis in range(3) if axis not in axes]
    rows = [axes.index(axis) for axis in learned]
    kernel = layer.kernel().permute(0, 1, *(2 + i for i in (*dense, *learned)))
    for tap in itertools.product(*(range(layer.extent[axis]) for axis in dense)):
        at = (slice(None), slice(None), *tap)
        expected = reference_kernel(
            layer.weight[at],
            layer.P[rows][(slice(None), *at)],
            None if layer.SIG is None else layer.SIG[rows][(slice(None), *at)],
            kernel_size=[layer.extent[axis] for axis in learned],
            interpolation=interpolation,
        )
        assert_close(kernel[at], expected)


@pytest.mark.parametrize('per_output', [True, False])
@pytest.mark.parametrize('axes', [(1,), (0, 2), (2, 1, 0)])
def test_formulations_agree(axes, per_output):
    """Sampling and constructing share a state_dict and give the same result."""
    layers = [
        mixed_layer(axes, per_output_positions=per_output, formulation=formulation)
        for formulation in ('construct', 'sample')
    ]
    layers[1].load_state_dict(layers[0].state_dict())
    x = torch.randn(2, 2, 7, 8, 6, dtype=torch.float64, requires_grad=True)
    y, sampled = (layer(x) for layer in layers)
    assert_close(sampled, y)
    seed = torch.randn_like(y)
    expected = torch.autograd.grad(y, [x, *layers[0].parameters()], seed)
    actual = torch.autograd.grad(sampled, [x, *layers[1].parameters()], seed)
    for grad, expected_grad in zip(actual, expected):
        assert_close(grad, expected_grad)


def test_positions_shared_by_the_outputs():
    layer = DCLSConv2d(4, 6, 3, groups=2, per_output_positions=False)
    assert layer.weight.shape == (6, 2, 9)
    assert layer.P.shape == (2, 2, 9)
    own = DCLSConv2d(4, 6, 3, groups=2)
    with torch.no_grad():
        own.weight.copy_(layer.weight)
        own.P.copy_(layer.P.unsqueeze(1).expand_as(own.P))
    assert_close(layer.kernel(), own.kernel())


def test_shapes_with_dense_axes():
    columns = DCLSConv2d(4, 4, 3, dilated_kernel_size=9, position_axes=(1,), padding=1)
    assert columns.extent == (3, 9)
    assert columns.padding == (1, 4)
    assert columns.weight.shape == (4, 4, 3, 3)
    assert columns.P.shape == (1, 4, 4, 3, 3)
    assert columns(torch.randn(1, 4, 8, 10)).shape == (1, 4, 8, 10)


@pytest.mark.parametrize('ndim', [1, 2, 3])
@pytest.mark.parametrize('interpolation', ['bilinear', 'triangle', 'max'])
@pytest.mark.parametrize(
    'arguments',
    [
        dict(kernel_size=3, padding=1),
        dict(kernel_size=3, padding='same', padding_mode='reflect', dilation=2),
        dict(kernel_size=2, stride=2, groups=2, bias=False),
        dict(kernel_size=4, padding=3, dilation=3, groups=4),
    ],
)
def test_from_conv_computes_the_same(ndim, interpolation, arguments):
    conv = CONVS[ndim](4, 8, **arguments).double()
    span = conv.dilation[0] * (conv.kernel_size[0] - 1) + 1
    x = torch.randn(2, 4, *(12, 13, 11)[:ndim], dtype=torch.float64)
    for options in (
        dict(),
        dict(dilated_kernel_size=span + 4),
        dict(position_axes=tuple(reversed(range(ndim)))),
    ):
        layer = LAYERS[ndim].from_conv(conv, interpolation=interpolation, **options)
        assert layer.P.requires_grad
        assert_close(layer(x), conv(x))


def test_from_conv_with_dense_axes():
    conv = nn.Conv3d(2, 4, (3, 2, 5), padding=(1, 0, 2))
    layer = DCLSConv3d.from_conv(conv, dilated_kernel_size=9, position_axes=(2,))
    x = torch.randn(1, 2, 5, 6, 12)
    assert_close(layer(x), conv(x), factor=5)


@pytest.mark.parametrize(
    ('conv', 'options', 'error', 'message'),
    [
        (nn.Conv1d(2, 2, 3), {}, TypeError, 'torch.nn.Conv2d .* got Conv1d'),
        (nn.ConvTranspose2d(2, 2, 3), {}, TypeError, 'got ConvTranspose2d'),
        (
            nn.Conv2d(2, 2, 3),
            dict(kernel_count=8),
            ValueError,
            'kernel_count 9 .* got 8',
        ),
        (nn.Conv2d(2, 2, 3, 1, 3), dict(dilated_kernel_size=1), ValueError, '1 for 3'),
        (nn.Conv2d(2, 2, 3), dict(stride=2), TypeError, 'stride'),
    ],
)
def test_from_conv_refuses(conv, options, error, message):
    with pytest.raises(error, match=message):
        DCLSConv2d.from_conv(conv, **options)


def test_initial_positions():
    arguments = dict(groups=64, dilated_kernel_size=(9, 8), kernel_count=40)
    uniform = DCLSConv2d(64, 64, initial_positions='uniform', **arguments)
    for row, limits in zip(uniform.P, [(-4, 4), (-4, 3)]):
        low, high = limits
        assert low <= row.min() < low + 0.1 and high - 0.1 < row.max() <= high
        assert row.mean().item() == pytest.approx((low + high) / 2, abs=0.2)
    grid = DCLSConv2d(2, 2, 2, dilation=(3, 2), initial_positions='grid')
    assert grid.P[:, 0, 0].tolist() == [[-2, -2, 1, 1], [-1, 1, -1, 1]]
    again = DCLSConv2d(2, 2, 2, dilation=(3, 2), initial_positions='grid')
    nn.init.zeros_(again.P)
    again.reset_parameters()
    assert torch.equal(again.P, grid.P)


def test_initial_sigma():
    for interpolation, sigma in (('gauss', 0.5), ('max', 0.25)):
        layer = DCLSConv2d(2, 2, 3, interpolation=interpolation, initial_sigma=sigma)
        assert layer.SIG.unique().tolist() == [sigma]


def trained(layer):
    """Return the names of the parameters that a step of SGD changes."""
    before = {name: p.detach().clone() for name, p in layer.named_parameters()}
    layer(torch.randn(2, 4, 9, 9)).square().sum().backward()
    torch.optim.SGD(layer.parameters(), lr=0.1).step()
    return {n for n, p in layer.named_parameters() if not torch.equal(p, before[n])}


def test_freezing():
    learned = DCLSConv2d(4, 4, 3, interpolation='gauss')
    assert trained(learned) == {'weight', 'P', 'SIG', 'bias'}
    learned.freeze_positions()
    learned.fix_sigma(0.4)
    assert learned.SIG.unique().item() == pytest.approx(0.4)
    assert trained(learned) == {'weight', 'bias'}
    options = dict(interpolation='max', initial_sigma=0.3)
    fixed = DCLSConv2d(4, 4, 3, learn_sigma=False, **options)
    assert trained(fixed) == {'weight', 'P', 'bias'}
    frozen = DCLSConv2d(4, 4, 3, learn_positions=False, **options)
    assert trained(frozen) == {'weight', 'SIG', 'bias'}


@pytest.mark.parametrize('formulation', ['construct', 'sample'])
def test_integer_positions_in_evaluation(formulation):
    """Learned positions stay real-valued; evaluation uses whole pixels."""
    layer = DCLSConv2d(2, 2, 3, integer_positions=True, formulation=formulation)
    nn.init.uniform_(layer.P, -1, 1)
    rounded = DCLSConv2d(2, 2, 3)
    rounded.load_state_dict(layer.state_dict())
    x = torch.randn(1, 2, 8, 8)
    assert_close(layer(x), rounded(x), factor=5)
    rounded.round_positions()
    assert rounded.P.unique().tolist() == [-1, 0, 1]
    layer.eval()
    assert_close(layer(x), rounded(x), factor=5)
    assert (layer.P != rounded.P).any()
    taps = rounded.kernel().count_nonzero((2, 3))
    assert (taps <= 9).all()


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(position_axes=()), r'position_axes must be different axes of 0\.\.1'),
        (dict(position_axes=(0, 0)), r'at least one, got \(0, 0\)'),
        (dict(position_axes=(2,)), r'got \(2,\)'),
        (dict(position_axes=(1,), dilated_kernel_size=(5, 9)), 'axis 0 is dense'),
        (dict(position_axes=(1,), dilation=2), 'dilation must be 1'),
        (dict(formulation='im2col'), "one of .*'sample'.*got 'im2col'"),
        (dict(initial_positions='zeros'), "one of .*'grid'.*got 'zeros'"),
        (dict(formulation='sample', interpolation='gauss'), "'sample' needs .*'gauss'"),
        (dict(formulation='sample', backend='native'), 'takes no backend'),
        (dict(initial_sigma=0.5), "'bilinear' has no sigma: leave out initial_sigma"),
        (dict(learn_sigma=False), 'leave out initial_sigma and learn_sigma'),
        (
            dict(initial_positions='grid', kernel_size=None, kernel_count=3),
            'make kernel_count 25 or leave it out, got 3',
        ),
    ],
)
def test_bad_arguments(options, message):
    arguments = dict(in_channels=2, out_channels=2, kernel_size=3, padding=2)
    if options.get('kernel_size', 3) is None:
        arguments['dilated_kernel_size'] = 5
    with pytest.raises(ValueError, match=message):
        DCLSConv2d(**{**arguments, **options})


def test_no_sigma_to_fix():
    with pytest.raises(ValueError, match="'bilinear' has no sigma to fix"):
        DCLSConv2d(2, 2, 3).fix_sigma()


def test_state_dict_of_other_rows_is_refused():
    """P's rows for other axes would silently be read as transposed kernels."""
    columns_first = DCLSConv2d(2, 2, 3, position_axes=(1, 0))
    with pytest.raises(RuntimeError, match=r'P: .* axes \(1, 0\), here for \(0, 1\)'):
        DCLSConv2d(2, 2, 3).load_state_dict(columns_first.state_dict())
    without_metadata = dict(columns_first.state_dict())
    DCLSConv2d(2, 2, 3).load_state_dict(without_metadata)


@pytest.mark.parametrize('ndim', [1, 2, 3])
@pytest.mark.parametrize('interpolation', ['bilinear', 'triangle', 'max', 'gauss'])
def test_without_metadata_only_what_is_not_ambiguous(ndim, interpolation):
    """The order must be stated where the published package has another one."""

    def build(**options):
        return LAYERS[ndim](2, 2, 3, interpolation=interpolation, **options)

    plain = dict(build().state_dict())
    own = tuple(range(ndim))
    if published_axes(interpolation, ndim) == own:
        build().load_state_dict(plain)
        return
    with pytest.raises(RuntimeError, match='no metadata .*build the layer with posi'):
        build().load_state_dict(plain)
    build(position_axes=own).load_state_dict(plain)


def noted_layer(**options):
    arguments = dict(kernel_count=3, dilated_kernel_size=5, interpolation='gauss')
    return DCLSConv2d(2, 2, **{**arguments, **options})


@pytest.mark.parametrize(
    ('saved', 'built', 'message'),
    [
        (dict(dilated_kernel_size=9), {}, r'extent \(9, 9\), .* \(5, 5\): give dil'),
        (dict(interpolation='max'), {}, "of interpolation 'max', the layer of 'gauss'"),
        ({}, dict(interpolation='max'), "'gauss', .*build it with interpolation='gau"),
        ({}, dict(interpolation='bilinear'), "SIG: .* this one is 'bilinear'"),
    ],
)
def test_parameters_that_mean_something_else_are_refused(saved, built, message):
    state_dict = noted_layer(**saved).state_dict()
    for strict in (True, False):
        with pytest.raises(RuntimeError, match=message):
            noted_layer(**built).load_state_dict(state_dict, strict=strict)


def test_notes_outlive_a_file(tmp_path):
    state_dict = noted_layer().state_dict()
    torch.save(state_dict, tmp_path / 'layer.pth')
    loaded = torch.load(tmp_path / 'layer.pth', weights_only=True)
    notes = loaded._metadata['']
    assert notes == state_dict._metadata['']
    assert (notes['extent'], notes['interpolation']) == ((5, 5), 'gauss')


def test_bilinear_and_triangle_pass_into_each_other():
    layers = [noted_layer(interpolation=name) for name in ('bilinear', 'triangle')]
    layers[0].load_state_dict(layers[1].state_dict())
    layers[1].load_state_dict(layers[0].state_dict())


def test_state_dicts_of_earlier_releases_load():
    """Those note only the axes."""
    layer = noted_layer(dilated_kernel_size=9)
    state_dict = layer.state_dict()
    state_dict._metadata[''] = dict(version=1, position_axes=(0, 1))
    noted_layer(dilated_kernel_size=5, interpolation='max').load_state_dict(state_dict)


def test_another_extent_on_purpose():
    layer = noted_layer(dilated_kernel_size=9)
    state_dict = without_extent(layer.state_dict())
    noted_layer().load_state_dict(state_dict)
    assert 'extent' in layer.state_dict()._metadata['']
    with pytest.raises(RuntimeError, match='interpolation'):
        noted_layer(interpolation='max').load_state_dict(state_dict)
