"""Converted weights compute what those of the other packages did."""

import re
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from conftest import assert_close
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

import dcls_mm  # noqa: F401
from dcls_mm.backbones import ConvNeXtDCLS
from dcls_mm.conversion import (
    from_convnext,
    from_convnext_dcls,
    from_mmdet2,
    from_mmseg0,
    to_convnext,
    to_convnext_dcls,
)

CONFIG_ROOT = Path(__file__).parents[2] / 'configs'
GOLDEN = 'golden/convnext_dcls_small_sync.pt'
SMALL = dict(depths=[1, 2], dims=[8, 12])
GRID = dict(type='DCLSConv2d', kernel_count=49, dilated_kernel_size=17)


def build(depthwise_cfg, **arguments) -> ConvNeXtDCLS:
    """A small backbone in which every parameter matters, in float64."""
    backbone = ConvNeXtDCLS(
        arch=SMALL,
        depthwise_cfg=depthwise_cfg,
        layer_scale_init_value=1.0,
        out_indices=(0, 1),
        **arguments,
    )
    with torch.no_grad():
        for name, parameter in backbone.named_parameters():
            if not name.endswith(('.P', '.SIG')):
                parameter.normal_(std=0.3)
    return backbone.double()


def assert_same_outputs(actual, expected):
    x = torch.randn(1, 3, 64, 96, dtype=torch.float64)
    for ours, theirs in zip(actual(x), expected(x)):
        assert_close(ours, theirs)


def classifier(backbone) -> OrderedDict:
    """The original's classifier: one norm after pooling, and a head."""
    state_dict = OrderedDict(
        (k, v) for k, v in backbone.state_dict().items() if not k.startswith('norm')
    )
    for key, shape in {'norm': (12,), 'head': (5, 12)}.items():
        state_dict[f'{key}.weight'] = torch.randn(shape, dtype=torch.float64)
        state_dict[f'{key}.bias'] = torch.randn(shape[0], dtype=torch.float64)
    return state_dict


# The inverse of the packages' own converters from the original's keys, key by key.
def mmpretrain_key(key: str) -> str:
    if key.startswith('head'):
        return key.replace('head', 'head.fc')
    key = key.replace('dwconv', 'depthwise_conv').replace('pwconv', 'pointwise_conv')
    return 'backbone.' + re.sub('^norm', 'norm3', key)


def timm_key(key: str) -> str:
    parts = key.split('.')
    inner = {'dwconv': 'conv_dw', 'pwconv1': 'mlp.fc1', 'pwconv2': 'mlp.fc2'}
    if parts[0] == 'downsample_layers':
        stage = parts[1]
        start = ['stem'] if stage == '0' else ['stages', stage, 'downsample']
        parts = [*start, *parts[2:]]
    elif parts[0] == 'stages':
        _, stage, block, name, *rest = parts
        parts = ['stages', stage, 'blocks', block, inner.get(name, name), *rest]
    else:
        parts = ['head', {'norm': 'norm', 'head': 'fc'}[parts[0]], *parts[1:]]
    return '.'.join(parts)


FORMS = {'convnext': str, 'mmpretrain': mmpretrain_key, 'timm': timm_key}


@pytest.fixture
def plain():
    return build(dict(type='Conv2d', kernel_size=7))


@pytest.mark.parametrize('interpolation', ['bilinear', 'triangle', 'max'])
@pytest.mark.parametrize('release', FORMS)
def test_plain_weights_on_a_grid(plain, release, interpolation):
    """The outputs' norms, which a classifier lacks, are copied apart."""
    source = classifier(plain)
    theirs = OrderedDict((FORMS[release](k), v) for k, v in source.items())
    converted = from_convnext(theirs, release=release, interpolation=interpolation)
    ours = build({**GRID, 'interpolation': interpolation})
    norms = {k: v for k, v in plain.state_dict().items() if k.startswith('norm')}
    head = {k: converted.pop(k) for k in source if k.startswith(('norm', 'head'))}
    assert all(torch.equal(source[key], value) for key, value in head.items())
    converted.update(norms)
    ours.load_state_dict(converted)
    assert_same_outputs(ours, plain)
    # The blocks of a stage, which share P here, must have the same.
    first, second = (converted[f'stages.1.{i}.dwconv.P'] for i in range(2))
    assert torch.equal(first, second)
    assert first.shape == (2, 12, 1, 49) and first.abs().max() == 3


def test_norms_of_a_dense_backbone_stay(plain):
    theirs = OrderedDict(
        ('backbone.' + k.replace('dwconv', 'depthwise_conv'), v)
        for k, v in plain.state_dict().items()
    )
    converted = from_convnext(theirs, release='mmpretrain')
    ours = build(GRID)
    ours.load_state_dict(converted)
    assert_same_outputs(ours, plain)


def test_linear_layers_as_convolutions(plain):
    theirs = plain.state_dict()
    for key, value in theirs.items():
        if '.pwconv' in key and value.ndim == 2:
            theirs[key] = value[:, :, None, None]
    ours = build(GRID)
    ours.load_state_dict(from_convnext(theirs))
    assert_same_outputs(ours, plain)


def test_conversion_leaves_input_and_random_numbers(plain):
    theirs = plain.state_dict()
    before = {key: value.clone() for key, value in theirs.items()}
    state = torch.random.get_rng_state()
    from_convnext(theirs)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert list(theirs) == list(before)
    assert all(torch.equal(theirs[key], value) for key, value in before.items())


@pytest.mark.parametrize('axes', [(0, 1), (1, 0)])
@pytest.mark.parametrize('interpolation', ['bilinear', 'gauss'])
def test_learned_kernels_become_dense(interpolation, axes):
    extent = (9, 5)
    cfg = dict(
        type='DCLSConv2d',
        kernel_count=6,
        dilated_kernel_size=extent,
        interpolation=interpolation,
        position_axes=axes,
    )
    ours = build(cfg)
    dense = to_convnext(
        ours.state_dict(), dilated_kernel_size=extent, interpolation=interpolation
    )
    plain = build(dict(type='Conv2d', kernel_size=extent))
    plain.load_state_dict(dense)
    assert_same_outputs(plain, ours)


def test_there_and_back_gives_the_grown_kernels(plain):
    dense = to_convnext(from_convnext(plain.state_dict()), dilated_kernel_size=17)
    for key, value in plain.state_dict().items():
        grown = key.endswith('dwconv.weight')
        expected = torch.nn.functional.pad(value, [5] * 4) if grown else value
        assert torch.equal(dense[key], expected), key


@pytest.mark.parametrize(
    ('release', 'change', 'message'),
    [
        (
            'convnext',
            lambda s: {**s, 'stages.0.0.grn.gamma': s['norm.bias']},
            'has no stages.0.0.grn.gamma$',
        ),
        (
            'convnext',
            lambda s: {timm_key(k): v for k, v in s.items()},
            'keys of convnext, which has no stem.0.weight, .* more',
        ),
        ('timm', lambda s: {'norm.weight': s['norm.weight']}, 'only norm.weight'),
        ('timm', lambda s: {}, 'only nothing'),
        ('timm', lambda s: s, "not of timm: .* 'convnext', downsample_layers.0.0.w"),
        ('torch', lambda s: s, "release must be one of .*'timm'.*got 'torch'"),
        (
            'convnext',
            lambda s: {**s, 'stages.0.0.dwconv.weight': torch.ones(8, 8, 7, 7)},
            r'stages.0.0.dwconv.weight must be depthwise.*\(8, 8, 7, 7\)',
        ),
        (
            'mmpretrain',
            lambda s: {**s, 'backbone.stages.0.0.depthwise_conv.P': s['norm.bias']},
            'no backbone.stages.0.0.depthwise_conv.P$',
        ),
    ],
)
def test_other_weights_are_refused(plain, release, change, message):
    with pytest.raises(ValueError, match=message):
        from_convnext(change(classifier(plain)), release=release)


@pytest.mark.parametrize('extent', [5, 16])
def test_extents_that_do_not_fit(plain, extent):
    with pytest.raises(ValueError, match='dilated_kernel_size'):
        from_convnext(plain.state_dict(), dilated_kernel_size=extent)


def published_backbone(version, extent=5, count=4):
    """The published layers in a backbone's place, their P one a stage, and weights."""
    layers = pytest.importorskip('DCLS.construct.modules')
    model = build(dict(type='Conv2d', kernel_size=extent))
    for stage in model.stages:
        for block in stage:
            channels = block.norm.normalized_shape[0]
            block.dwconv = layers.Dcls2d(
                channels,
                channels,
                kernel_count=count,
                dilated_kernel_size=extent,
                padding=extent // 2,
                groups=channels,
                version=version,
            )
            torch.nn.init.uniform_(block.dwconv.P, -2, 2)
            block.dwconv.P, block.dwconv.SIG = stage[0].dwconv.P, stage[0].dwconv.SIG
    return model.double()


@pytest.mark.parametrize('version', ['v0', 'v1', 'max', 'gauss'])
def test_published_weights(version):
    theirs = published_backbone(version)
    state_dict = theirs.state_dict()
    converted = from_convnext_dcls(state_dict, version=version)
    cfg = dict(
        type='DCLSConv2d', kernel_count=4, dilated_kernel_size=5, interpolation=version
    )
    ours = build(cfg)
    ours.load_state_dict(converted)
    assert_same_outputs(ours, theirs)
    back = to_convnext_dcls(ours.state_dict(), version=version)
    assert list(back) == list(ours.state_dict())
    assert all(torch.equal(back[key], value) for key, value in state_dict.items())


def test_golden_weights_are_ours_already(shared_file):
    golden = torch.load(shared_file(GOLDEN), weights_only=True)
    source = golden['state_dict']
    converted = from_convnext_dcls(source, version='v0')
    assert list(converted) == list(source)
    assert all(torch.equal(converted[key], value) for key, value in source.items())


@pytest.mark.parametrize('name', ['P', 'SIG'])
def test_blocks_that_do_not_share(name):
    state_dict = published_backbone('gauss').state_dict()
    key = f'stages.1.1.dwconv.{name}'
    state_dict[key] = state_dict[key] + 1
    with pytest.raises(ValueError, match=rf'{key} differs from stages\.1\.0.*{name},'):
        from_convnext_dcls(state_dict, version='gauss')
    apart = from_convnext_dcls(state_dict, version='gauss', sync_positions=False)
    assert torch.equal(apart[key], state_dict[key].flip(0))


def test_wrong_published_weights(plain):
    with pytest.raises(ValueError, match=r'no stages.0.0.dwconv.P.*only downsample'):
        from_convnext_dcls(plain.state_dict(), version='v0')
    state_dict = published_backbone('gauss').state_dict()
    with pytest.raises(ValueError, match="SIG.*version can't be 'v0'"):
        from_convnext_dcls(state_dict, version='v0')
    converted = from_convnext_dcls(state_dict, version='gauss')
    with pytest.raises(ValueError, match='of a layer of dcls_mm already'):
        from_convnext_dcls(converted, version='gauss')


def build_model(config):
    """The model of a published recipe, narrow."""
    cfg = Config.fromfile(CONFIG_ROOT / config)
    init_default_scope(cfg.default_scope)
    model = cfg.model
    model.backbone.update(arch=dict(depths=[1, 2, 1, 1], dims=[8, 8, 8, 8]))
    model.backbone.init_cfg = None
    if 'roi_head' in model:
        model.neck.update(in_channels=[8] * 4, out_channels=8)
        for head in model.roi_head.bbox_head:
            head.update(in_channels=8, conv_out_channels=8, fc_out_channels=16)
        for part in ('bbox_roi_extractor', 'mask_roi_extractor'):
            model.roi_head[part].out_channels = 8
        model.roi_head.mask_head.update(in_channels=8, conv_out_channels=8)
        model.rpn_head.update(in_channels=8, feat_channels=8)
    else:
        model.decode_head.update(in_channels=[8] * 4, channels=8)
        model.auxiliary_head.update(in_channels=8, channels=8)
    return MODELS.build(model)


def old_keys(detector: bool) -> set:
    """What mmdet 2.28.2 and mmseg 0.30.0 call the weights beside the backbone's."""

    def conv(name, norm):
        keys = {f'{name}.conv.weight'}
        if not norm:
            return keys | {f'{name}.conv.bias'}
        running = ('running_mean', 'running_var', 'num_batches_tracked')
        return keys | {f'{name}.bn.{k}' for k in ('weight', 'bias', *running)}

    def linear(*names):
        return {f'{name}.{k}' for name in names for k in ('weight', 'bias')}

    if detector:
        keys = linear('rpn_head.rpn_conv', 'rpn_head.rpn_cls', 'rpn_head.rpn_reg')
        for i in range(4):
            for convs in ('lateral_convs', 'fpn_convs'):
                keys |= conv(f'neck.{convs}.{i}', norm=False)
        for stage in range(3):
            box, mask = (f'roi_head.{k}_head.{stage}' for k in ('bbox', 'mask'))
            keys |= linear(f'{box}.fc_cls', f'{box}.fc_reg', f'{box}.shared_fcs.0')
            keys |= linear(f'{mask}.upsample', f'{mask}.conv_logits')
            for i in range(4):
                keys |= conv(f'{box}.shared_convs.{i}', norm=True)
                keys |= conv(f'{mask}.convs.{i}', norm=False)
        return keys
    keys = linear('decode_head.conv_seg', 'auxiliary_head.conv_seg')
    convs = [
        *(f'decode_head.psp_modules.{i}.1' for i in range(4)),
        *(f'decode_head.{k}_convs.{i}' for k in ('lateral', 'fpn') for i in range(3)),
        'decode_head.bottleneck',
        'decode_head.fpn_bottleneck',
        'auxiliary_head.convs.0',
    ]
    return keys.union(*(conv(name, norm=True) for name in convs))


COCO = (
    'cascade_mask_rcnn/'
    'cascade-mask-rcnn_convnext-dcls-t_fpn_4conv1fc-giou_amp-ms-crop-3x_coco.py'
)
ADE = 'upernet/convnext-dcls-tiny_upernet_8xb2-amp-160k_ade20k-512x512.py'
WHOLE_MODELS = {'mmdet2': (from_mmdet2, COCO), 'mmseg0': (from_mmseg0, ADE)}


@pytest.mark.parametrize('source', WHOLE_MODELS)
def test_whole_models(source):
    convert, config = WHOLE_MODELS[source]
    model = build_model(config)
    own = model.state_dict()
    heads = {key for key in own if not key.startswith('backbone.')}
    assert heads == old_keys(detector=source == 'mmdet2')
    # As an old file: other values, and no metadata of ours.
    theirs = {key: torch.rand_like(v.float()).to(v.dtype) for key, v in own.items()}
    theirs['backbone.stages.1.1.dwconv.P'] = theirs['backbone.stages.1.0.dwconv.P']
    converted = convert(theirs, version='v0')
    model.load_state_dict(converted, strict=True)
    for key, value in model.state_dict().items():
        assert torch.equal(value, theirs[key]), key


@pytest.mark.parametrize(
    ('convert', 'change', 'message'),
    [
        (from_mmdet2, lambda k: 'ema_' + k.replace('.', '_'), 'which has no ema_back'),
        (from_mmdet2, lambda k: k.replace('roi_', 'mask_'), 'no mask_head'),
        (from_mmdet2, lambda k: k.replace('roi_', 'rpn_'), 'no keys with roi_head'),
        (from_mmseg0, str, 'segmentor of mmseg 0, which has no roi_head.fc'),
    ],
)
def test_other_models_are_refused(convert, change, message):
    backbone = published_backbone('v0').state_dict()
    theirs = {f'backbone.{k}': v for k, v in backbone.items()}
    theirs['roi_head.fc'] = torch.ones(1)
    from_mmdet2(theirs, version='v0')
    with pytest.raises(ValueError, match=message):
        convert({change(k): v for k, v in theirs.items()}, version='v0')
