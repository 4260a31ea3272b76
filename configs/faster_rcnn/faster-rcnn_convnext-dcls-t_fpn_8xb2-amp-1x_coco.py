# A small start: ConvNeXt-dcls-T under mmdet's Faster R-CNN, for 12 epochs.
_base_ = [
    'mmdet::_base_/models/faster-rcnn_r50_fpn.py',
    'mmdet::_base_/datasets/coco_detection.py',
    '../_base_/schedules/adamw.py',
    '../_base_/schedules/schedule_1x.py',
    '../_base_/mmdet_runtime.py',
]
# ImageNet-1k, exponential moving average of the weights, 82.5 % top-1.
checkpoint_file = (
    'https://zenodo.org/record/7112021/files/convnext_dcls_tiny_1k_224_ema.pth'
)

model = dict(
    backbone=dict(
        _delete_=True,
        type='ConvNeXtDCLS',
        arch='tiny',
        drop_path_rate=0.2,
        layer_scale_init_value=1.0,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint_file),
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
optim_wrapper = dict(
    type='AmpOptimWrapper',
    optimizer=dict(lr=1e-4),
    paramwise_cfg=dict(decay_type='layer_wise', decay_rate=0.7, num_layers=6),
)
auto_scale_lr = dict(enable=False, base_batch_size=16)
