"""Configs with small models, and batches for them."""

import re

import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.structures import PixelData
from test_configs import OVER_TIMM, detection_batch, load, segmentation_batch

from dcls_mm.backbones.convnext import ARCHITECTURES

# Keys of numbers of channels, and of others that must stay in proportion to them.
WIDTHS = ('channels', 'embed_dims', 'num_feats', 'num_groups')


def with_fewer_channels(node):
    """Return a model's config with all numbers of channels divided by 8."""
    if isinstance(node, list):
        return [with_fewer_channels(item) for item in node]
    if not isinstance(node, dict):
        return node
    return {
        key: (np.array(value) // 8).tolist()
        if key.endswith(WIDTHS) and value is not None
        else value / 8
        if key == 'widen_factor'  # of CSPNeXt, which has no numbers of channels
        else with_fewer_channels(value)
        for key, value in node.items()
    }


def load_small(name):
    """Return the config with a model that trains in a moment on 64x64 images."""
    cfg = load(name)
    # MobileNet's widths are not divisible by 8, nor are atto's then by 4 orientations,
    # and timm's networks are of one size.
    if name not in OVER_TIMM and not re.search('mobilenet|rotated-dcls', name):
        small = ConfigDict(with_fewer_channels(cfg.model.to_dict()))
        if cfg.model.type == 'DINO':  # only one width of its decoder works
            cfg.model.neck.in_channels = small.neck.in_channels
        else:
            cfg.model = small
    model = cfg.model
    backbone = model.backbone.get('backbone', model.backbone)  # inside a wrapper
    if backbone.type == 'ConvNeXtDCLS':
        arch = backbone.arch
        dims = (ARCHITECTURES[arch] if isinstance(arch, str) else arch)['dims']
        divisor = 1 if 'rotated-dcls' in name else 8
        backbone.arch = dict(depths=(1, 1, 3, 1), dims=[d // divisor for d in dims])
        backbone.drop_path_rate = 0.0  # a dropped block would not learn
    elif backbone.type == 'TimmBackbone':
        backbone.drop_path_rate = 0.0
    elif backbone.type == 'ResNet':
        backbone.base_channels = 8
    if cfg.default_scope == 'mmrotate' and 'loss_bbox' in model.get('bbox_head', {}):
        # mmcv has the overlap of rotated boxes, as a loss, for GPUs alone.
        model.bbox_head.loss_bbox = dict(type='GDLoss', loss_type='gwd')
    model.data_preprocessor.pop('batch_augments', None)  # would pad to 1024 pixels
    if model.type == 'DINO':
        model.num_queries = 20  # such images have 85 places
        model.encoder.num_layers = model.decoder.num_layers = 2
    if cfg.default_scope == 'mmseg':
        model.data_preprocessor.size = (64, 64)
        if model.test_cfg.mode == 'slide':
            model.test_cfg.update(crop_size=(48, 48), stride=(32, 32))
    return cfg


def has_masks(model):
    heads = model.get('roi_head', {}), model.get('bbox_head', {})
    return (
        'panoptic_fusion_head' in model
        or 'mask_head' in heads[0]
        or 'loss_mask' in heads[1]
    )


def is_panoptic(model):
    return model.get('panoptic_fusion_head', {}).get('num_stuff_classes', 0) > 0


def batch_for(cfg):
    rng = np.random.default_rng(0)
    if cfg.default_scope == 'mmrotate':
        from mmrotate.structures import RotatedBoxes

        batch = detection_batch(rng)
        for sample in batch['data_samples']:
            del sample.gt_instances.masks
            boxes = torch.tensor([[30.0, 30.0, 24.0, 12.0, 0.3]])
            sample.gt_instances.bboxes = RotatedBoxes(boxes)
        return batch
    if cfg.default_scope == 'mmdet':
        batch = detection_batch(rng)
        for sample in batch['data_samples']:
            if not has_masks(cfg.model):
                # As their pipelines do: RTMDet takes masks for rotated boxes.
                del sample.gt_instances.masks
            if is_panoptic(cfg.model):
                mask = torch.from_numpy(sample.gt_instances.masks.masks)
                labels = torch.where(mask == 1, 0, 100)  # the thing, and some stuff
                sample.gt_sem_seg = PixelData(sem_seg=labels)
        return batch
    batch = segmentation_batch(rng)
    if cfg.model.decode_head.get('loss_decode', {}).get('class_weight'):
        # mmseg can't weight classes if pixels are ignored; the scenes ignore none.
        for sample in batch['data_samples']:
            sample.gt_sem_seg.data.clamp_(max=1)
    return batch
