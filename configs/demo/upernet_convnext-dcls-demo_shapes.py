# UperNet on drawn scenes, for `make demo-seg`.
_base_ = [
    '../_base_/models/upernet_convnext-dcls.py',
    '../_base_/mmseg_runtime.py',
    './_base_/shapes.py',
]
width = 64
num_classes = 6
norm_cfg = dict(type='BN')
# Most pixels are background, and easy: they must not drown what tells the shapes apart.
loss = dict(class_weight=[0.2, 1.0, 1.0, 1.0, 1.0, 1.0])

model = dict(
    data_preprocessor=dict(size=_base_.image_size),
    backbone=_base_.backbone,
    decode_head=dict(
        in_channels=_base_.dims,
        channels=width,
        num_classes=num_classes,
        norm_cfg=norm_cfg,
        loss_decode=loss,
    ),
    auxiliary_head=dict(
        in_channels=_base_.dims[2],
        channels=width,
        num_classes=num_classes,
        norm_cfg=norm_cfg,
        loss_decode=loss,
    ),
)

dataset = dict(
    type='BaseSegDataset',
    data_root=_base_.data_root,
    metainfo=dict(
        classes=('background', *_base_.classes), palette=[(0, 0, 0), *_base_.palette]
    ),
)
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        data_prefix=dict(img_path='images/train', seg_map_path='labels/train'),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations'),
            dict(type='RandomFlip', prob=0.5, direction='horizontal'),
            dict(type='RandomFlip', prob=0.5, direction='vertical'),
            dict(type='PackSegInputs'),
        ],
        **dataset,
    ),
)
val_dataloader = dict(
    batch_size=10,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        data_prefix=dict(img_path='images/val', seg_map_path='labels/val'),
        test_mode=True,
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='Resize', scale=_base_.image_size, keep_ratio=True),
            dict(type='LoadAnnotations'),
            dict(type='PackSegInputs'),
        ],
        **dataset,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator

# A step costs a fraction of the detector's, so there is time for more, and more speed.
max_epochs = 15
train_cfg = dict(max_epochs=max_epochs, val_interval=3)
param_scheduler = [
    _base_.param_scheduler[0],
    dict(_base_.param_scheduler[1], T_max=max_epochs, end=max_epochs),
]
optim_wrapper = dict(optimizer=dict(lr=3e-3))

# The schedule of the demos counts epochs, unlike those of mmseg.
default_hooks = dict(
    logger=dict(interval=10, log_metric_by_epoch=True),
    checkpoint=dict(by_epoch=True),
)
log_processor = dict(window_size=10, by_epoch=True)
