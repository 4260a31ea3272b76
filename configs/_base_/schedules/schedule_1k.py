# 1,000 iterations, for small data sets. To be combined with adamw.py.
max_iters = 1000
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=200)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(
        type='PolyLR', power=1.0, eta_min=0.0, by_epoch=False, begin=50, end=max_iters
    ),
]
