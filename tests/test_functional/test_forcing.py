"""Which backends serve a call, how one is forced on a model, and what is logged."""

import logging
import subprocess
import sys
import threading

import pytest
import torch

from dcls_mm.functional import backends as room
from dcls_mm.functional import compatible_backends, convolve, use_backend
from dcls_mm.functional.backends import BACKENDS, forcing
from dcls_mm.layers import DCLSConv2d, LargeKernelConv2d

X = torch.randn(1, 4, 18, 18)
KERNEL = torch.randn(4, 1, 15, 15)
CALL = dict(padding=7, groups=4)


@pytest.fixture
def chosen(monkeypatch):
    """The names of the backends that were called."""
    names = []
    for name, backend in BACKENDS.items():

        def convolve(call, name=name, original=backend.convolve):
            names.append(name)
            return original(call)

        monkeypatch.setattr(backend, 'convolve', convolve)
    return names


@pytest.fixture
def environment(monkeypatch):
    """Sets the variable as it stands when a program starts."""

    def set_variable(value):
        monkeypatch.setenv('DCLS_MM_BACKEND', value)
        monkeypatch.setattr(forcing.forced, 'name', forcing.NOT_ASKED)

    return set_variable


@pytest.mark.parametrize(
    'change',
    [
        dict(),
        dict(stride=2),
        dict(padding=15),
        dict(padding='same', padding_mode='reflect'),
        dict(x=X.double(), kernel=KERNEL.double()),
        dict(x=X.half(), kernel=KERNEL.half()),
        dict(x=X[:0]),
        dict(x=X[0]),
        dict(x=X[..., 0], kernel=KERNEL[..., 0]),
    ],
)
def test_the_reason_is_that_of_a_forced_one(change):
    arguments = {**dict(x=X, kernel=KERNEL, **CALL), **change}
    reasons = compatible_backends(**arguments)
    assert list(reasons) == list(BACKENDS) and reasons['native'] is None
    for name, reason in reasons.items():
        if reason is None:
            convolve(**arguments, backend=name)
            continue
        with pytest.raises(ValueError) as caught:
            convolve(**arguments, backend=name)
        assert str(caught.value).endswith(f'cannot serve this call: {reason}')


def test_arguments_that_none_can_serve():
    with pytest.raises(ValueError, match='must have 4 channels, got 3'):
        compatible_backends(X[:, :3], KERNEL, **CALL)
    with pytest.raises(RuntimeError, match="can't be greater than actual input size"):
        compatible_backends(X[..., :3], KERNEL, groups=4)


def test_a_block_forces_one(chosen):
    layers = LargeKernelConv2d(4, 4, 15, padding=7, groups=4), DCLSConv2d(4, 4, 3)
    named = LargeKernelConv2d(4, 4, 3, backend='native')
    with use_backend('fft'):
        for layer in (*layers, named):
            layer(X)
        convolve(X, KERNEL, **CALL, backend='cpu_depthwise')
        with use_backend('native'):
            convolve(X, KERNEL, **CALL)
        convolve(X, KERNEL, **CALL)
    convolve(X, KERNEL, **CALL)
    assert chosen == [
        *('fft', 'fft', 'native', 'cpu_depthwise', 'native', 'fft', 'cpu_depthwise')
    ]


def test_it_raises_where_it_cannot_serve():
    says = "'cpu_depthwise' cannot serve this call"
    with pytest.raises(ValueError, match=says), use_backend('cpu_depthwise'):
        convolve(X, KERNEL, stride=2, **CALL)
    convolve(X, KERNEL, stride=2, **CALL)


def test_in_this_thread_only(chosen):
    with use_backend('fft'):
        thread = threading.Thread(target=lambda: convolve(X, KERNEL, **CALL))
        thread.start()
        thread.join()
    assert chosen == ['cpu_depthwise']


@torch.no_grad()
def test_a_kept_kernel_stays(chosen):
    layer = DCLSConv2d(
        4, 4, 3, dilated_kernel_size=15, groups=4, formulation='construct'
    ).eval()
    layer(X)
    kept = layer._kept_kernel
    with use_backend('fft'):
        layer(X)
    assert layer._kept_kernel is kept
    assert chosen == ['cpu_depthwise', 'fft']


def test_the_environment_forces_one(chosen, environment):
    environment('fft')
    convolve(X, KERNEL, **CALL)
    with use_backend('native'):
        convolve(X, KERNEL, **CALL)
    convolve(X, KERNEL, **CALL, backend='cpu_depthwise')
    convolve(X, KERNEL, **CALL)
    environment('')
    convolve(X, KERNEL, **CALL)
    assert chosen == ['fft', 'native', 'cpu_depthwise', 'fft', 'cpu_depthwise']


def test_a_wrong_environment(environment):
    environment('cuda')
    for _ in range(2):
        with pytest.raises(ValueError, match='variable DCLS_MM_BACKEND must be one of'):
            convolve(X, KERNEL, **CALL)
    convolve(X, KERNEL, **CALL, backend='native')


def test_importing_reads_no_environment():
    """A wrong name stops what convolves, and nothing else."""
    program = 'import dcls_mm.functional as f; f.autotune(False)'
    environment = {'DCLS_MM_BACKEND': 'cuda', 'PYTHONPATH': ':'.join(sys.path)}
    subprocess.run([sys.executable, '-c', program], env=environment, check=True)


@pytest.mark.parametrize('kind', ['function', 'layer'])
def test_a_compiled_graph_follows(kind):
    """Another graph for another backend, the first one again after the block."""
    torch._dynamo.reset()
    layer = LargeKernelConv2d(4, 4, 15, padding=7, groups=4, bias=False)
    layer.weight = torch.nn.Parameter(KERNEL)

    def function(x):
        return convolve(x, KERNEL, **CALL)

    graphs = []

    def backend(graph, _):
        graphs.append(graph.print_readable(print_output=False))
        return graph.forward

    convolve(X, KERNEL, **CALL)
    run = torch.compile(
        layer if kind == 'layer' else function, fullgraph=True, backend=backend
    )
    for force in (None, 'fft', None, 'native'):
        if force is None:
            run(X)
            continue
        with use_backend(force):
            run(X)
    # Before 2.7 torch takes a compiled graph for an exported one, of plain operators.
    by_fft = hasattr(torch.compiler, 'is_exporting')
    assert ['rfftn' in graph for graph in graphs] == [False, by_fft, False]


def test_the_choice_is_logged_once_a_shape(caplog, monkeypatch):
    monkeypatch.setattr(room, '_logged', set())
    convolve(X, KERNEL, **CALL)
    assert not caplog.records
    with caplog.at_level(logging.DEBUG, logger='dcls_mm'):
        for size in (18, 18, 17, 18):
            convolve(X[..., :size], KERNEL, **CALL)
        convolve(X, KERNEL, **CALL, backend='native')
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 3
    assert all(record.levelno == logging.DEBUG for record in caplog.records)
    assert messages[0].startswith("backend 'cpu_depthwise': input (1, 4, 18, 18), ")
    assert messages[2].startswith("backend 'native'")
