# 12 epochs with the decay of mmdet's 1x. To be combined with adamw.py.
max_epochs = 12
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(
        type='MultiStepLR', end=max_epochs, by_epoch=True, milestones=[8, 11], gamma=0.1
    ),
]
