# UperNet at a size that a CPU can train from random weights: ConvNeXt-atto and 64
# channels in the heads.
_base_ = [
    '../_base_/models/upernet_convnext.py',
    '../_base_/datasets/camvid.py',
    '../_base_/schedules/adamw.py',
    '../_base_/schedules/schedule_1k.py',
    '../_base_/mmseg_runtime.py',
]
norm_cfg = dict(type='BN')
head = dict(channels=64, num_classes=11, norm_cfg=norm_cfg)

model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=dict(arch='atto'),
    decode_head=dict(head, in_channels=[40, 80, 160, 320]),
    auxiliary_head=dict(head, in_channels=160),
)
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=200))
