# 160,000 iterations of AdamW with AMP, linear warm-up and decay to zero, and a
# learning rate that decays stage by stage towards the stem.
max_iters = 160000
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=16000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(
        type='PolyLR', power=1.0, eta_min=0.0, by_epoch=False, begin=1500, end=max_iters
    ),
]
optim_wrapper = dict(
    type='AmpOptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    # Positions learn at the rate of their layer, as published. position_learning.py has
    # the other recipe.
    constructor='DCLSOptimizerConstructor',
    paramwise_cfg=dict(decay_type='stage_wise', decay_rate=0.9),
)
# 8 GPUs with 2 images each.
auto_scale_lr = dict(enable=False, base_batch_size=16)
