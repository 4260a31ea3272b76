"""What a ConvNeXt block copies on a GPU, counted on tensors without memory.

The device 'meta' stands for CUDA wherever the backbone treats all but a CPU alike.
Units: the bytes of one image, (batch, channels, height, width), of the block.
"""

import contextlib

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from traffic import Traffic

from dcls_mm.backbones import ConvNeXtDCLS
from dcls_mm.backbones.convnext_blocks import ConvNeXtBlock

SHAPE = (2, 32, 40, 48)
IMAGE = 2 * 32 * 40 * 48
DEPTHWISE = dict(type='Conv2d', kernel_size=7)


def stand_in():
    """Make what keeps the format and is cast as a conv is, though not on 'meta'."""
    return nn.PReLU(SHAPE[1])


def on_meta(**options):
    with torch.device('meta'):
        return ConvNeXtBlock(SHAPE[1], DEPTHWISE, **options)


def traffic_of(block, memory_format):
    """Return the traffic of a forward and a backward pass, and the output."""
    x = torch.empty(SHAPE, device='meta').to(memory_format=memory_format)
    x.requires_grad_()
    with Traffic(IMAGE) as forward:
        y = block(x)
    with Traffic(IMAGE) as backward:
        y.backward(torch.empty_like(y))
    return forward, backward, y


@pytest.mark.parametrize('drop_path_rate', [0.0, 0.5])
def test_one_copy_each_way_around_a_contiguous_convolution(drop_path_rate):
    """One in front of the norm; back, one for the linear layer, one for the conv."""
    block = on_meta(drop_path_rate=drop_path_rate)
    forward, backward, y = traffic_of(block, torch.contiguous_format)
    assert y.is_contiguous()
    assert [name for name, _ in forward.calls] == [
        'convolution',
        '_to_copy',
        'native_layer_norm',
        'addmm',
        'gelu',
        'addmm',
        'addcmul',
    ]
    assert forward.copies == ['_to_copy']
    assert backward.copies == ['clone', 'inside convolution_backward']
    assert round(forward.moved / IMAGE / 4) == 27
    assert round(backward.moved / IMAGE / 4) == 58


@pytest.mark.parametrize('drop_path_rate', [0.0, 0.5])
def test_no_copy_around_a_channels_last_convolution(drop_path_rate):
    block = on_meta(drop_path_rate=drop_path_rate)
    block.dwconv = stand_in().to('meta')
    forward, backward, y = traffic_of(block, torch.channels_last)
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert len(forward.calls) == 6
    assert not forward.copies + backward.copies


def test_without_layer_scale_only_the_sum_remains():
    block = on_meta(layer_scale_init_value=0)
    forward, backward, _ = traffic_of(block, torch.contiguous_format)
    assert forward.calls[-1][0] == 'add'
    assert forward.copies == ['_to_copy']
    assert backward.copies == ['clone', 'inside convolution_backward']


def on_fake_cuda(module):
    """Give a module, made in a FakeTensorMode, parameters that say they are on CUDA."""
    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False):
            fake = torch.empty(parameter.shape, device='cuda', dtype=parameter.dtype)
            setattr(part, name, nn.Parameter(fake, requires_grad=False))


@contextlib.contextmanager
def half_on_cuda():
    """Enable autocast as torch.autocast does, which without CUDA refuses to."""
    before = torch.is_autocast_enabled('cuda'), torch.get_autocast_dtype('cuda')
    torch.set_autocast_enabled('cuda', True)
    torch.set_autocast_dtype('cuda', torch.float16)
    try:
        yield
    finally:
        torch.set_autocast_enabled('cuda', before[0])
        torch.set_autocast_dtype('cuda', before[1])


@pytest.mark.parametrize(
    'memory_format', [torch.contiguous_format, torch.channels_last]
)
@pytest.mark.parametrize('drop_path_rate', [0.0, 0.5])
def test_each_cast_once_under_autocast(memory_format, drop_path_rate):
    """Half in the convolution and the products, float32 in the norm and the residual.

    Forward only: without CUDA torch has no autograd on its tensors, not even fake ones.
    """
    with FakeTensorMode(), torch.no_grad(), half_on_cuda():
        block = ConvNeXtBlock(SHAPE[1], DEPTHWISE, drop_path_rate)
        block.dwconv = stand_in()
        on_fake_cuda(block)
        x = torch.empty(SHAPE, device='cuda').to(memory_format=memory_format)
        with Traffic(IMAGE) as traffic:
            y = block(x)
    assert y.dtype == torch.float32
    half, full = 'float16', 'float32'
    calls = [(name, [*dict.fromkeys(dtypes)]) for name, dtypes in traffic.calls]
    assert calls == [
        ('_to_copy', [full, half]),
        ('_prelu_kernel', [half]),
        ('_to_copy', [half, full]),  # with the change of format, if there is one
        ('native_layer_norm', [full]),
        ('_to_copy', [full, half]),
        ('addmm', [half]),
        ('gelu', [half]),
        ('addmm', [half]),
        ('addcmul', [full, half]),  # read as it is, computed in float32
    ]
    assert traffic.copies == ['_to_copy'] * 3


ARCH = dict(depths=[2, 1], dims=[32, 64])


def contiguous_stages(monkeypatch):
    """Let the backbone do on a CPU what it does on a GPU."""
    monkeypatch.setattr(
        ConvNeXtDCLS, '_stage_format', lambda self, x: torch.contiguous_format
    )


def test_stages_copy_at_their_borders_only(monkeypatch):
    """One copy in and one out of each, for both norms that follow; one per output."""
    contiguous_stages(monkeypatch)
    backbone = ConvNeXtDCLS(ARCH, depthwise_cfg=DEPTHWISE, out_indices=(0, 1))
    with torch.no_grad(), Traffic(64 * 20 * 24) as traffic:
        outputs = backbone(torch.randn(1, 3, 160, 192))
    image, borders, blocks, results = 1, 2 * 2, 3, 2
    assert len(traffic.copies) == image + borders + blocks + results
    assert not [copy for copy in traffic.copies if copy.startswith('inside')]
    assert all(y.is_contiguous() for y in outputs)


def test_contiguous_stages_give_the_same(monkeypatch):
    """Values, gradients and dropped samples are those of channels_last stages."""
    results = []
    for _ in range(2):
        torch.manual_seed(0)
        backbone = ConvNeXtDCLS(
            ARCH, out_indices=(0, 1), layer_scale_init_value=1.0, drop_path_rate=0.5
        ).double()
        x = torch.randn(3, 3, 64, 64, dtype=torch.double, requires_grad=True)
        outputs = backbone.train()(x)
        torch.autograd.backward(outputs, [torch.randn_like(y) for y in outputs])
        results.append([*outputs, x.grad, *(p.grad for p in backbone.parameters())])
        contiguous_stages(monkeypatch)
    for ours, theirs in zip(*results):
        torch.testing.assert_close(ours, theirs)


def test_contiguous_stages_compile_and_export(monkeypatch):
    contiguous_stages(monkeypatch)
    backbone = ConvNeXtDCLS(ARCH, out_indices=(0, 1)).eval()
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        expected = backbone(x)
        compiled = torch.compile(backbone, fullgraph=True, backend='aot_eager')(x)
    exported = torch.export.export(backbone, (x,), strict=False).module()(x)
    torch.testing.assert_close(compiled, expected)
    torch.testing.assert_close(exported, expected)


@pytest.mark.parametrize('asked', ['image', 'model'])
def test_channels_last_on_a_gpu_if_asked(asked):
    with torch.device('meta'):
        backbone = ConvNeXtDCLS(ARCH, depthwise_cfg=DEPTHWISE, out_indices=(0, 1))
    formats = []
    for block in (*backbone.stages[0], *backbone.stages[1]):
        block.dwconv.register_forward_pre_hook(
            lambda module, inputs: formats.append(
                inputs[0].is_contiguous(memory_format=torch.channels_last)
            )
        )
    image = torch.empty(1, 3, 64, 64, device='meta')
    backbone(image)
    assert not any(formats)
    formats.clear()
    if asked == 'image':
        image = image.contiguous(memory_format=torch.channels_last)
    else:
        backbone.to(memory_format=torch.channels_last)
    outputs = backbone(image)
    assert len(formats) == 3
    assert all(formats)
    assert all(y.is_contiguous() for y in outputs)
