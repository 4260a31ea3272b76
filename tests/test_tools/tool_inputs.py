"""Configs, data and weights of small models, as inputs of any tool."""

import re
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

import dcls_mm  # noqa: F401

CLASSES = ('square', 'disc')
SIDE = 64
DIMS = [8, 16]  # of two stages, at 1/4 and 1/8 of the image's size
RESNET = dict(
    type='ResNet',
    depth=18,
    base_channels=8,
    num_stages=2,
    strides=(1, 2),
    dilations=(1, 1),
    out_indices=(0, 1),
)


def convnext(**depthwise_cfg):
    arch = dict(depths=(1, 1), dims=DIMS)
    return dict(
        type='ConvNeXtDCLS',
        arch=arch,
        out_indices=(0, 1),
        depthwise_cfg=depthwise_cfg,
    )


# The same as in README.
BACKBONES = {
    'dcls': convnext(type='DCLSConv2d', kernel_count=5, dilated_kernel_size=7),
    'plain': convnext(type='Conv2d', kernel_size=7),
    'dense': convnext(type='LargeKernelConv2d', kernel_size=17),
    'dilated': convnext(type='Conv2d', kernel_size=3, dilation=2),
    'flex': convnext(type='FlexConv2d', dilated_kernel_size=7),
    'resnet': dict(RESNET, conv_cfg=dict(type='DCLSConv2d', dilated_kernel_size=9)),
    'replaced': dict(
        type='ReplacedConvBackbone',
        backbone=RESNET,
        layer=dict(type='DCLSConv2d', dilated_kernel_size=9),
        name='layer2',
        kernel_size=3,
    ),
}
META_KEYS = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
COLOURS = {1: 'grayscale', 3: 'color', 4: 'unchanged'}

# Modules that configs in pure Python import these classes from.
MODULES = {
    'mmdet.models': 'RetinaNet DetDataPreprocessor FPN RetinaHead',
    'mmdet.datasets': 'CocoDataset',
    'mmdet.datasets.transforms': 'PackDetInputs',
    'mmdet.evaluation': 'CocoMetric',
    'mmseg.models': 'EncoderDecoder SegDataPreProcessor FCNHead',
    'mmseg.datasets': 'BaseSegDataset',
    'mmseg.datasets.transforms': 'PackSegInputs',
    'mmseg.evaluation': 'IoUMetric',
    'mmcv.transforms': 'LoadImageFromFile',
    'mmengine.dataset': 'RepeatDataset ConcatDataset',
    'mmengine.runner': 'TestLoop',
    'torch.nn': 'Conv2d',
    'dcls_mm.backbones': 'ConvNeXtDCLS ReplacedConvBackbone',
    'dcls_mm.layers': 'DCLSConv2d FlexConv2d LargeKernelConv2d',
}


def model_cfg(scope, backbone, channels):
    cfg = dict(BACKBONES[backbone])
    if backbone == 'replaced':
        cfg['backbone'] = dict(cfg['backbone'], in_channels=channels)
    else:
        cfg['in_channels'] = channels
    numbers = dict(mean=[100.0] * channels, std=[50.0] * channels)
    if scope == 'mmseg':
        return dict(
            type='EncoderDecoder',
            data_preprocessor=dict(
                type='SegDataPreProcessor', size=(SIDE, SIDE), **numbers
            ),
            backbone=cfg,
            decode_head=dict(
                type='FCNHead',
                in_channels=DIMS[-1],
                in_index=1,
                channels=8,
                num_convs=1,
                num_classes=len(CLASSES),
            ),
            test_cfg=dict(mode='whole'),
        )
    return dict(
        type='RetinaNet',
        data_preprocessor=dict(
            type='DetDataPreprocessor',
            pad_size_divisor=32,
            **(numbers if channels in (1, 3) else {}),  # mmengine only normalises these
        ),
        backbone=cfg,
        neck=dict(type='FPN', in_channels=DIMS, out_channels=8, num_outs=2),
        bbox_head=dict(
            type='RetinaHead',
            num_classes=len(CLASSES),
            in_channels=8,
            stacked_convs=1,
            feat_channels=8,
            anchor_generator=dict(
                type='AnchorGenerator', scales=[4], ratios=[1.0], strides=[4, 8]
            ),
            bbox_coder=dict(type='DeltaXYWHBBoxCoder'),
        ),
        test_cfg=dict(
            nms_pre=20,
            score_thr=0.0,
            nms=dict(type='nms', iou_threshold=0.5),
            max_per_img=5,
        ),
    )


def dataset_cfg(scope, wrapper, channels):
    load = dict(type='LoadImageFromFile', color_type=COLOURS[channels])
    common = dict(data_root='data', metainfo=dict(classes=CLASSES), test_mode=True)
    if scope == 'mmseg':
        dataset = dict(
            type='BaseSegDataset',
            data_prefix=dict(img_path='images', seg_map_path='labels'),
            img_suffix='.png',
            pipeline=[
                load,
                dict(type='LoadAnnotations'),
                dict(type='PackSegInputs'),
            ],
            **common,
        )
    else:
        dataset = dict(
            type='CocoDataset',
            data_prefix=dict(img='images'),
            ann_file='truth.json',
            pipeline=[
                load,
                dict(type='Resize', scale=(SIDE, SIDE)),
                dict(type='LoadAnnotations', with_bbox=True),
                dict(
                    type='PackDetInputs',
                    meta_keys=META_KEYS,
                ),
            ],
            **common,
        )
    if wrapper == 'RepeatDataset':
        return dict(type=wrapper, dataset=dataset, times=1)
    if wrapper == 'ConcatDataset':
        return dict(type=wrapper, datasets=[dataset])
    return dataset


def write_config(scope, style, wrapper, channels, backbone):
    metric = dict(type='CocoMetric', ann_file='data/truth.json', metric='bbox')
    if scope == 'mmseg':
        metric = dict(type='IoUMetric', iou_metrics=['mIoU'])
    cfg = dict(
        default_scope=scope,
        model=model_cfg(scope, backbone, channels),
        test_dataloader=dict(
            batch_size=1,
            num_workers=0,
            dataset=dataset_cfg(scope, wrapper, channels),
            sampler=dict(type='DefaultSampler', shuffle=False),
        ),
        test_evaluator=metric,
        test_cfg=dict(type='TestLoop'),
        visualizer=dict(
            type='DetLocalVisualizer' if scope == 'mmdet' else 'SegLocalVisualizer'
        ),
        custom_imports=dict(imports=['dcls_mm'], allow_failed_imports=False),
    )
    text = Config(cfg).pretty_text
    if style == 'python':
        cfg.pop('custom_imports')
        cfg['default_scope'] = None
        text = Config(cfg).pretty_text
        packages = ('mmcv', 'mmengine', 'torch', 'dcls_mm', scope)
        for module, names in MODULES.items():
            used = [n for n in names.split() if f"type='{n}'" in text]
            if used and module.startswith(packages):
                text = f'from {module} import {", ".join(used)}\n{text}'
                text = re.sub(rf"type='({'|'.join(used)})'", r'type=\1', text)
        # Names that don't become classes get their scope, as there is no default.
        text = re.sub(
            r"type='(\w+Visualizer|LoadAnn\w+|Resize)'", rf"type='{scope}.\1'", text
        )
        text = re.sub(r"type='(AnchorGenerator|\w+Coder)'", r"type='mmdet.\1'", text)
    Path('config.py').write_text(text)


def write_data(scope, channels):
    rng = np.random.default_rng(0)
    for folder in ('images', 'labels'):
        Path('data', folder).mkdir(parents=True)
    for name in ('a', 'b'):
        pixels = rng.integers(0, 256, (SIDE, SIDE, channels), dtype=np.uint8)
        cv2.imwrite(f'data/images/{name}.png', pixels)
        labels = rng.integers(0, 2, (SIDE, SIDE), dtype=np.uint8)
        cv2.imwrite(f'data/labels/{name}.png', labels)
    box = dict(category_id=1, bbox=[8, 8, 24, 24], area=576, iscrowd=0)
    size = dict(height=SIDE, width=SIDE)
    truth = dict(
        images=[dict(id=i, file_name=f'{n}.png', **size) for i, n in enumerate('ab')],
        annotations=[dict(box, id=i + 1, image_id=i) for i in range(2)],
        categories=[dict(id=i + 1, name=name) for i, name in enumerate(CLASSES)],
    )
    Config(truth).dump('data/truth.json')


def write_weights(scope, backbone, channels):
    """Write a plain state_dict, without class names; return the parameter count."""
    init_default_scope(scope)
    torch.manual_seed(0)
    model = MODELS.build(model_cfg(scope, backbone, channels))
    torch.save({'state_dict': model.state_dict()}, 'weights.pth')
    return sum(parameter.numel() for parameter in model.parameters())
