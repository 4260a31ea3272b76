"""Models that timm, torchvision and transformers build load, and compute the same."""

import sys
from pathlib import Path

import pytest
import torch
from conftest import assert_close
from torch import nn

from dcls_mm.backbones import ConvNeXtDCLS
from dcls_mm.backbones.weight_facts import facts_of
from dcls_mm.conversion import from_convnext
from dcls_mm.conversion.convnext_weights import read_convnext

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / 'benchmarks'))
from package_models import SOURCES, randomize  # noqa: E402

pytestmark = pytest.mark.timm

LEARNED = dict(type='DCLSConv2d', kernel_count=49, dilated_kernel_size=17)


def load(path, weights, depthwise_cfg) -> ConvNeXtDCLS:
    """Load a file into the backbone that it is for, as its weights say."""
    facts = facts_of(read_convnext(weights)[1])
    torch.save(weights, path)
    backbone = ConvNeXtDCLS(
        arch=dict(depths=facts.depths, dims=facts.dims),
        depthwise_cfg=depthwise_cfg,
        layer_scale_init_value=float(facts.layer_scale),
        grn=facts.grn,
        init_cfg=dict(type='Pretrained', checkpoint=str(path)),
    ).double()
    backbone.init_weights()
    return backbone.eval()


@pytest.mark.parametrize('learned', [False, True], ids=['plain', 'learned'])
@pytest.mark.parametrize('name', SOURCES)
def test_computes_the_same(tmp_path, name, learned):
    source = SOURCES[name]
    model = randomize(source.build(True)).double()
    weights = model.state_dict()
    cfg = LEARNED if learned else dict(type='Conv2d', kernel_size=7)
    backbone = load(tmp_path / 'weights.pth', weights, cfg)
    if not source.normed:
        for i in range(4):
            setattr(backbone, f'norm{i}', nn.Identity())
    x = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    theirs = source.forward(model, x)
    ours = backbone(x)
    assert len(ours) == len(theirs.stages) == 4
    for y, expected in zip(ours, theirs.stages):
        assert_close(y, expected)
    if theirs.logits is not None:
        w = from_convnext(weights)
        y = ours[-1].mean((2, 3))
        y = nn.functional.layer_norm(
            y, y.shape[1:], w['norm.weight'], w['norm.bias'], 1e-6
        )
        y = nn.functional.linear(y, w['head.weight'], w['head.bias'])
        assert_close(y, theirs.logits)


def test_another_epsilon():
    """convnext_xxlarge's, which its file does not say."""
    import timm

    sizes = dict(depths=(1, 1, 1, 1), dims=(8, 12, 16, 24))
    model = randomize(timm.create_model('convnext_xxlarge', **sizes)).double()
    backbone = ConvNeXtDCLS(
        arch=sizes, depthwise_cfg=LEARNED, norm_eps=1e-5, layer_scale_init_value=1.0
    )
    backbone = backbone.double().eval()
    backbone.load_state_dict(from_convnext(model.state_dict()), strict=False)
    for i in range(4):
        setattr(backbone, f'norm{i}', nn.Identity())
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    theirs = model.forward_intermediates(x, intermediates_only=True)
    for y, expected in zip(backbone(x), theirs):
        assert_close(y, expected)


@pytest.mark.parametrize('name', SOURCES)
def test_every_key_is_read_or_left_for_a_reason(name):
    with torch.device('meta'):
        weights = SOURCES[name].build(True).state_dict()
    match, read = read_convnext(weights)
    left = {key.rpartition('.')[0] for key in match.left}
    assert left <= {'head.pre_logits.fc', 'norm_pre'}
    assert len(read) + len(match.left) == len(weights)
    assert sum(v.numel() for v in read.values()) == sum(
        value.numel() for key, value in weights.items() if key not in match.left
    )


@pytest.mark.parametrize(
    ('name', 'reason'),
    [
        ('convnext_atto_ols', "overlapping convolutions in its stem ('_ols')"),
        ('convnext_nano_ols', "overlapping convolutions in its stem ('_ols')"),
        ('convnext_atto_rms', 'RMS norms'),
        ('resnet18', 'looks like a ResNet'),
        ('vit_tiny_patch16_224', 'looks like a ViT'),
        ('swin_tiny_patch4_window7_224', 'looks like a Swin Transformer'),
        ('convformer_s18', 'looks like a MetaFormer'),
        ('fastvit_t8', 'looks like a MetaFormer'),
        ('efficientnet_b0', 'looks like an EfficientNet'),
        ('mobilenetv3_small_050', 'looks like an EfficientNet'),
    ],
)
def test_other_networks_are_named(name, reason):
    import timm

    with torch.device('meta'):
        weights = timm.create_model(name).state_dict()
    with pytest.raises(ValueError) as error:
        from_convnext(weights)
    assert reason in str(error.value)
