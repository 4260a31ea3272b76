# mmdet's RTMDet-l with DCLS for the depthwise 5x5 convolutions of its backbone and
# neck. It starts from the detector that was trained on COCO and computes what that
# does; then the elements learn to move within 11x11 pixels, at a tenth of the learning
# rate of the first training.
_base_ = [
    'mmdet::rtmdet/rtmdet_l_8xb32-300e_coco.py',
    '../_base_/schedules/position_learning.py',
]
custom_imports = dict(imports=['dcls_mm'], allow_failed_imports=False)

load_from = 'https://download.openmmlab.com/mmdetection/v3.0/rtmdet/rtmdet_l_8xb32-300e_coco/rtmdet_l_8xb32-300e_coco_20220719_112030-5a0be7c4.pth'  # noqa: E501
model = dict(
    type='ReplacedConvModel',
    model_type='RTMDet',
    replace=dict(
        layer=dict(type='DCLSConv2d', dilated_kernel_size=11),
        kernel_size=5,
        depthwise=True,
    ),
)

optim_wrapper = dict(optimizer=dict(lr=4e-4), **_base_.position_learning)
param_scheduler = [dict(type='CosineAnnealingLR', T_max=36, eta_min_ratio=0.05)]
train_cfg = dict(max_epochs=36, dynamic_intervals=[(26, 1)])
last_epochs = dict(switch_epoch=26, switch_pipeline=_base_.train_pipeline_stage2)
custom_hooks = [
    _base_.custom_hooks[0],  # averages the weights
    dict(type='PipelineSwitchHook', **last_epochs),
    _base_.clamp_positions,
]
default_hooks = dict(checkpoint=dict(type='AtomicCheckpointHook', max_keep_ckpts=3))
