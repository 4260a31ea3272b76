"""Linear layers over channels, which a CPU may compute as 1x1 convolutions."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dcls_mm.backbones import convnext_blocks
from dcls_mm.backbones.convnext_blocks import ChannelsLinear

LARGE = (1, 64, 40, 48)


class Convolutions(TorchDispatchMode):
    """Counts convolutions."""

    number = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.number += function is torch.ops.aten.convolution.default
        return function(*args, **(kwargs or {}))


def convolutions(function, *arguments):
    with Convolutions() as counted:
        function(*arguments)
    return counted.number


@pytest.fixture
def avx512(monkeypatch):
    monkeypatch.setattr(convnext_blocks, '_has_avx512', lambda: True)


@pytest.fixture(params=[1, 2])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('shape', [LARGE, (3, 20, 43, 48), (17, 1, 200, 48)])
def test_it_is_a_linear_layer(shape, bias, threads, avx512):
    torch.manual_seed(0)
    layer = ChannelsLinear(48, 96, bias=bias)
    plain = torch.nn.Linear(48, 96, bias=bias).double()
    plain.load_state_dict(layer.state_dict())
    x = torch.randn(shape, requires_grad=True)
    exact = x.detach().double().requires_grad_()
    assert convolutions(layer, x) == 1
    y, expected = layer(x), plain(exact)
    assert y.is_contiguous()
    cotangent = torch.randn(y.shape)
    found = torch.autograd.grad(y, [x, *layer.parameters()], cotangent)
    wanted = torch.autograd.grad(
        expected, [exact, *plain.parameters()], cotangent.double()
    )
    for one, other in zip([y, *found], [expected, *wanted], strict=True):
        assert one.shape == other.shape
        assert (one - other).abs().max() <= 3e-6 * other.abs().max()


def test_the_rest_stays_a_product(threads, avx512, monkeypatch):
    layer = ChannelsLinear(48, 96)
    x = torch.randn(LARGE)
    assert convolutions(layer, x) == 1
    assert convolutions(layer, x[:, :2]) == 0, 'small'
    assert convolutions(layer, x.flatten(0, 2)) == 0, 'not an image'
    with torch.autocast('cpu', torch.bfloat16):
        assert convolutions(layer, x) == 0
    with torch.backends.mkldnn.flags(enabled=False):
        assert convolutions(layer, x) == 0
    wide = ChannelsLinear(48, 96).double()
    assert convolutions(wide, x.double()) == 0
    traced = str(torch.jit.trace(layer, x).inlined_graph)
    assert 'aten::linear' in traced and 'convolution' not in traced
    assert 'linear' in str(torch.export.export(layer, (x,)).graph)
    monkeypatch.setattr(convnext_blocks, '_has_avx512', lambda: False)
    assert convolutions(layer, x) == 0
