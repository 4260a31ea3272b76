# UperNet on drawn scenes, for `make demo-seg`.
_base_ = [
    '../_base_/models/upernet_convnext-dcls-demo.py',
    '../_base_/datasets/shapes_semantic.py',
    '../_base_/schedules/adamw.py',
    '../_base_/schedules/schedule_4e.py',
    '../_base_/schedules/position_learning.py',
    '../_base_/mmseg_runtime.py',
]

# A step costs a fraction of the detector's, so there is time for more of them, and the
# learning rate can be higher.
max_epochs = 15
train_cfg = dict(max_epochs=max_epochs, val_interval=3)
param_scheduler = [
    _base_.param_scheduler[0],
    dict(_base_.param_scheduler[1], T_max=max_epochs, end=max_epochs),
]
optim_wrapper = dict(
    _base_.position_learning, optimizer=dict(lr=3e-3), clip_grad=dict(max_norm=10)
)
randomness = dict(seed=0)
# The schedule counts epochs, unlike mmseg's.
default_hooks = dict(
    logger=dict(interval=10, log_metric_by_epoch=True),
    checkpoint=dict(by_epoch=True),
)
log_processor = dict(window_size=10, by_epoch=True)
