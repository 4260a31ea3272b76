# Reads annotations/{train,val}.json and images/{train,val}/.
_base_ = './shapes.py'

dataset = dict(
    type='CocoDataset',
    data_root=_base_.data_root,
    metainfo=dict(classes=_base_.classes, palette=_base_.palette),
)
resize = dict(type='Resize', scale=_base_.image_size, keep_ratio=True)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    resize,
    dict(
        type='RandomFlip',
        prob=[0.25, 0.25, 0.25],
        direction=['horizontal', 'vertical', 'diagonal'],
    ),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    resize,
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
train_dataloader = dict(
    dataset=dict(
        ann_file='annotations/train.json',
        data_prefix=dict(img='images/train/'),
        pipeline=train_pipeline,
        **dataset,
    )
)
val_dataloader = dict(
    dataset=dict(
        ann_file='annotations/val.json',
        data_prefix=dict(img='images/val/'),
        test_mode=True,
        pipeline=test_pipeline,
        **dataset,
    )
)
test_dataloader = dict(_base_.val_dataloader, **val_dataloader)
val_evaluator = dict(
    type='CocoMetric',
    ann_file=_base_.data_root + 'annotations/val.json',
    metric=['bbox', 'segm'],
)
test_evaluator = val_evaluator
