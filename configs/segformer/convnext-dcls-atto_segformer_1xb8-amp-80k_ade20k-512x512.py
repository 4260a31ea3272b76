# A light segmentor for one GPU: ConvNeXt-dcls-atto under SegFormer's head of linear
# layers, from random weights.
_base_ = [
    'mmseg::_base_/models/segformer_mit-b0.py',
    '../_base_/datasets/ade20k_512x512.py',
    '../_base_/schedules/adamw_dcls.py',
    '../_base_/mmseg_runtime.py',
]

model = dict(
    data_preprocessor=dict(size=(512, 512)),
    backbone=dict(_delete_=True, type='ConvNeXtDCLS', arch='atto'),
    decode_head=dict(
        in_channels=[40, 80, 160, 320], num_classes=150, norm_cfg=dict(type='BN')
    ),
)

max_iters = 80000
train_dataloader = dict(batch_size=8)
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=8000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(
        type='PolyLR', power=1.0, eta_min=0.0, by_epoch=False, begin=1500, end=max_iters
    ),
]
optim_wrapper = dict(type='AmpOptimWrapper', optimizer=dict(lr=5e-4))
default_hooks = dict(checkpoint=dict(interval=8000))
auto_scale_lr = dict(enable=False, base_batch_size=8)
