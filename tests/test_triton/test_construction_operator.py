"""The construction as operators of torch, and the calls on CUDA that they serve.

On the CPU and on fake CUDA tensors; the kernels themselves are in ``interpreted/``.
"""

from unittest import mock

import pytest
import torch
from conftest import assert_close
from torch._subclasses import FakeTensorMode
from torch.library import opcheck
from torch.utils.flop_counter import FlopCounterMode

from dcls_mm.functional import (
    INTERPOLATIONS,
    construct_kernel,
    scatter,
    triton_kernels,
    use_backend,
)
from dcls_mm.functional.backends import forcing
from dcls_mm.functional.operators.construction import construct, construct_gradient
from dcls_mm.functional.scatter import construct_checked
from dcls_mm.layers import DCLSConv2d

# Extent, shape of the weight, and that of positions without the axes.
SHAPES = [
    ((5,), (3, 4), (3, 4)),
    ((5, 4), (3, 2, 3), (1, 2, 3)),
    ((3, 2, 4), (2, 1, 3), (2, 1, 3)),
]


def elements(interpolation, extent, shape, placed, **options):
    """Return weight, positions and sigma (or None), away from kinks."""
    weight = torch.randn(shape, **options)
    positions = torch.stack(
        [torch.randint(-(n // 2), n - n // 2, placed) for n in extent]
    ).to(weight)
    positions += 0.2 + 0.6 * torch.rand_like(positions)
    sigma = None
    if INTERPOLATIONS[interpolation].has_sigma:
        sigma = 0.05 + 0.1 * torch.rand_like(positions)
    return weight, positions, sigma


def on_cuda(interpolation, extent, shape, placed, **options):
    """Return weight, positions and sigma (or None) without values."""
    weight = torch.empty(shape, device='cuda', **options)
    positions = torch.empty(len(extent), *placed, device='cuda', **options)
    has_sigma = INTERPOLATIONS[interpolation].has_sigma
    return weight, positions, torch.empty_like(positions) if has_sigma else None


def differentiable(tensors):
    return [None if t is None else t.requires_grad_() for t in tensors]


@pytest.mark.parametrize(('extent', 'shape', 'placed'), SHAPES)
@pytest.mark.parametrize('interpolation', INTERPOLATIONS)
def test_derivatives(interpolation, extent, shape, placed):
    inputs = elements(interpolation, extent, shape, placed, dtype=torch.float64)
    leaves = [t for t in differentiable(inputs) if t is not None]

    def function(weight, positions, sigma=None):
        return construct(weight, positions, sigma, extent, interpolation, torch.float64)

    expected = construct_kernel(
        *inputs, kernel_size=extent, interpolation=interpolation
    )
    assert_close(function(*leaves), expected)
    assert torch.autograd.gradcheck(function, leaves, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, leaves, fast_mode=True)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('interpolation', INTERPOLATIONS)
def test_the_operator_keeps_what_it_promises(interpolation, dtype):
    inputs = differentiable(elements(interpolation, *SHAPES[1], dtype=dtype))
    opcheck(construct, (*inputs, (5, 4), interpolation, torch.float16))


@pytest.mark.parametrize('wanted', [(0,), (1,), (0, 1), (0, 1, 2)])
@pytest.mark.parametrize('interpolation', INTERPOLATIONS)
def test_shapes_on_cuda(interpolation, wanted):
    extent, shape, _ = SHAPES[1]
    with FakeTensorMode():
        inputs = on_cuda(interpolation, *SHAPES[1], dtype=torch.float16)
        kernel = construct(*inputs, extent, interpolation, torch.float32)
        assert kernel.shape == (*shape[:-1], *extent)
        assert (kernel.dtype, kernel.device.type) == (torch.float32, 'cuda')
        wanted = [i in wanted and t is not None for i, t in enumerate(inputs)]
        gradients = construct_gradient(kernel, *inputs, extent, interpolation, wanted)
        likes = [t for t, want in zip(inputs, wanted) if want]
        for gradient, like in zip(gradients, likes, strict=True):
            assert gradient.shape == like.shape
            assert (gradient.dtype, gradient.device) == (like.dtype, like.device)


def test_flops_are_those_of_the_product():
    extent, shape, _ = SHAPES[1]
    inputs = differentiable(elements('gauss', *SHAPES[1]))
    arguments = dict(extent=extent, interpolation='gauss', dtype=torch.float32)
    with FlopCounterMode(display=False) as by_operator:
        construct(*inputs, **arguments)
    with FlopCounterMode(display=False) as by_torch:
        construct_kernel(*inputs, kernel_size=extent, interpolation='gauss')
    assert by_operator.get_total_flops() == by_torch.get_total_flops() == 2 * 18 * 20
    with FakeTensorMode(), FlopCounterMode(display=False) as backward:
        inputs = on_cuda('gauss', *SHAPES[1])
        kernel = torch.empty(*shape[:-1], *extent, device='cuda')
        construct_gradient(kernel, *inputs, extent, 'gauss', [True, True, True])
    assert backward.get_total_flops() == 2 * by_operator.get_total_flops()


def path_of(
    backend=None, interpolation='bilinear', shape=(4, 2, 3), make=on_cuda, **options
):
    """Return the name of what constructs the kernel."""
    tried = {
        name: mock.Mock(side_effect=lambda weight, *_: weight)
        for name in ('construct', 'product_kernel', 'scatter')
    }
    _Scatter = mock.Mock(apply=tried['scatter'])
    paths = dict(construct=tried['construct'], product_kernel=tried['product_kernel'])
    with FakeTensorMode(), torch.no_grad():
        extent = (3, 3)
        inputs = make(interpolation, extent, shape, (1, *shape[1:]), **options)
        with mock.patch.multiple(scatter, _Scatter=_Scatter, **paths):
            construct_checked(*inputs, extent, interpolation, backend)
    (called,) = [name for name, function in tried.items() if function.called]
    return called


@pytest.fixture
def triton_is_there(monkeypatch):
    monkeypatch.setattr(triton_kernels, 'missing', lambda: None)


@pytest.mark.parametrize('interpolation', INTERPOLATIONS)
def test_it_serves_where_triton_is_named(interpolation, monkeypatch, triton_is_there):
    assert path_of('triton', interpolation) == 'construct'
    assert path_of(None, interpolation) == 'product_kernel'
    assert path_of('native', interpolation) == 'product_kernel'
    monkeypatch.setattr(forcing.forced, 'name', 'triton')
    assert path_of(None, interpolation) == 'construct'
    assert path_of('native', interpolation) == 'product_kernel'


def test_it_serves_by_itself_once_recorded(monkeypatch, triton_is_there):
    monkeypatch.setattr(triton_kernels, 'RECORDED', True)
    assert path_of() == 'construct'
    with use_backend('native'):
        assert path_of() == 'product_kernel'


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_it_serves_half_precision(dtype, triton_is_there):
    assert path_of('triton', dtype=dtype) == 'construct'


def test_torch_serves_the_rest(monkeypatch, triton_is_there):
    assert path_of('triton', dtype=torch.float64) == 'product_kernel'
    assert path_of('triton', shape=(0, 2, 3)) == 'product_kernel'
    assert path_of('triton', make=elements) == 'scatter'
    assert path_of('triton', 'gauss', make=elements) == 'product_kernel'
    with monkeypatch.context() as patched:
        patched.setattr(torch.version, 'hip', '6.4')
        assert path_of('triton') == 'product_kernel'
    monkeypatch.setattr(triton_kernels, 'missing', lambda: 'it needs triton')
    assert path_of('triton') == 'product_kernel'


def test_inside_transforms_torch_serves(triton_is_there):
    def kernel(weight):
        assert path_of('triton') == 'product_kernel'
        return weight

    torch.func.vmap(kernel)(torch.ones(2))


def test_the_layer_names_its_backend(triton_is_there):
    layer = DCLSConv2d(4, 4, 3, groups=4, dilated_kernel_size=5)
    layer.backend = 'triton'
    with mock.patch('dcls_mm.layers.dcls.construct_checked') as called:
        layer.kernel()
    assert called.call_args.args[-1] == 'triton'


@pytest.mark.skipif(
    not hasattr(torch.compiler, 'is_exporting'),
    reason='before torch 2.7 a compiled graph consists of plain operators',
)
def test_a_compiled_call_is_one_graph(monkeypatch):
    monkeypatch.setattr(triton_kernels, '_missing', lambda: None)
    graphs = []

    def keep(graph, _):
        graphs.append(graph)
        return graph

    @torch.compile(backend=keep, fullgraph=True)
    def doubled(weight, positions):
        kernel = construct_checked(
            weight, positions, None, (5, 4), 'bilinear', 'triton'
        )
        return 2 * kernel

    with FakeTensorMode(), torch.no_grad():
        weight, positions, _ = on_cuda('bilinear', *SHAPES[1])
        assert doubled(weight, positions).shape == (3, 2, 5, 4)
    (graph,) = graphs
    called = [str(node.target) for node in graph.graph.nodes]
    assert called.count('dcls_mm.construct.default') == 1
    assert not any(name.startswith('aten') for name in called)
