"""Construction multiplies in full, whatever precision torch may use for products."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from conftest import assert_close
from torch._subclasses import FakeTensorMode

from dcls_mm.functional import _torch, construct_kernel
from dcls_mm.layers import FlexConv2d

# What a user asks for -> whether float32 products may be rounded then.
SETTINGS = {
    'nothing': (lambda: None, False),
    'highest': (lambda: torch.set_float32_matmul_precision('highest'), False),
    'high': (lambda: torch.set_float32_matmul_precision('high'), True),
    'medium': (lambda: torch.set_float32_matmul_precision('medium'), True),
    'cuda, at first': (
        lambda: setattr(torch.backends.cuda.matmul, 'allow_tf32', True),
        True,
    ),
}


@pytest.fixture(autouse=True)
def restored():
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


@pytest.fixture
def rounded(monkeypatch):
    """Let all products on a CPU be of factors rounded to TF32, which has 10 bits."""

    def tf32(values):
        if values.dtype != torch.float32:
            return values
        mantissa, exponent = torch.frexp(values)
        return torch.ldexp((mantissa * 2**11).round() / 2**11, exponent)

    def of_rounded(product):
        return lambda *factors: product(*map(tf32, factors[:2]), *factors[2:])

    monkeypatch.setattr(torch, 'matmul', of_rounded(torch.matmul))
    monkeypatch.setattr(F, 'linear', of_rounded(F.linear))
    torch.set_float32_matmul_precision('high')


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize('name', SETTINGS)
def test_torch_is_asked(name):
    ask_for, expected = SETTINGS[name]
    ask_for()
    assert _torch._rounds_products('cuda') is expected
    assert _torch._rounds_products('meta') is False


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize('precision', ['tf32', 'ieee', 'none'])
def test_newer_settings_of_torch(precision, monkeypatch):
    """They may contradict the old one, which then raises an error when asked."""

    def mixed():
        raise RuntimeError('mix of the legacy and new APIs')

    matmul = SimpleNamespace(fp32_precision=precision)
    monkeypatch.setattr(torch.backends.cuda, 'matmul', matmul)
    monkeypatch.setattr(torch, 'get_float32_matmul_precision', mixed)
    assert _torch._rounds_products('cuda') is (precision == 'tf32')


@pytest.mark.parametrize('precision', ['highest', 'high'])
def test_older_settings_of_torch(precision, monkeypatch):
    monkeypatch.setattr(torch.backends.cuda, 'matmul', SimpleNamespace())
    monkeypatch.setattr(torch.backends, 'mkldnn', SimpleNamespace())
    torch.set_float32_matmul_precision(precision)
    assert _torch._rounds_products('cuda') is (precision == 'high')
    assert _torch._rounds_products('cpu') is (precision == 'high')


@pytest.mark.parametrize('interpolation', ['max', 'gauss'])
def test_a_kernel_and_its_gradients(interpolation, rounded):
    inputs = [torch.rand(4, 2, 9), 8 * torch.rand(2, 4, 2, 9), torch.rand(2, 4, 2, 9)]

    def results(dtype):
        leaves = [t.to(dtype).requires_grad_() for t in inputs]
        kernel = construct_kernel(*leaves, kernel_size=17, interpolation=interpolation)
        return kernel, *torch.autograd.grad(kernel.sin().sum(), leaves)

    assert torch.matmul(inputs[0][0], inputs[0][0].T).dtype == torch.float32
    for value, expected in zip(results(torch.float32), results(torch.float64)):
        assert value.dtype == torch.float32
        assert_close(value, expected, factor=5)


@pytest.mark.parametrize('net', ['magnet', 'siren', 'mlp', 'rotated'])
def test_a_network_of_coordinates(net, rounded):
    options = dict(type='magnet', rotated=True) if net == 'rotated' else dict(type=net)
    layer = FlexConv2d(4, 4, 9, groups=4, kernel_net=options, crop_threshold=None)
    kernel = layer.kernel()
    assert kernel.dtype == torch.float32
    assert_close(kernel, layer.double().kernel(), factor=10)


def dtype_of_factors(*factors):
    seen = []

    def product(a, b):
        seen.append(a.dtype)
        return a @ b

    assert _torch.in_full(product, *factors).dtype == factors[0].dtype
    return seen[0]


def test_only_float32_is_widened():
    torch.set_float32_matmul_precision('high')
    for dtype, wide in ((torch.float32, torch.float64), (torch.half, torch.half)):
        assert dtype_of_factors(*torch.rand(2, 3, 3, dtype=dtype)) == wide


def test_compiled_as_one_graph(monkeypatch):
    """For CUDA torch.compile can't ask, so products are always widened."""

    def product(a, b):
        return _torch.in_full(torch.matmul, a, b)

    a, b = torch.rand(5, 7), torch.rand(7, 3)
    torch._dynamo.reset()
    compiled = torch.compile(product, fullgraph=True, backend='aot_eager')
    assert torch.equal(compiled(a, b), a @ b)
    monkeypatch.setattr(torch.compiler, 'is_compiling', lambda: True)
    with FakeTensorMode():
        a, b = torch.empty(2, 3, 3, device='cuda')
        assert dtype_of_factors(a, b) == torch.float64
