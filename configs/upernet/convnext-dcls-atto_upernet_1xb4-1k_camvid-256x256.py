# The UperNet family at a size that a CPU can train from random weights:
# ConvNeXt-dcls-atto and 64 channels in the heads.
_base_ = [
    '../_base_/models/upernet_convnext-dcls.py',
    '../_base_/datasets/camvid.py',
    '../_base_/schedules/adamw_dcls.py',
    '../_base_/mmseg_runtime.py',
]
norm_cfg = dict(type='BN')
num_classes = 11

model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=dict(arch='atto'),
    decode_head=dict(
        in_channels=[40, 80, 160, 320],
        channels=64,
        num_classes=num_classes,
        norm_cfg=norm_cfg,
    ),
    auxiliary_head=dict(
        in_channels=160, channels=64, num_classes=num_classes, norm_cfg=norm_cfg
    ),
)

max_iters = 1000
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=200)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(
        type='PolyLR', power=1.0, eta_min=0.0, by_epoch=False, begin=50, end=max_iters
    ),
]
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=200))
