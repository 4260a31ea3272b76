# 36 epochs of AdamW with AMP and a learning rate that decays layer by layer towards the
# stem. The decay rate depends on the backbone's size, so the config sets it.
_base_ = 'mmdet::_base_/schedules/schedule_1x.py'

max_epochs = 36
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [
    # Warm-up over 500 iterations from 0.001, as in mmdet 2's schedules, which the
    # published run used (mmdet 3's own ConvNeXt configs warm up over 1000).
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(
        type='MultiStepLR',
        begin=0,
        end=max_epochs,
        by_epoch=True,
        milestones=[27, 33],
        gamma=0.1,
    ),
]
optim_wrapper = dict(
    _delete_=True,
    type='AmpOptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-4, betas=(0.9, 0.999), weight_decay=0.05),
    # Positions learn at the rate of their layer, as published. position_learning.py has
    # the other recipe.
    constructor='DCLSOptimizerConstructor',
)
