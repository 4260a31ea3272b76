"""The global response normalization of ConvNeXt-V2, alone and in the backbone."""

import io
import math

import pytest
import torch
from conftest import assert_close

from dcls_mm.backbones import ConvNeXtDCLS
from dcls_mm.backbones.convnext_blocks import GlobalResponseNorm
from dcls_mm.engine.optimizers import DCLSOptimizerConstructor

SMALL = dict(depths=[1, 2], dims=[8, 12])


def build(**arguments) -> ConvNeXtDCLS:
    """Build a small ConvNeXt-V2 in which every parameter matters."""
    given = dict(arch=SMALL, out_indices=(0, 1), layer_scale_init_value=0, grn=True)
    backbone = ConvNeXtDCLS(**{**given, **arguments})
    with torch.no_grad():
        for name, parameter in backbone.named_parameters():
            if not name.endswith(('.P', '.SIG')):
                parameter.normal_(std=0.3)
    return backbone


def by_the_paper(x, gamma, beta, eps=1e-6) -> list:
    """Algorithm 1 of arXiv 2301.00808, for nested lists (height, width, channels)."""
    channels = range(len(gamma))
    pixels = [pixel for row in x for pixel in row]
    norms = [math.sqrt(sum(pixel[c] ** 2 for pixel in pixels)) for c in channels]
    mean = sum(norms) / len(norms)
    return [
        [
            [
                gamma[c] * (pixel[c] * (norms[c] / (mean + eps))) + beta[c] + pixel[c]
                for c in channels
            ]
            for pixel in row
        ]
        for row in x
    ]


def random_norm(channels: int, dtype=torch.float64) -> GlobalResponseNorm:
    norm = GlobalResponseNorm(channels)
    torch.nn.init.normal_(norm.gamma)
    torch.nn.init.normal_(norm.beta)
    return norm.to(dtype)


def test_is_that_of_the_paper():
    norm = random_norm(5)
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    expected = [
        by_the_paper(image, norm.gamma.tolist(), norm.beta.tolist())
        for image in x.tolist()
    ]
    assert_close(norm(x), torch.tensor(expected, dtype=torch.float64))


def test_changes_nothing_at_the_start():
    x = torch.randn(2, 3, 4, 5)
    assert torch.equal(GlobalResponseNorm(5)(x), x)


def test_gradients():
    norm = random_norm(3)
    x = torch.randn(2, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    names, values = zip(*norm.named_parameters())

    def call(x, *values):
        return torch.func.functional_call(norm, dict(zip(names, values)), x)

    assert torch.autograd.gradcheck(call, (x, *values))


def test_an_image_without_response():
    """Dead channels, or all of them, have a finite result and gradient."""
    norm = random_norm(3)
    x = torch.randn(2, 2, 2, 3, dtype=torch.float64)
    x[0], x[1, ..., 0] = 0, 0
    x.requires_grad_()
    norm(x).square().sum().backward()
    assert torch.equal(norm(x)[0], norm.beta.expand(2, 2, 3))
    assert x.grad.isfinite().all() and norm.gamma.grad.isfinite().all()


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_narrow_inputs_are_summed_in_float32(dtype):
    """In float16 the sum of squares would overflow, and in bfloat16 lose digits."""
    norm = random_norm(4, torch.float32)
    x = (30 * torch.randn(1, 64, 64, 4)).to(dtype)
    y = norm(x)
    assert y.dtype == dtype
    assert_close(y, norm.double()(x.double()))


def test_in_the_backbone():
    """The blocks without GRN, with it written after the activation by hand."""
    backbone = build().double().eval()
    plain = build(grn=False).double().eval()
    state_dict = backbone.state_dict()
    norms = {key: state_dict.pop(key) for key in list(state_dict) if '.grn.' in key}
    assert sorted(norms)[:2] == ['stages.0.0.grn.beta', 'stages.0.0.grn.gamma']
    assert norms['stages.1.1.grn.gamma'].shape == (48,)
    plain.load_state_dict(state_dict)

    for i, stage in enumerate(plain.stages):
        for j, block in enumerate(stage):
            gamma, beta = (norms[f'stages.{i}.{j}.grn.{k}'] for k in ('gamma', 'beta'))

            def grn(module, inputs, y, gamma=gamma, beta=beta):
                norm = y.norm(dim=(1, 2), keepdim=True)
                norm = norm / (norm.mean(dim=-1, keepdim=True) + 1e-6)
                return gamma * (y * norm) + beta + y

            block.act.register_forward_hook(grn)
    x = torch.randn(2, 3, 32, 48, dtype=torch.float64)
    for ours, expected in zip(backbone(x), plain(x)):
        assert_close(ours, expected)


def test_published_parameter_count():
    """ConvNeXt-V2-T has 28,635,496 parameters with its norm and head."""
    with torch.device('meta'):
        backbone = ConvNeXtDCLS(
            'tiny',
            depthwise_cfg=dict(type='Conv2d', kernel_size=7),
            layer_scale_init_value=0,
            grn=True,
        )
    head, norms = 769 * 1000, 2 * (96 + 192 + 384)
    count = sum(p.numel() for p in backbone.parameters())
    assert count == 28_635_496 - head + norms


def test_checkpointing_and_autocast():
    x = torch.randn(1, 3, 32, 32)
    grads = []
    for with_cp in (False, True):
        torch.manual_seed(0)
        backbone = build(with_cp=with_cp).train()
        with torch.autocast('cpu', dtype=torch.bfloat16):
            sum(y.float().square().mean() for y in backbone(x)).backward()
        grads.append([p.grad for p in backbone.parameters()])
    for plain, checkpointed in zip(*grads):
        assert_close(checkpointed, plain)


def test_frozen_stages():
    backbone = build(frozen_stages=1)
    assert not backbone.stages[0][0].grn.gamma.requires_grad
    assert backbone.stages[1][0].grn.gamma.requires_grad


def test_deployed_and_compiled():
    backbone = build().eval()
    x = torch.randn(1, 3, 32, 32)
    expected = backbone(x)
    compiled = torch.compile(backbone, backend='eager', fullgraph=True)
    for y, own in zip(compiled(x), expected):
        assert_close(y, own, factor=5)
    backbone.switch_to_deploy()
    for y, own in zip(backbone(x), expected):
        assert_close(y, own, factor=5)


def test_exported(tmp_path):
    runtime = pytest.importorskip('onnxruntime')
    pytest.importorskip('onnx')
    backbone = build().eval()
    backbone.switch_to_deploy()
    x = torch.randn(1, 3, 32, 32)
    file = io.BytesIO()
    torch.onnx.export(backbone, (x,), file, dynamo=False)
    session = runtime.InferenceSession(
        file.getvalue(), providers=['CPUExecutionProvider']
    )
    outputs = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    for output, expected in zip(outputs, backbone(x)):
        assert_close(torch.from_numpy(output), expected, factor=5)


def test_is_not_decayed():
    """gamma and beta are one-dimensional, and go with their block's depth."""

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = build()

    model = Model()
    constructor = DCLSOptimizerConstructor(
        dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=1, weight_decay=0.1)),
        dict(num_layers=3, decay_rate=0.5, decay_type='stage_wise'),
    )
    groups = {
        id(parameter): group
        for group in constructor(model).param_groups
        for parameter in group['params']
    }
    for stage in model.backbone.stages:
        for block in stage:
            norm, linear = groups[id(block.grn.gamma)], groups[id(block.pwconv1.weight)]
            assert groups[id(block.grn.beta)] is norm
            assert norm['weight_decay'] == 0 < linear['weight_decay']
            assert norm['lr'] == linear['lr']
