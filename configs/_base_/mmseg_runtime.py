_base_ = 'mmseg::_base_/default_runtime.py'

custom_imports = dict(imports=['dcls_mm'], allow_failed_imports=False)
# In mmseg the schedules set these hooks. Ours count iterations too. The interval of the
# checkpoints depends on the schedule, so the config sets it.
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='AtomicCheckpointHook', by_epoch=False, interval=1, max_keep_ckpts=3
    ),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='SegVisualizationHook'),
)
log_processor = dict(type='LogProcessor', window_size=50)
