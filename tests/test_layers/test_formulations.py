"""The formulations of a layer: one result, whichever computes it."""

import copy
import math

import pytest
import torch
from torch import nn

from dcls_mm import DCLSConv1d, DCLSConv2d, DCLSConv3d, autotune
from dcls_mm.functional import native_code, use_backend
from dcls_mm.functional.backends import direct
from dcls_mm.layers import FlexConv2d, LargeKernelConv2d
from dcls_mm.layers.dropin import Dcls2d

needs_compiled_part = pytest.mark.skipif(
    native_code.missing() is not None, reason=str(native_code.missing())
)
pytestmark = needs_compiled_part

OPTIONS = dict(kernel_count=7, dilated_kernel_size=(9, 11), padding=(4, 5), groups=4)

LAYERS = {
    'bilinear': lambda: DCLSConv2d(4, 4, **OPTIONS),
    'triangle': lambda: DCLSConv2d(4, 4, interpolation='triangle', **OPTIONS),
    'shared by the outputs': lambda: DCLSConv2d(
        4, 4, per_output_positions=False, **OPTIONS
    ),
    'twice the channels': lambda: DCLSConv2d(4, 8, **OPTIONS),
    'without bias': lambda: DCLSConv2d(4, 4, bias=False, **OPTIONS),
    'a dense axis': lambda: DCLSConv2d(
        4, 4, (3, 5), 1, 1, groups=4, position_axes=(1,), dilated_kernel_size=(3, 9)
    ),
    'columns first': lambda: DCLSConv2d(4, 4, position_axes=(1, 0), **OPTIONS),
    'even extent': lambda: DCLSConv2d(
        4, 4, kernel_count=5, dilated_kernel_size=8, padding='same', groups=4
    ),
    'reflected': lambda: DCLSConv2d(4, 4, padding_mode='reflect', **OPTIONS),
    'circular': lambda: DCLSConv2d(4, 4, padding_mode='circular', **OPTIONS),
    'no padding': lambda: DCLSConv2d(4, 4, **{**OPTIONS, 'padding': 'valid'}),
    'rounded in evaluation': lambda: DCLSConv2d(
        4, 4, integer_positions=True, **OPTIONS
    ),
    'published': lambda: Dcls2d(
        4, 4, 7, padding=4, dilated_kernel_size=9, groups=4, version='v1'
    ),
    'one axis': lambda: DCLSConv1d(
        4, 4, kernel_count=5, dilated_kernel_size=17, padding=8, groups=4
    ),
}

# Kernels that learning can't leave sparse, but evaluation can.
KEPT = {
    'gauss': lambda: DCLSConv2d(4, 4, interpolation='gauss', **OPTIONS),
    'max': lambda: DCLSConv2d(4, 4, interpolation='max', **OPTIONS),
    'flex': lambda: FlexConv2d(4, 4, dilated_kernel_size=9, padding=4, groups=4),
    'dilated': lambda: LargeKernelConv2d(4, 4, 3, padding=4, dilation=4, groups=4),
}


def build(name, **attributes):
    torch.manual_seed(3)
    layer = {**LAYERS, **KEPT}[name]()
    if hasattr(layer, 'P'):
        nn.init.normal_(layer.P, std=3)  # some lie outside
    vars(layer).update(attributes)
    return layer


def image(layer, layout=torch.contiguous_format, **options):
    size = (2, 4, 21, 18)[: layer.ndim + 2]
    x = torch.randn(size, **options)
    return x if x.ndim < 4 else x.contiguous(memory_format=layout)


@pytest.fixture
def served(monkeypatch):
    """The kinds of kernel that the direct backend served."""
    kinds, convolve = [], direct.convolve

    def noted(call):
        kinds.append(type(call.source.content).__name__)
        return convolve(call)

    monkeypatch.setattr(direct, 'convolve', noted)
    return kinds


def step(layer, x):
    x = x.detach().requires_grad_()
    y = layer(x)
    cotangent = torch.linspace(-1, 2, y.numel(), dtype=y.dtype).sin().view(y.shape)
    learned = [p for p in layer.parameters() if p.requires_grad]
    return [y, *torch.autograd.grad(y, [x, *learned], cotangent)]


def assert_near(found, expected, tolerance=2e-6):
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype and one.shape == other.shape
        error = (one - other).abs().max()
        assert error <= tolerance * (1 + other.abs().max()), error


@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize('name', LAYERS)
def test_a_step_has_one_result(name, layout, served):
    layer = build(name)
    x = image(layer, layout)
    layer.formulation = 'construct'
    with use_backend('native'):
        expected = step(copy.deepcopy(layer).double(), x.double())
    assert not served
    for formulation in ('auto', 'direct'):
        layer.formulation = formulation
        found = step(layer, x)
        assert_near([t.double() for t in found], expected, 2e-5)
        assert found[0].stride() == expected[0].stride()
    assert set(served) == {'Elements'}


@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize('name', [*LAYERS, *KEPT])
def test_evaluation_has_one_result(name, layout, served):
    layer = build(name).eval()
    x = image(layer, layout)
    with torch.no_grad():
        with use_backend('native'):
            expected = layer(x)
        assert not served
        with use_backend('direct'):
            found = layer(x)
            again = layer(x)
    assert served == ['Taps', 'Taps']
    assert torch.equal(found, again)
    assert_near([found], [expected])
    assert found.stride() == expected.stride()


@pytest.mark.parametrize('name', ['bilinear', 'one axis', 'reflected'])
def test_an_image_without_batch(name):
    layer = build(name, formulation='direct')
    x = image(layer)
    assert torch.equal(layer(x[0]), layer(x)[0])
    assert layer(x[:0]).shape == (0, *layer(x).shape[1:])


def test_mixed_precision():
    """Images in bfloat16, the kernel and all sums in float32."""
    layer = build('bilinear', formulation='direct')
    x = image(layer)
    exact = step(layer, x)
    with torch.autocast('cpu', torch.bfloat16):
        mixed = step(layer, x)
    assert mixed[0].dtype == torch.bfloat16
    assert {t.dtype for t in mixed[1:]} == {torch.float32}
    narrow = copy.deepcopy(layer).bfloat16()
    assert {t.dtype for t in step(narrow, x.bfloat16())} == {torch.bfloat16}
    for one, other in zip(mixed, exact):
        assert (one - other).abs().max() < 0.02 * other.abs().max()


def test_second_derivatives():
    layer = build('bilinear', formulation='direct')
    x = image(layer).requires_grad_()

    def penalty():
        (slope,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), [x, *layer.parameters()])

    found = penalty()
    layer.formulation = 'construct'
    assert_near(found, penalty(), 1e-5)


@pytest.mark.parametrize('value', [float('nan'), float('inf'), -1e30, 1e30])
@pytest.mark.parametrize('name', ['bilinear', 'triangle', 'one axis'])
def test_senseless_positions(name, value):
    """Far outside there is nothing; what is no number makes its output NaN."""
    layer = build(name)
    with torch.no_grad():
        layer.P[0, 1, 0, 2] = value
    x = image(layer)
    layer.formulation = 'construct'
    expected = step(layer, x)
    layer.formulation = 'direct'
    found = step(layer, x)
    # The gradient of an element without a place may be 0 or NaN.
    own = 2 if math.isfinite(value) else 0
    for one, other in zip(found[: 2 + own], expected):
        assert torch.equal(one.isnan(), other.isnan())
        error = (one - other).nan_to_num().abs().max()
        assert error < 1e-4 * other.nan_to_num().abs().max()


@pytest.mark.parametrize(
    'change',
    [
        lambda layer: layer.double(),
        lambda layer: layer.half(),
        lambda layer: layer.to('meta'),
    ],
    ids=['float64', 'float16', 'another device'],
)
def test_what_the_compiled_part_lacks_is_constructed(change, served):
    layer = change(build('bilinear'))
    x = torch.randn(2, 4, 21, 18, dtype=layer.weight.dtype, device=layer.weight.device)
    assert layer(x).shape == x.shape
    with torch.no_grad():
        layer.eval()(x)
    assert not served
    layer.formulation = 'direct'
    with pytest.raises(ValueError, match="'direct' cannot serve this call: it "):
        layer(x)


def test_a_kernel_that_is_redefined_is_used(served):
    class Doubled(DCLSConv2d):
        def kernel(self):
            return 2 * super().kernel()

    torch.manual_seed(0)
    layer = Doubled(4, 4, **OPTIONS)
    plain = DCLSConv2d(4, 4, **OPTIONS)
    plain.load_state_dict(layer.state_dict())
    x = image(layer)
    expected = 2 * plain(x) - plain.bias.view(-1, 1, 1)
    assert_near([layer(x)], [expected])
    plain.kernel = lambda kernel=plain.kernel: 2 * kernel()
    assert_near([plain(x)], [expected])
    assert served == ['Elements']


def test_a_stage_shares_its_positions():
    first, second = build('bilinear'), build('bilinear')
    second.share_positions(first)
    x = image(first)
    gradients = {}
    for formulation in ('construct', 'direct'):
        first.formulation = second.formulation = formulation
        first.P.grad = None
        second(first(x)).square().sum().backward()
        gradients[formulation] = first.P.grad
    assert_near([gradients['direct']], [gradients['construct']], 1e-5)


def test_it_compiles_as_one_graph():
    layer = build('bilinear', formulation='direct')
    x = image(layer)
    compiled = torch.compile(layer, backend='aot_eager', fullgraph=True)
    assert_near(step(compiled, x), step(layer, x))
    with torch.no_grad():
        assert_near([compiled(x)], [layer(x)])


def test_records_hold_a_plain_convolution():
    """They run without this package."""
    layer = build('bilinear').eval()
    x = image(layer)
    with torch.no_grad():
        graphs = str(torch.jit.trace(layer, x, check_trace=False).inlined_graph)
        graphs += str(torch.export.export(layer, (x,)).graph)
    assert 'convolve_' not in graphs and graphs.count('conv2d') >= 2


def test_transforms_take_the_dense_kernel(served):
    layer = build('bilinear')
    x = image(layer)
    one_by_one = torch.vmap(lambda image: layer(image[None])[0])(x)
    assert not served
    assert_near([one_by_one], [layer(x)])


def test_autotune_times_it_too(monkeypatch):
    layer = build('bilinear')
    timed = []
    monkeypatch.setattr(
        'dcls_mm.functional.backends.timing._seconds',
        lambda backend, call: timed.append(backend) or (backend is not direct),
    )
    with autotune():
        y = layer(image(layer))
    assert direct in timed and len(timed) > 2
    assert y.grad_fn is not None
    monkeypatch.undo()
    other = build('bilinear')
    with autotune():
        assert_near([other(image(other)[:1])], [layer(image(other)[:1])], 1)
        with torch.no_grad():
            other.eval()(image(other)[:1])


@pytest.mark.parametrize(
    ('size', 'extent', 'count', 'learns', 'evaluates'),
    [
        ((20, 20), 17, 34, True, True),
        ((20, 20), 17, 289, True, True),
        ((7, 7), 17, 34, True, False),  # torch leaves out taps beyond the image
        ((20, 20), 7, 4, True, True),
        ((20, 20), 7, 49, True, False),
        ((20, 20), 3, 4, False, False),
        ((20, 20), 63, 34, True, True),
        ((20, 20), 63, 2000, False, False),  # by FFT
        ((500,), 255, 26, True, True),
        ((500,), 255, 200, False, False),  # by FFT
        ((500,), 9, 3, True, False),
    ],
)
def test_the_choice(size, extent, count, learns, evaluates, served):
    """As measured; with its gradients the dense path is much slower."""
    kind = {1: DCLSConv1d, 2: DCLSConv2d}[len(size)]
    layer = kind(
        *(4, 4),
        kernel_count=count,
        dilated_kernel_size=extent,
        padding=extent // 2,
        groups=4,
        initial_positions='uniform',
    )
    x = torch.randn(1, 4, *size)
    layer(x)
    assert served == ['Elements'] * learns
    served.clear()
    with torch.no_grad():
        layer.eval()(x)
    assert served == ['Taps'] * evaluates


def test_with_stride_no_taps_are_listed(monkeypatch):
    layer = DCLSConv2d(4, 4, stride=2, **OPTIONS).eval()
    monkeypatch.setattr('dcls_mm.layers.kept_kernel.taps_of_kernel', None)
    with torch.no_grad():
        assert layer(image(layer)).shape == (2, 4, 11, 9)


def test_a_frozen_kernel_costs_no_gradient(monkeypatch):
    layer = build('bilinear', formulation='direct')
    x = image(layer)
    expected = step(layer, x)
    monkeypatch.setattr(native_code.direct, 'element_gradients', None)
    layer.weight.requires_grad_(False)
    layer.P.requires_grad_(False)
    y, of_x, of_bias = step(layer, x)
    assert_near([y, of_x, of_bias], [expected[0], expected[1], expected[-1]])


@pytest.mark.parametrize(
    'layer',
    [
        lambda: DCLSConv3d(4, 4, 3, groups=4, padding=1, dilated_kernel_size=5),
        lambda: DCLSConv2d(4, 4, 3, padding=1, dilated_kernel_size=9),
        lambda: DCLSConv1d(4, 8, 3, groups=4, padding=1, dilated_kernel_size=9),
        lambda: DCLSConv2d(4, 4, 3, groups=4, stride=2, padding=1),
    ],
    ids=['3-d', 'dense', '1-d', 'stride'],
)
def test_every_layer_evaluates_under_autotune(layer):
    layer = layer().eval()
    x = torch.randn(1, 4, *[12] * layer.ndim)
    with torch.no_grad():
        expected = layer(x)
        with autotune():
            found = layer(x)
        assert_near([found], [expected])
        with use_backend('native'):
            assert_near([layer(x)], [expected])


def test_without_the_compiled_part_the_dense_path_serves(monkeypatch, served):
    told = []
    monkeypatch.setattr(direct, '_missing', lambda: 'it is not built')
    monkeypatch.setattr(native_code, 'tell_missing', lambda: told.append(1))
    layer = build('bilinear')
    x = image(layer)
    layer(x)
    assert told and not served
    told.clear()
    layer.formulation = 'construct'
    layer(x)
    build('gauss')(x)
    assert not told
    layer.formulation = 'direct'
    with pytest.raises(ValueError, match='it is not built'):
        layer(x)


@pytest.mark.parametrize(
    ('kind', 'options', 'message'),
    [
        (DCLSConv2d, dict(stride=2), r"'direct' needs stride 1, got \(2, 2\)"),
        (DCLSConv2d, dict(groups=2), "'direct' needs groups=4.*got 2"),
        (DCLSConv2d, dict(interpolation='gauss'), "needs interpolation.*got 'gauss'"),
        (DCLSConv2d, dict(backend='fft'), "'direct' excludes the backend 'fft'"),
        (DCLSConv3d, {}, "'direct' needs one or two spatial axes, got 3"),
    ],
)
def test_arguments_that_exclude_it(kind, options, message):
    with pytest.raises(ValueError, match=message):
        kind(4, 4, 3, formulation='direct', **{'groups': 4, **options})


def test_construct_excludes_the_backend():
    with pytest.raises(ValueError, match="'construct' excludes the backend 'direct'"):
        DCLSConv2d(4, 4, 3, formulation='construct', backend='direct')
    layer = build('bilinear', formulation='construct')
    with use_backend('direct'), pytest.raises(ValueError, match='dense kernel'):
        layer(image(layer))


def test_the_backend_is_named_like_any_other():
    layer = DCLSConv2d(4, 4, backend='direct', **OPTIONS)
    assert "backend='direct'" in repr(layer)
    x = image(layer)
    y = layer(x)
    layer.backend, layer.formulation = None, 'direct'
    assert torch.equal(layer(x), y)
