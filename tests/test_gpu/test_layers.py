"""Layers and a network with the backend 'triton' against torch's in float64."""

import copy
import sys
from pathlib import Path

import pytest
import torch
from conftest import assert_close
from cuda_case import CUDA, DEVICE, SUM_FACTOR, needs_cuda, needs_device, randn

from dcls_mm.functional import INTERPOLATIONS, use_backend
from dcls_mm.layers import DCLSConv2d

sys.path.append(str(Path(__file__).resolve().parents[2] / 'benchmarks' / 'gpu'))

from convnext import ConvNeXt  # noqa: E402

pytestmark = needs_device

# The rehearsal only shows that these tests run: 'triton' serves CUDA alone.
BACKEND = 'triton' if CUDA else 'native'
SIZE = (40, 56) if CUDA else (12, 16)
CHANNELS = 16
FORMATS = {
    'contiguous': torch.contiguous_format,
    'channels_last': torch.channels_last,
}


def dcls_layer(interpolation='bilinear', channels=CHANNELS, backend=None):
    return DCLSConv2d(
        channels,
        channels,
        padding=8,
        groups=channels,
        kernel_count=34,
        dilated_kernel_size=17,
        interpolation=interpolation,
        initial_positions='uniform',
        backend=backend,
    ).to(DEVICE)


def gradients(layer, x, seed):
    y = layer(x)
    found = torch.autograd.grad(y, [x, *layer.parameters()], seed.to(y.dtype))
    return [y, *found]


@pytest.mark.parametrize('memory_format', FORMATS)
@pytest.mark.parametrize('interpolation', list(INTERPOLATIONS))
def test_output_and_gradients(interpolation, memory_format):
    layer = dcls_layer(interpolation, backend=BACKEND)
    x = randn(2, CHANNELS, *SIZE).contiguous(memory_format=FORMATS[memory_format])
    seed = torch.randn_like(x)
    found = gradients(layer, x.requires_grad_(), seed)
    assert found[0].is_contiguous(memory_format=FORMATS[memory_format])

    exact = copy.deepcopy(layer).double()
    exact.backend = 'native'
    x = x.detach().double().requires_grad_()
    for actual, expected in zip(found, gradients(exact, x, seed.double())):
        assert_close(actual, expected, factor=2 * SUM_FACTOR)


@needs_cuda
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_under_autocast_the_kernel_gradient_is_float32(dtype):
    """A loss scale of 2^16 makes it larger than float16 can hold."""
    layer = dcls_layer(backend='triton')
    x = torch.ones(2, CHANNELS, *SIZE, device=DEVICE)
    with torch.autocast('cuda', dtype):
        y = layer(x)
    assert y.dtype == dtype
    kernel_gradients = torch.autograd.grad(
        y, [layer.weight, layer.P], torch.full_like(y, 2.0**10)
    )
    for gradient in kernel_gradients:
        assert gradient.dtype == torch.float32 and gradient.isfinite().all()
    assert kernel_gradients[0].abs().max() > torch.finfo(torch.float16).max


@needs_cuda
def test_a_step_with_a_grad_scaler():
    model = small_network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    scaler = torch.amp.GradScaler('cuda', init_scale=2.0**12)
    x = randn(2, 3, 64, 96)
    seeds = output_gradients(model, x)
    before = copy.deepcopy(model.state_dict())
    with use_backend('triton'):
        for _ in range(3):
            with torch.autocast('cuda', torch.float16):
                loss = sum((y * s).sum() for y, s in zip(model(x), seeds))
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
    assert scaler.get_scale() == 2.0**12  # no step was left out
    moved = [not torch.equal(before[k], v) for k, v in model.state_dict().items()]
    assert all(moved)


def small_network():
    model = ConvNeXt(
        (1, 1, 2, 1), (16, 24, 32, 40), lambda channels: dcls_layer('gauss', channels)
    )
    for name, parameter in model.named_parameters():
        if name.endswith('gamma'):  # else the blocks hardly count
            torch.nn.init.ones_(parameter)
    return model.to(DEVICE)


def output_gradients(model, x):
    """Return random ones: that of the outputs' mean vanishes after the last norm."""
    with torch.no_grad():
        return [torch.randn_like(y) / y.numel() for y in model(x)]


def test_a_network():
    """``use_backend`` reaches every layer of it, and nothing else changes."""
    model, x = small_network(), randn(2, 3, 64, 96)
    seeds = output_gradients(model, x)

    def run(backend):
        with use_backend(backend):
            outputs = model(x)
        return [*outputs, *torch.autograd.grad(outputs, [*model.parameters()], seeds)]

    for actual, expected in zip(run(BACKEND), run('native')):
        scale = expected.abs().max()
        assert (actual - expected).abs().max() <= 1e-3 * scale


@needs_cuda
def test_compiled_as_one_graph():
    layer = dcls_layer(backend='triton')
    x = randn(2, CHANNELS, *SIZE).requires_grad_()
    seed = torch.randn_like(x)
    compiled = torch.compile(layer, fullgraph=True)
    y = compiled(x)
    found = torch.autograd.grad(y, [x, *layer.parameters()], seed)
    for actual, expected in zip([y, *found], gradients(layer, x, seed)):
        assert_close(actual, expected, factor=2 * SUM_FACTOR)
