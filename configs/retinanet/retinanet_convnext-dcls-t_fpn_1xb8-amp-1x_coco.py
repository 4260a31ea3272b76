# A one-stage detector for one GPU: ConvNeXt-dcls-T under RetinaNet's own neck and head.
_base_ = [
    'mmdet::_base_/models/retinanet_r50_fpn.py',
    'mmdet::_base_/datasets/coco_detection.py',
    '../_base_/schedules/adamw.py',
    '../_base_/schedules/schedule_1x.py',
    '../_base_/schedules/position_learning.py',
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
        drop_path_rate=0.1,
        layer_scale_init_value=1.0,
        # DDP refuses a norm without a gradient: the neck reads no first stage.
        out_indices=(1, 2, 3),
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint_file),
    ),
    neck=dict(in_channels=[192, 384, 768], start_level=0),
)
train_dataloader = dict(batch_size=8)
optim_wrapper = dict(
    _base_.position_learning,
    type='AmpOptimWrapper',
    optimizer=dict(lr=1e-4),
    clip_grad=dict(max_norm=10),
)
auto_scale_lr = dict(enable=False, base_batch_size=8)
