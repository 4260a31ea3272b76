# Oriented boxes on drawn scenes, from random weights, by filters in four orientations.
_base_ = [
    'mmrotate::rotated_rtmdet/rotated_rtmdet_tiny-3x-dota.py',
    '../_base_/datasets/shapes_oriented.py',
    '../_base_/schedules/position_learning.py',
]
custom_imports = dict(imports=['dcls_mm'], allow_failed_imports=False)

model = dict(
    backbone=dict(
        _delete_=True,
        type='ConvNeXtDCLS',
        arch='atto',
        depthwise_cfg=dict(
            type='RotatedDCLSConv2d', kernel_count=34, dilated_kernel_size=17
        ),
        layer_scale_init_value=1.0,
        out_indices=(1, 2, 3),
    ),
    neck=dict(in_channels=[80, 160, 320], norm_cfg=dict(type='BN')),
    bbox_head=dict(
        num_classes=5,
        norm_cfg=dict(type='BN'),
        loss_bbox=dict(_delete_=True, type='GDLoss', loss_type='gwd'),  # on a CPU too
    ),
)
train_dataloader = dict(_base_.oriented_train_dataloader, _delete_=True)
val_dataloader = dict(_base_.oriented_val_dataloader, _delete_=True)
test_dataloader = val_dataloader
optim_wrapper = dict(
    _base_.position_learning, optimizer=dict(lr=2e-3), clip_grad=dict(max_norm=10)
)
param_scheduler = [dict(type='LinearLR', start_factor=0.01, by_epoch=False, end=50)]
train_cfg = dict(max_epochs=4, val_interval=1)
default_hooks = dict(checkpoint=dict(type='AtomicCheckpointHook', interval=1))
