# What the demos share: the scenes, a small backbone, and a schedule that learns from
# random weights in minutes.
_base_ = '../../_base_/schedules/adamw_dcls.py'

data_root = 'data/shapes/'
image_size = (160, 160)
classes = ('disc', 'triangle', 'square', 'star', 'ring')
palette = [(0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167), (213, 94, 0)]

dims = [24, 48, 96, 160]
backbone = dict(arch=dict(depths=[1, 1, 3, 1], dims=dims))

max_epochs = 4
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(
        type='CosineAnnealingLR',
        T_max=max_epochs,
        end=max_epochs,
        eta_min_ratio=0.01,
        convert_to_iter_based=True,
    ),
]
optim_wrapper = dict(optimizer=dict(lr=2e-3), clip_grad=dict(max_norm=10))
randomness = dict(seed=0)
