"""No layer copies or waits for the host; streams, devices and CUDA graphs."""

import pytest
import torch
from conftest import assert_close
from cuda_case import assert_repeats, needs_cuda, needs_two_devices

from dcls_mm.functional import INTERPOLATIONS
from dcls_mm.layers import (
    DCLSConv1d,
    DCLSConv2d,
    DCLSConv3d,
    DCLSConvTranspose2d,
    FlexConv2d,
    LargeKernelConv2d,
)

pytestmark = needs_cuda

DEPTHWISE = dict(padding=4, groups=8)
SPACED = dict(kernel_count=5, dilated_kernel_size=9)
IMAGE = (16, 24)

# name -> (class, arguments after the channels, size of the images): each kind of layer.
LAYERS = {
    f'DCLSConv2d {name} {backend}': (
        DCLSConv2d,
        DEPTHWISE | SPACED | dict(interpolation=name, backend=backend),
        IMAGE,
    )
    for name in INTERPOLATIONS
    for backend in (None, 'native', 'triton')
}
LAYERS |= {
    'DCLSConv1d': (DCLSConv1d, DEPTHWISE | SPACED, (40,)),
    'DCLSConv3d': (DCLSConv3d, DEPTHWISE | SPACED, (9, 10, 11)),
    'DCLSConv2d, dense': (DCLSConv2d, dict(padding=4) | SPACED, IMAGE),
    'DCLSConv2d, strided': (DCLSConv2d, dict(stride=2) | DEPTHWISE | SPACED, IMAGE),
    'DCLSConv2d, sampled': (
        DCLSConv2d,
        dict(padding=4, formulation='sample') | SPACED,
        IMAGE,
    ),
    'DCLSConvTranspose2d': (
        DCLSConvTranspose2d,
        dict(stride=2) | DEPTHWISE | SPACED,
        (8, 12),
    ),
    'LargeKernelConv2d': (
        LargeKernelConv2d,
        dict(kernel_size=9, backend='triton') | DEPTHWISE,
        IMAGE,
    ),
    # Otherwise the host reads the mask.
    'FlexConv2d': (
        FlexConv2d,
        dict(dilated_kernel_size=9, groups=8, crop_every=None),
        IMAGE,
    ),
}


def case(name):
    """Return a function that runs a layer forward and backward, and what it reads."""
    kind, arguments, size = LAYERS[name]
    layer = kind(8, 8, **arguments).cuda()
    x = torch.randn(2, 8, *size, device='cuda', requires_grad=True)
    inputs = [x, *layer.parameters()]

    def step():
        y = layer(x)
        return [y, *torch.autograd.grad(y, inputs, torch.ones_like(y))]

    return step, inputs


@pytest.mark.parametrize('name', LAYERS)
def test_nothing_waits_for_the_host(name):
    step, _ = case(name)
    for _ in range(2):
        step()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode('error')
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode('default')


@pytest.mark.parametrize('name', LAYERS)
def test_a_cuda_graph_replays_it(name):
    """Also with other values than it was captured with."""
    step, inputs = case(name)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        captured = step()
    with torch.no_grad():
        for tensor in inputs:
            tensor.mul_(0.9)
    graph.replay()
    torch.cuda.synchronize()
    for actual, expected in zip(captured, step()):
        # torch's own convolution may run another algorithm of cuDNN.
        assert_close(actual, expected, factor=1000)


@pytest.mark.parametrize('name', LAYERS)
def test_it_repeats_bitwise(name):
    """Output and all gradients, where cuDNN is asked for that too."""
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        assert_repeats(case(name)[0])


def test_a_side_stream():
    """It works on the current stream, so what comes before it there is done."""
    kind, arguments, size = LAYERS['DCLSConv2d gauss triton']
    layer = kind(8, 8, **arguments).cuda()
    x = torch.randn(2, 8, *size, device='cuda')
    expected = layer(2 * x)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        # Long enough that work on another stream would be done before it.
        delay = torch.randn(8192, 8192, device='cuda')
        delay = delay @ delay
        y = layer(2 * x + 0 * delay[0, 0].clamp(0, 1))
    torch.cuda.current_stream().wait_stream(stream)
    assert torch.equal(y, expected)


@needs_two_devices
@pytest.mark.parametrize('current', [0, 1])
def test_a_device_that_is_not_the_current_one(current):
    kind, arguments, size = LAYERS['DCLSConv2d gauss triton']
    layer = kind(8, 8, **arguments)
    x = torch.randn(2, 8, *size)
    results = []
    for device in (0, 1):
        placed = layer.to(f'cuda:{device}')
        image = x.to(f'cuda:{device}').requires_grad_()
        with torch.cuda.device(current):
            y = placed(image)
            grads = torch.autograd.grad(y.sum(), [image, *placed.parameters()])
        results.append([t.detach().cpu() for t in (y, *grads)])
    for first, second in zip(*results):
        assert torch.equal(first, second)
