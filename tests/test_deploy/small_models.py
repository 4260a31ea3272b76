"""mmdet's and mmseg's own model configs, made small, each with DCLS in the backbone.

They have random weights.
"""

import copy

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import save_checkpoint

import dcls_mm  # noqa: F401

DIMS = [8, 16, 24, 32]
NORM = dict(type='BN', requires_grad=True)
# Kernels of 9 elements in 5x5 pixels, which replace all 3x3 ones and the stem.
DCLS = dict(type='DCLSConv2d', dilated_kernel_size=5)


def convnext(**options):
    return dict(
        type='ConvNeXtDCLS',
        arch=dict(depths=[1, 1, 1, 1], dims=DIMS),
        depthwise_cfg=dict(type='DCLSConv2d', kernel_count=5, dilated_kernel_size=7),
        **options,
    )


def resnet(scope, **options):
    return dict(type=f'{scope}.ResNet', depth=18, base_channels=8, **options)


def replaced_stem(scope, **options):
    return dict(
        type='ReplacedConvBackbone',
        backbone=resnet(scope, **options),
        layer=dict(type='DCLSConv2d', dilated_kernel_size=9),
        name='^conv1',
    )


def _segmentor(backbone, channels=64):
    head = dict(
        type='FCNHead',
        in_channels=channels,
        in_index=3,
        channels=8,
        num_convs=1,
        num_classes=3,
        norm_cfg=NORM,
    )
    return dict(
        type='EncoderDecoder',
        data_preprocessor=dict(type='SegDataPreProcessor', size_divisor=32),
        backbone=backbone,
        decode_head=head,
        test_cfg=dict(mode='whole'),
    )


def _narrow(model):
    """Give one of mmseg's models the small backbone."""
    model['pretrained'] = None
    model['backbone'] = convnext()
    model['data_preprocessor']['size_divisor'] = 32
    model.pop('auxiliary_head', None)
    heads = model['decode_head']
    for head in heads if isinstance(heads, list) else [heads]:
        head['num_classes'] = 3
        if head.get('norm_cfg'):
            head['norm_cfg'] = NORM
    return model


def _ocr(model):
    _narrow(model)
    for head in model['decode_head']:
        head.update(in_channels=DIMS, channels=16)
    model['decode_head'][1]['ocr_channels'] = 8
    return model


def _point_rend(model):
    _narrow(model)
    model['neck'].update(in_channels=DIMS, out_channels=16)
    model['decode_head'][0].update(in_channels=[16] * 4, channels=16)
    model['decode_head'][1].update(in_channels=[16], channels=16)
    model['test_cfg']['subdivision_num_points'] = 64
    return model


def _enc(model):
    _narrow(model)
    model['decode_head'].update(in_channels=DIMS[1:], channels=16, num_codes=4)
    return model


def _detr(model):
    model['backbone'] = resnet('mmdet', out_indices=(3,), conv_cfg=DCLS)
    model['neck'].update(in_channels=[64], out_channels=32)
    model['num_queries'] = model['test_cfg']['max_per_img'] = 5
    model['bbox_head'].update(embed_dims=32, num_classes=3)
    model['positional_encoding']['num_feats'] = 16
    for part in ('encoder', 'decoder'):
        model[part]['num_layers'] = 1
        layer = model[part]['layer_cfg']
        for attention in ('self_attn_cfg', 'cross_attn_cfg'):
            if attention in layer:
                layer[attention].update(embed_dims=32, num_heads=2)
        layer['ffn_cfg'].update(embed_dims=32, feedforward_channels=32)
    return model


def _mask2former(model):
    model['backbone'] = convnext()
    head = model['panoptic_head']
    head.update(in_channels=DIMS, feat_channels=32, out_channels=32, num_queries=5)
    head['pixel_decoder']['num_outs'] = 3
    for layers in (head['pixel_decoder']['encoder'], head['transformer_decoder']):
        layers['num_layers'] = 1
        layer = layers['layer_cfg']
        for attention in ('self_attn_cfg', 'cross_attn_cfg'):
            if attention in layer:
                layer[attention].update(embed_dims=32, num_heads=2)
        layer['ffn_cfg'].update(embed_dims=32, feedforward_channels=32)
    head['transformer_decoder']['num_layers'] = 3
    for part in (head, head['pixel_decoder']):
        part['positional_encoding']['num_feats'] = 16
    return model


def _retinanet(model):
    model['backbone'] = convnext()
    model['neck'].update(in_channels=DIMS, out_channels=16)
    model['bbox_head'].update(
        num_classes=3, in_channels=16, feat_channels=16, stacked_convs=1
    )
    return model


def _grey_retinanet(model):
    _retinanet(model)
    model['backbone']['in_channels'] = 1
    model['data_preprocessor'].update(mean=[100.0], std=[50.0], bgr_to_rgb=False)
    return model


def _four_channels(_):
    model = _segmentor(convnext(in_channels=4), DIMS[-1])
    model['data_preprocessor'].update(mean=[100.0] * 4, std=[50.0] * 4)
    model['decode_head']['align_corners'] = True
    return model


# Name -> scope, config of that package, function that makes it small.
BASE = '_base_/models'
ALL = {
    'resnet with conv_cfg': (
        *('mmseg', None),
        lambda _: _segmentor(resnet('mmseg', conv_cfg=DCLS)),
    ),
    'replaced stem': (*('mmseg', None), lambda _: _segmentor(replaced_stem('mmseg'))),
    '4 channels': ('mmseg', None, _four_channels),
    '1 channel': ('mmdet', f'{BASE}/retinanet_r50_fpn.py', _grey_retinanet),
    'ocrnet': ('mmseg', f'{BASE}/ocrnet_hr18.py', _ocr),
    'pointrend': ('mmseg', f'{BASE}/pointrend_r50.py', _point_rend),
    'encnet': ('mmseg', f'{BASE}/encnet_r50-d8.py', _enc),
    'detr': ('mmdet', 'detr/detr_r50_8xb2-150e_coco.py', _detr),
    'mask2former': (
        'mmdet',
        'mask2former/mask2former_r50_8xb2-lsj-50e_coco.py',
        _mask2former,
    ),
}


def model_config(name):
    """Return the scope and the model's config, as plain dicts."""
    scope, base, change = ALL[name]
    cfg = Config.fromfile(_packaged(scope, base)).to_dict() if base else {'model': None}
    return scope, change(copy.deepcopy(cfg['model']))


def _packaged(scope, base):
    module = __import__(scope)
    return f'{module.__path__[0]}/.mim/configs/{base}'


def write_model(folder, name):
    """Write a config and a checkpoint of random weights; return both names."""
    scope, model = model_config(name)
    imports = dict(imports=['dcls_mm'], allow_failed_imports=False)
    cfg = Config(dict(default_scope=scope, custom_imports=imports, model=model))
    config, checkpoint = str(folder / 'model.py'), str(folder / 'model.pth')
    cfg.dump(config)
    init_default_scope(scope)
    torch.manual_seed(0)
    weights = MODELS.build(cfg.model).state_dict()
    meta = {'dataset_meta': {'classes': ('a', 'b', 'c')}}
    save_checkpoint({'state_dict': weights, 'meta': meta}, checkpoint)
    return config, checkpoint
