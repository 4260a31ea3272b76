_base_ = './default_runtime.py'

default_scope = 'mmseg'
# Schedules of mmseg count iterations; `interval` of the checkpoint hook is given
# beside the schedule, by the config.
default_hooks = dict(
    logger=dict(log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False),
    visualization=dict(type='SegVisualizationHook'),
)
env_cfg = dict(cudnn_benchmark=True)  # crops have one size, as in mmseg
visualizer = dict(
    type='SegLocalVisualizer', vis_backends=_base_.vis_backends, name='visualizer'
)
log_processor = dict(type='LogProcessor', window_size=50, by_epoch=False)
tta_model = dict(type='SegTTAModel')
