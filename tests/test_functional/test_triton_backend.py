"""The backend 'triton': which calls it serves, and what it makes of them.

The former on fake CUDA tensors, which have a device, a dtype and a shape but no values;
builds of torch without CUDA can't differentiate them. The latter on a CPU, where its
operators consist of torch's own.
"""

import re
from importlib.metadata import PackageNotFoundError
from types import SimpleNamespace

import pytest
import torch
from conftest import assert_close
from torch._subclasses.fake_tensor import FakeTensorMode

from dcls_mm.functional import (
    autotune,
    compatible_backends,
    convolve,
    triton_kernels,
    use_backend,
)
from dcls_mm.functional.backends import BACKENDS, timing, triton_depthwise
from dcls_mm.layers import DCLSConv2d

HALF = dict(dtype=torch.float16)
BRAIN = dict(dtype=torch.bfloat16)

# What differs from a depthwise 17x17 call in float32 -> why 'triton' can't serve it.
REFUSED = {
    'CPU': (dict(device='cpu'), 'it runs on NVIDIA GPUs, the input is on cpu'),
    'float64': (dict(dtype=torch.float64), 'float16, bfloat16 or float32, got torch.f'),
    'stride': (dict(stride=2), r'stride 1, got \(2, 2\)'),
    'one of two strides': (dict(stride=(1, 2)), r'stride 1, got \(1, 2\)'),
    'dense': (dict(groups=1, group_in=96), 'it is depthwise'),
    'two filters a channel': (dict(out=192), 'it is depthwise'),
    'large': (dict(extent=(65, 17)), r'at most 63 taps per axis, got \(65, 17\)'),
    '1-d': (dict(size=(64,), extent=(17,)), '2 spatial axes, got 1'),
    '3-d': (dict(size=(32,) * 3, extent=(17,) * 3), '2 spatial axes, got 3'),
    'empty': (dict(batch=0), 'the input is empty'),
}

SERVED = {
    'float32': {},
    'float16': HALF,
    'bfloat16': BRAIN,
    'rectangular': dict(extent=(9, 31)),
    'even': dict(extent=(16, 18)),
    'odd width': dict(size=(40, 41)),
    'no padding': dict(padding=0),
    'more padding than taps': dict(padding=20),
    'reflected': dict(padding=8, padding_mode='reflect'),
    'no bias': dict(bias=False),
    'one row': dict(extent=(1, 17), size=(1, 64)),
}


@pytest.fixture
def cuda(monkeypatch):
    """Return the mode of fake tensors, as if on an H100 with triton."""
    monkeypatch.setattr(triton_depthwise, 'missing', lambda: None)
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda device: (9, 0))
    with FakeTensorMode() as mode:
        yield mode


def arguments(
    device='cuda',
    dtype=torch.float32,
    batch=2,
    size=(64, 64),
    out=96,
    group_in=1,
    extent=(17, 17),
    bias=True,
    **options,
):
    placed = dict(device=device, dtype=dtype)
    return dict(
        x=torch.empty(batch, 96, *size, **placed),
        kernel=torch.empty(out, group_in, *extent, **placed),
        bias=torch.empty(out, **placed) if bias else None,
        **dict(padding='same' if 'stride' not in options else 8, groups=96) | options,
    )


@pytest.mark.parametrize('name', REFUSED)
def test_refuses(cuda, name):
    change, reason = REFUSED[name]
    call = arguments(**change)
    with pytest.raises(ValueError, match=f"'triton' cannot serve this call.*{reason}"):
        convolve(**call, backend='triton')
    assert compatible_backends(**call)['triton'] is not None


def test_refuses_what_this_machine_lacks(cuda, monkeypatch):
    def refused(reason):
        with pytest.raises(ValueError, match=reason):
            convolve(**arguments(), backend='triton')

    with monkeypatch.context() as changed:
        changed.setattr(torch.cuda, 'get_device_capability', lambda device: (7, 5))
        refused(r'compute capability 8\.0 or newer, got 7\.5')
    with monkeypatch.context() as changed:
        changed.setattr(triton_depthwise, 'missing', lambda: 'no triton here')
        refused('no triton here')
    with monkeypatch.context() as changed:
        changed.setattr(torch.version, 'hip', '6.2')
        refused('NVIDIA GPUs, the input is on an AMD GPU')


@pytest.mark.parametrize(
    ('origin', 'installed', 'reason'),
    [
        ('triton/__init__.py', '3.6.0', None),
        ('triton/__init__.py', '3.10.1+git1', None),
        ('triton/__init__.py', '3.5.1', 'triton 3.6 or newer, got 3.5.1: update torch'),
        ('triton/__init__.py', None, None),  # without metadata
        (None, '3.9.0', r"not installed.*pip install 'triton>=3.6'"),  # a folder
    ],
)
def test_which_triton_serves(monkeypatch, origin, installed, reason):
    def version(name):
        if installed is None:
            raise PackageNotFoundError
        return installed

    spec = SimpleNamespace(origin=origin)
    monkeypatch.setattr(triton_kernels.importlib.util, 'find_spec', lambda name: spec)
    monkeypatch.setattr(triton_kernels, 'version', version)
    found = triton_kernels._missing.__wrapped__()
    assert found is None if reason is None else re.search(reason, found)


@pytest.mark.parametrize('name', SERVED)
def test_serves(cuda, name):
    call = arguments(**SERVED[name])
    y = convolve(**call, backend='triton')
    native = convolve(**arguments(device='meta', **SERVED[name]), backend='native')
    assert (y.shape, y.dtype) == (native.shape, native.dtype)
    assert y.device == call['x'].device


@pytest.fixture
def served(monkeypatch):
    """Return a list of what is called, of 'triton' and 'native', and call neither."""
    names = []
    for name in ('triton', 'native'):
        monkeypatch.setattr(
            BACKENDS[name], 'convolve', lambda call, n=name: names.append(n) or call.x
        )
    return names


def test_serves_only_those_who_ask(cuda, served, monkeypatch):
    """Until a run on a GPU has been recorded."""
    convolve(**arguments())
    with use_backend('triton'):
        convolve(**arguments())
    monkeypatch.setattr(
        timing, '_seconds', lambda backend, call: backend is not triton_depthwise
    )
    with autotune():
        convolve(**arguments())
    assert served == ['native', 'triton', 'triton']


@pytest.mark.parametrize(
    ('change', 'expected'),
    [
        ({}, True),
        (dict(extent=(31, 31)), True),
        (dict(extent=(7, 31)), False),
        (dict(extent=(9, 9)), False),
        (dict(size=(32, 32)), False),
        (dict(size=(64, 63)), False),
        (dict(dtype=torch.float64), False),
    ],
)
def test_the_rule_for_after_that(cuda, served, monkeypatch, change, expected):
    monkeypatch.setattr(triton_depthwise, 'RECORDED', True)
    convolve(**arguments(**change))
    assert served == ['triton' if expected else 'native']


@pytest.mark.skipif(
    not hasattr(torch.compiler, 'is_exporting'),
    reason='before torch 2.7 a compiled graph consists of plain operators',
)
def test_a_compiled_call_is_one_graph(monkeypatch):
    monkeypatch.setattr(triton_kernels, '_missing', lambda: None)
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda device: (9, 0))
    graphs = []

    def keep(graph, _):
        graphs.append(graph)
        return graph

    @torch.compile(backend=keep, fullgraph=True)
    def doubled(x, kernel, bias):
        return 2 * convolve(
            x, kernel, bias, padding='same', groups=96, backend='triton'
        )

    with FakeTensorMode(), torch.no_grad():
        call = arguments()
        y = doubled(call['x'], call['kernel'], call['bias'])
    assert y.shape == (2, 96, 64, 64)
    (graph,) = graphs
    called = [str(node.target) for node in graph.graph.nodes]
    assert called.count('dcls_mm.convolve_depthwise.default') == 1
    assert not any(name.startswith('aten') for name in called)


@pytest.fixture
def on_cpu(monkeypatch):
    monkeypatch.setattr(triton_depthwise, 'unsupported', lambda call: None)


@pytest.mark.parametrize('extent', [(9, 9), (4, 7), (1, 11)])
@pytest.mark.parametrize('padding_mode', ['zeros', 'circular'])
@pytest.mark.parametrize('padding', ['same', 'valid', (0, 3)])
def test_equals_torch(on_cpu, extent, padding_mode, padding):
    """Also with more zeros after the image than before it, as 'same' may give."""
    tensors = [
        torch.randn(shape, dtype=torch.float64, requires_grad=True)
        for shape in ((2, 3, 12, 11), (3, 1, *extent), (3,))
    ]
    options = dict(groups=3, padding=padding, padding_mode=padding_mode)
    outputs = [
        convolve(*tensors, **options, backend=name) for name in ('triton', 'native')
    ]
    assert_close(*outputs)
    weight = torch.randn_like(outputs[0])
    gradients = [torch.autograd.grad(y, tensors, weight) for y in outputs]
    for one, other in zip(*gradients):
        assert_close(one, other)


def test_the_memory_format_is_that_of_the_input(on_cpu):
    layer = DCLSConv2d(3, 3, 3, padding=1, groups=3, backend='triton')
    x = torch.randn(2, 3, 12, 11)
    y = layer(x)
    assert y.is_contiguous()
    x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    other = layer(x)
    assert other.is_contiguous(memory_format=torch.channels_last)
    assert_close(other, y)
    other.sum().backward()
    assert x.grad.shape == x.shape


def test_autocast_keeps_the_kernel_in_float32(on_cpu):
    """Its gradient is summed in float32, however narrow the images are."""
    layer = DCLSConv2d(3, 3, 3, padding=1, groups=3, backend='triton')
    x = torch.randn(2, 3, 12, 11, requires_grad=True)
    with torch.autocast('cpu', torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    expected = layer(x.bfloat16().float()).detach()
    assert_close(y, expected.bfloat16())
    weight = torch.randn_like(y)
    y.backward(weight)
    found = layer.weight.grad.clone()
    layer.zero_grad()
    # The kernel is the same but for its rounding, which its gradient doesn't notice.
    layer(x.bfloat16().float()).backward(weight.float())
    assert_close(found, layer.weight.grad)
