# Cascade Mask R-CNN on drawn scenes, for `make demo`.
_base_ = [
    '../_base_/models/cascade-mask-rcnn_convnext-dcls-demo_fpn.py',
    '../_base_/datasets/shapes_instance.py',
    '../_base_/schedules/adamw.py',
    '../_base_/schedules/schedule_4e.py',
    '../_base_/schedules/position_learning.py',
    '../_base_/mmdet_runtime.py',
]

optim_wrapper = dict(
    _base_.position_learning,
    paramwise_cfg=dict(position_lr_mult=50.0),
    optimizer=dict(lr=2e-3),
    clip_grad=dict(max_norm=10),
)
custom_hooks = [_base_.clamp_positions]
randomness = dict(seed=0)
default_hooks = dict(logger=dict(interval=10))
log_processor = dict(window_size=10)
