"""How often FlexConv reads its mask, and which taps it has in between."""

import copy

import pytest
import torch
from conftest import assert_close
from torch import nn
from torch.utils.checkpoint import checkpoint

from dcls_mm.layers import FlexConv1d, FlexConv2d
from dcls_mm.layers.flexconv import layer as flexconv


@pytest.fixture
def reads(monkeypatch):
    """A list with an entry for each tensor that the host reads."""
    found, tolist = [], torch.Tensor.tolist

    def read(tensor):
        found.append(tensor.shape)
        return tolist(tensor)

    monkeypatch.setattr(torch.Tensor, 'tolist', read)
    return found


def layer_of(crop_every, **options):
    torch.manual_seed(0)
    return FlexConv2d(2, 2, 17, groups=2, padding=8, crop_every=crop_every, **options)


def taps(layer):
    return layer.kernel().shape[-1]


@torch.no_grad()
def widen(layer, factor=1.3):
    """Change the mask as a step of an optimizer does."""
    layer.mask_width.mul_(factor)


def test_steps_between_two_readings():
    layer, fresh = layer_of(3), layer_of(1)
    found = []
    for _ in range(7):
        found.append((taps(layer), taps(fresh)))
        widen(layer)
        widen(fresh)
    kept, needed = zip(*found)
    assert len(set(needed)) > 3
    assert kept == tuple(needed[3 * (i // 3)] for i in range(7))


def test_kept_taps_follow_the_mask_all_the_same():
    """Only their number is old: values and gradients are of the current mask."""
    layer = layer_of(5, crop_threshold=0.5)
    taps(layer)
    widen(layer)
    kernel, whole = layer.kernel(), layer_of(1, crop_threshold=None)
    whole.load_state_dict(layer.state_dict())
    cut = (17 - kernel.shape[-1]) // 2
    assert cut > 0
    inner = whole.kernel()[..., cut:-cut, cut:-cut]
    assert_close(kernel, inner)
    for a, b in zip(layer.parameters(), whole.parameters()):
        if a is layer.bias:
            continue
        (one,) = torch.autograd.grad(kernel.sin().sum(), a, retain_graph=True)
        (other,) = torch.autograd.grad(inner.sin().sum(), b, retain_graph=True)
        assert_close(one, other, factor=10)


@pytest.mark.parametrize('padding', [8, 'causal'])
def test_never_reading_computes_the_same(padding):
    kind = FlexConv1d if padding == 'causal' else FlexConv2d
    layers = []
    for every in (1, None):
        torch.manual_seed(0)
        layers.append(kind(2, 2, 17, 1, padding, crop_every=every, mask_width=0.2))
    reading, never = layers
    x = torch.randn(2, 2, *(20,) * reading.ndim)
    assert taps(reading) < taps(never) == 17
    assert_close(never(x), reading(x), factor=5)
    for layer in layers:
        layer(x).square().sum().backward()
    for one, other in zip(never.parameters(), reading.parameters()):
        assert_close(one.grad, other.grad, factor=50)


@pytest.mark.parametrize(('crop_every', 'steps'), [(1, 4), (2, 2), (None, 0)])
def test_what_the_host_reads(crop_every, steps, reads):
    layer = layer_of(crop_every)
    reads.clear()
    for _ in range(4):
        layer(torch.randn(1, 2, 20, 20)).sum().backward()
        widen(layer, 1.01)
    assert reads == [(2, 2)] * steps, 'mean and width together'


def test_calls_without_a_step_in_between_are_no_steps():
    layer = layer_of(2)
    first = taps(layer)
    widen(layer, 2.0)
    assert [taps(layer) for _ in range(4)] == [first] * 4
    widen(layer)
    assert taps(layer) > first


def test_a_block_that_is_computed_again_has_the_same_taps():
    """Otherwise torch.utils.checkpoint would raise an error."""
    layer = layer_of(2)
    for _ in range(4):
        x = torch.randn(1, 2, 20, 20, requires_grad=True)
        checkpoint(layer, x, use_reentrant=False).sum().backward()
        widen(layer, 1.5)


FORGETTING = {
    'train': lambda layer: layer.train(),
    'eval and train': lambda layer: layer.eval().train(),
    'dtype': lambda layer: layer.double(),
    'load': lambda layer: layer.load_state_dict(layer.state_dict()),
    'assign': lambda layer: layer.load_state_dict(layer.state_dict(), assign=True),
    'copy': copy.deepcopy,
    'threshold': lambda layer: setattr(layer, 'crop_threshold', 0.2),
    'interval': lambda layer: setattr(layer, 'crop_every', 1),
    'parameter': lambda layer: setattr(
        layer, 'mask_width', nn.Parameter(layer.mask_width.detach().clone())
    ),
}


@pytest.mark.parametrize('name', FORGETTING)
def test_the_mask_is_read_again_after(name):
    layer = layer_of(100)
    before = taps(layer)
    widen(layer, 3.0)
    assert taps(layer) == before
    result = FORGETTING[name](layer)
    assert taps(result if name == 'copy' else layer) > before


def test_another_resolution_has_its_own_taps():
    layer = layer_of(100)
    before = taps(layer)
    layer.set_resolution(2.0)
    assert taps(layer) > before
    layer.set_resolution(1.0)
    assert taps(layer) == before


@pytest.mark.parametrize('crop_every', [100, None])
def test_evaluation_has_the_taps_of_the_current_mask(crop_every):
    layer = layer_of(crop_every)
    taps(layer)
    widen(layer, 2.0)
    fresh = layer_of(1).eval()
    fresh.load_state_dict(layer.state_dict())
    x = torch.randn(1, 2, 20, 20)
    with torch.no_grad():
        assert taps(layer.eval()) == taps(fresh) < 17
        assert torch.equal(layer(x), fresh(x))


def test_in_a_cuda_graph_all_taps_are_there(monkeypatch, reads):
    layer = layer_of(1)
    cropped = layer.kernel()
    monkeypatch.setattr(flexconv, 'capturing', lambda: True)
    reads.clear()
    kernel = layer.kernel()
    assert not reads and kernel.shape[-1] == 17
    cut = (17 - cropped.shape[-1]) // 2
    assert_close(kernel[..., cut:-cut, cut:-cut], cropped)
    assert torch.count_nonzero(kernel) == torch.count_nonzero(cropped)


@pytest.mark.parametrize('crop_every', [2, None])
def test_compiled_as_one_graph(crop_every):
    torch._dynamo.reset()
    layer = layer_of(crop_every)
    x = torch.randn(2, 2, 20, 20)
    expected = layer(x)
    compiled = torch.compile(layer, fullgraph=True, backend='aot_eager')
    assert_close(compiled(x), expected, factor=5)


def test_repr():
    assert 'crop_every=4' in repr(layer_of(4))
    assert 'crop_every' not in repr(layer_of(1))
