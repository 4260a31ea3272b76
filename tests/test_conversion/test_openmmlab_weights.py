"""Whole models of the published code, as mmdet 3 and mmseg 1 have them."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from dcls_mm.backbones import ConvNeXtDCLS
from dcls_mm.conversion import from_mmdet2, from_mmseg0

CONFIG_ROOT = Path(__file__).parents[2] / 'configs'


def build_model(config):
    """Build a narrow model of a published recipe."""
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
    """Return the weights' names, without backbone, in mmdet 2.28.2 or mmseg 0.30.0."""

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
    # As in an old file: other values, and no metadata of ours.
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
    arch = dict(depths=[1, 2], dims=[8, 12])
    backbone = ConvNeXtDCLS(arch, out_indices=-1).state_dict()
    theirs = {f'backbone.{k}': v for k, v in backbone.items()}
    theirs['roi_head.fc'] = torch.ones(1)
    from_mmdet2(theirs, version='v0')
    with pytest.raises(ValueError, match=message):
        convert({change(k): v for k, v in theirs.items()}, version='v0')
