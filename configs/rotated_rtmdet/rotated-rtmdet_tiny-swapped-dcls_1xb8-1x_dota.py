# mmrotate's rotated RTMDet-tiny with DCLS for the depthwise 5x5 convolutions of its
# backbone and neck. It starts from the detector that was trained on DOTA and computes
# what that does; then the elements learn to move within 11x11 pixels, at a tenth of the
# learning rate of the first training.
_base_ = [
    'mmrotate::rotated_rtmdet/rotated_rtmdet_tiny-3x-dota.py',
    '../_base_/schedules/position_learning.py',
]
custom_imports = dict(imports=['dcls_mm'], allow_failed_imports=False)

load_from = 'https://mmassets.onedl.ai/mmrotate/v1.0/rotated_rtmdet/rotated_rtmdet_tiny-3x-dota/rotated_rtmdet_tiny-3x-dota-9d821076.pth'  # noqa: E501
model = dict(
    type='ReplacedConvModel',
    model_type='mmdet.RTMDet',
    replace=dict(
        layer=dict(type='DCLSConv2d', dilated_kernel_size=11),
        kernel_size=5,
        depthwise=True,
    ),
    backbone=dict(init_cfg=None),
)

train_dataloader = dict(batch_size=8)
optim_wrapper = dict(optimizer=dict(lr=2.5e-5), **_base_.position_learning)
param_scheduler = [dict(type='CosineAnnealingLR', T_max=12, eta_min_ratio=0.05)]
train_cfg = dict(max_epochs=12)
custom_hooks = [*_base_.custom_hooks, _base_.clamp_positions]
default_hooks = dict(checkpoint=dict(type='AtomicCheckpointHook', max_keep_ckpts=3))
