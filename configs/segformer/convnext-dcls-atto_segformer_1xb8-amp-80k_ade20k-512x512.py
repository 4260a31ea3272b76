# A light segmentor for one GPU: ConvNeXt-dcls-atto under SegFormer's head of linear
# layers, from random weights.
_base_ = [
    'mmseg::_base_/models/segformer_mit-b0.py',
    '../_base_/datasets/ade20k_512x512.py',
    '../_base_/schedules/adamw.py',
    '../_base_/schedules/schedule_80k.py',
    '../_base_/schedules/position_learning.py',
    '../_base_/mmseg_runtime.py',
]

model = dict(
    data_preprocessor=dict(size=(512, 512)),
    backbone=dict(_delete_=True, type='ConvNeXtDCLS', arch='atto'),
    decode_head=dict(
        in_channels=[40, 80, 160, 320], num_classes=150, norm_cfg=dict(type='BN')
    ),
)
train_dataloader = dict(batch_size=8)
optim_wrapper = dict(
    _base_.position_learning, type='AmpOptimWrapper', optimizer=dict(lr=5e-4)
)
default_hooks = dict(checkpoint=dict(interval=8000))
auto_scale_lr = dict(enable=False, base_batch_size=8)
