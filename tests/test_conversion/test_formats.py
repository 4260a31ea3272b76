"""Weights of every format load, and compute what they did in their packages."""

import re
from collections import OrderedDict

import pytest
import torch
from conftest import assert_close
from mmengine.logging import MMLogger
from torch import nn

from dcls_mm.backbones import ConvNeXtDCLS
from dcls_mm.conversion import from_convnext
from dcls_mm.conversion.convnext_formats import FORMATS
from dcls_mm.conversion.recognition import matches, prefixes_in, recognise

from .other_convnexts import CASES, DEPTHS, DIMS, PACKAGES, forward, random_weights

PLAIN = dict(type='Conv2d', kernel_size=7)
LEARNED = dict(type='DCLSConv2d', kernel_count=49, dilated_kernel_size=17)


def build(v2: bool = False, depthwise_cfg=PLAIN, **arguments) -> ConvNeXtDCLS:
    return ConvNeXtDCLS(
        arch=dict(depths=DEPTHS, dims=DIMS),
        depthwise_cfg=depthwise_cfg,
        out_indices=range(len(DIMS)),
        grn=v2,
        layer_scale_init_value=0 if v2 else 1.0,
        **arguments,
    ).double()


def load(path, v2=False, depthwise_cfg=PLAIN, **options) -> ConvNeXtDCLS:
    init_cfg = dict(type='Pretrained', checkpoint=str(path), **options)
    backbone = build(v2, depthwise_cfg, init_cfg=init_cfg)
    backbone.init_weights()
    return backbone.eval()


@pytest.fixture
def said(monkeypatch):
    """Collect what is logged."""
    lines = []
    for level in ('info', 'warning'):
        monkeypatch.setattr(MMLogger, level, lambda self, text: lines.append(text))
    return lines


@pytest.fixture(params=CASES, ids=[f'{n}{" V2" * v2}' for n, v2 in CASES])
def case(request):
    """Return the format, the package, whether it is V2, and weights."""
    name, v2 = request.param
    form, package = PACKAGES[name]
    weights = random_weights(package, v2)
    if form == 'dinov3':
        for tensor in ('weight', 'bias'):
            weights[f'norms.3.{tensor}'] = weights[f'norm.{tensor}'].clone()
    return form, package, v2, weights


@pytest.mark.parametrize('depthwise_cfg', [PLAIN, LEARNED], ids=['plain', 'learned'])
def test_loads_and_computes_the_same(tmp_path, case, depthwise_cfg, said):
    form, package, v2, weights = case
    torch.save({'state_dict': weights}, tmp_path / 'weights.pth')
    backbone = load(tmp_path / 'weights.pth', v2, depthwise_cfg)
    assert f'with the keys of {FORMATS[form].title} ({form})' in said[0]
    x = torch.randn(2, 3, 48, 64, dtype=torch.float64)
    if not package.outputs:
        for i in range(len(DIMS)):
            setattr(backbone, f'norm{i}', nn.Identity())
    for ours, theirs in zip(backbone(x), forward(package, weights, x).stages):
        assert_close(ours, theirs)


@pytest.mark.parametrize('interpolation', ['bilinear', 'max'])
def test_converts_and_computes_the_same(case, interpolation):
    """All keys are read or listed; the classifier's are kept."""
    form, package, v2, weights = case
    match = recognise(weights)
    assert match.name == form
    converted = from_convnext(weights, interpolation=interpolation)
    assert set(match.original_names()) | set(match.left) == set(weights)
    plain = [key for key in converted if not key.endswith(('.P', '.SIG'))]
    assert sorted(match.original_names().values()) == sorted(plain)
    assert match.left == [key for key in weights if key.startswith('norms.')]
    backbone = build(v2, dict(LEARNED, interpolation=interpolation)).eval()
    backbone.load_state_dict(converted, strict=False)
    x = torch.randn(2, 3, 48, 64, dtype=torch.float64)
    theirs = forward(package, weights, x)
    if not package.outputs:
        backbone.norm2 = nn.Identity()
    y = backbone(x)[-1]
    if package.outputs:
        assert_close(y, theirs.stages[-1])
    if theirs.pooled is not None:
        y = y.mean((2, 3))
        norm = 'norm' if 'norm.weight' in converted else 'norm2'
        y = nn.functional.layer_norm(
            y,
            y.shape[1:],
            *(converted[f'{norm}.{t}'] for t in ('weight', 'bias')),
            1e-6,
        )
        assert_close(y, theirs.pooled)
    if theirs.logits is not None:
        y = nn.functional.linear(y, converted['head.weight'], converted['head.bias'])
        assert_close(y, theirs.logits)


def test_many_prefixes_are_refused_quickly():
    weights = {f'{i}.stem.0.weight': torch.ones(1) for i in range(20_000)}
    assert prefixes_in(weights) == {}


def test_one_format_fits(case):
    form, _, _, weights = case
    fitting = [m for m in matches(weights) if not m.unknown and not m.absent()]
    assert {match.name for match in fitting} == {form}


def test_a_mixture_is_refused(case):
    """One key of another package's blocks is enough."""
    form, _, _, weights = case
    for other, package in PACKAGES.values():
        if other == form:
            continue
        others = random_weights(package, bool(package.v2))
        strange = [key for key in others if key.count('.') > 2 and key not in weights]
        for key in strange:
            assert recognise({**weights, key: others[key]}) is None, (other, key)


@pytest.mark.parametrize(
    'key',
    [
        'stages.99999999999.0.gamma',
        'stages.0.99999999999.gamma',
        f'stages.0.{"9" * 10_000}.gamma',
        'stages.00.0.gamma',
        'stages.0.\u0660.gamma',
    ],
)
def test_numbers_that_no_network_has(key):
    """They are refused at once, and none stands for another."""
    weights = random_weights(PACKAGES['release'][1], False)
    assert recognise({**weights, key: torch.ones(8)}) is None


@pytest.mark.parametrize('wrapper', ['module.', ''])
@pytest.mark.parametrize('key', ['model', 'state_dict', 'state_dict_ema', 'model_ema'])
def test_wrapped_files(tmp_path, key, wrapper):
    _, package = PACKAGES['timm']
    weights = random_weights(package, False)
    wrapped = {f'{wrapper}{name}': value for name, value in weights.items()}
    others = {'state_dict': {'other': torch.ones(1)}} if key.endswith('ema') else {}
    torch.save({'epoch': 3, **others, key: wrapped}, tmp_path / 'weights.pth')
    kernel = load(tmp_path / 'weights.pth').stages[1][1].dwconv.weight
    assert torch.equal(kernel, weights['stages.1.blocks.1.conv_dw.weight'])


@pytest.mark.parametrize('start', ['backbone.', 'visual.trunk.', 'model.encoder.'])
@pytest.mark.parametrize(
    'name', ['mmpretrain backbone', 'timm', 'transformers convnext']
)
def test_inside_a_larger_model(tmp_path, start, name):
    form, package = PACKAGES[name]
    weights = {f'{start}{k}': v for k, v in random_weights(package, False).items()}
    weights['text.weight'] = torch.ones(2)
    torch.save(weights, tmp_path / 'weights.pth')
    title = re.escape(FORMATS[form].title)
    prefix = re.escape(f"give prefix='{start}' for those of ") + title
    with pytest.raises(ValueError, match=prefix):
        load(tmp_path / 'weights.pth')
    load(tmp_path / 'weights.pth', prefix=start)
    converted = from_convnext(weights, prefix=start)
    assert torch.equal(converted['text.weight'], weights['text.weight'])
    assert f'{start}stages.0.0.dwconv.P' in converted


def test_a_safetensors_file(tmp_path):
    safetensors = pytest.importorskip('safetensors.torch')
    _, package = PACKAGES['torchvision']
    weights = random_weights(package, False)
    safetensors.save_file(weights, tmp_path / 'model.safetensors')
    backbone = load(tmp_path / 'model.safetensors')
    for i in range(len(DIMS)):
        setattr(backbone, f'norm{i}', nn.Identity())
    x = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    for ours, theirs in zip(backbone(x), forward(package, weights, x).stages):
        assert_close(ours, theirs)


def test_learned_positions_in_timms_keys(tmp_path):
    """What timm trained with DCLS layers loads with its positions and metadata."""
    source = build(depthwise_cfg=dict(LEARNED, interpolation='gauss', kernel_count=5))
    timm = OrderedDict()
    timm._metadata = OrderedDict()
    inner = {'dwconv': 'conv_dw', 'pwconv1': 'mlp.fc1', 'pwconv2': 'mlp.fc2'}

    def name(key):
        parts = key.split('.')
        if parts[0] == 'downsample_layers':
            return '.'.join(
                ['stem', *parts[2:]]
                if parts[1] == '0'
                else ['stages', parts[1], 'downsample', *parts[2:]]
            )
        _, stage, block, module, *rest = parts
        return '.'.join(
            ['stages', stage, 'blocks', block, inner.get(module, module), *rest]
        )

    state_dict = source.state_dict()
    for key, value in state_dict.items():
        if not key.startswith('norm'):
            timm[name(key)] = value
    for key, notes in state_dict._metadata.items():
        if key.endswith('dwconv'):
            timm._metadata[name(key)] = notes
    torch.save(timm, tmp_path / 'weights.pth')
    cfg = dict(LEARNED, interpolation='gauss', kernel_count=5)
    loaded = load(tmp_path / 'weights.pth', depthwise_cfg=cfg)
    x = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    for ours, theirs in zip(loaded(x), source.eval()(x)):
        assert_close(ours, theirs)
    with pytest.raises(ValueError, match='positions already, in the keys of timm'):
        from_convnext(timm)


def test_what_is_not_read_is_logged(tmp_path, said):
    weights = random_weights(PACKAGES['timm'][1], False)
    weights['head.pre_logits.fc.weight'] = torch.ones(3, 3)
    torch.save(weights, tmp_path / 'weights.pth')
    load(tmp_path / 'weights.pth')
    assert 'not read: head.pre_logits.fc.weight' in said[0]
    assert 'not used: norm.weight, norm.bias, head.weight, head.bias' in said[-1]


@pytest.mark.parametrize(
    ('name', 'file', 'notice'),
    [
        ('DINOv3', 'a.pth', 'DINOv3 License'),
        ('transformers DINOv3', 'a.pth', 'DINOv3 License'),
        ('timm', 'convnext_tiny.dinov3_lvd1689m.pth', 'DINOv3 License'),
        ('timm', 'convnext_tiny.eupe_lvd1689m.pth', 'FAIR Noncommercial'),
        ('transformers convnextv2', 'a.pth', 'CC BY-NC 4.0'),
        ('timm', 'convnext_tiny.fb_in1k.pth', None),
    ],
)
def test_licences_that_restrict_use_are_said(tmp_path, said, name, file, notice):
    _, package = PACKAGES[name]
    weights = random_weights(package, bool(package.v2))
    if name == 'DINOv3':
        weights |= {f'norms.3.{t}': weights[f'norm.{t}'] for t in ('weight', 'bias')}
    torch.save(weights, tmp_path / file)
    load(tmp_path / file, bool(package.v2))
    assert any(str(notice) in line for line in said) == (notice is not None)


def test_heads_of_a_distillation_are_left(tmp_path, said):
    weights = random_weights(PACKAGES['release'][1], False)
    weights = {k: v for k, v in weights.items() if not k.startswith('head')}
    others = {'projectors.a.0.weight': torch.ones(2), 'norms.0.weight': torch.ones(2)}
    torch.save({**weights, **others}, tmp_path / 'weights.pth')
    load(tmp_path / 'weights.pth')
    assert "with the keys of EUPE's release (eupe)" in said[0]
    assert 'FAIR Noncommercial' in said[1]
    assert recognise({**weights, **others}).left == list(others)


def test_a_norm_stored_twice_must_be_the_same(tmp_path):
    _, package = PACKAGES['DINOv3']
    weights = random_weights(package, False)
    weights |= {f'norms.3.{t}': weights[f'norm.{t}'] for t in ('weight', 'bias')}
    weights['norms.3.bias'] = weights['norms.3.bias'] + 1
    torch.save(weights, tmp_path / 'weights.pth')
    with pytest.raises(ValueError, match=r'norms\.3\.bias differs from norm\.bias'):
        load(tmp_path / 'weights.pth')
