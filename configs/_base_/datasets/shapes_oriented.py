# Oriented boxes in DOTA's form: annfiles/{train,val}/ and images/{train,val}/, which
# `draw_shapes.py --oriented` draws. mmrotate has no bases without data, and two bases
# may not set the same key, so the config has to pass these on:
#
# train_dataloader = dict(_base_.oriented_train_dataloader, _delete_=True)
# val_dataloader = dict(_base_.oriented_val_dataloader, _delete_=True)
# test_dataloader = val_dataloader
classes = ('disc', 'triangle', 'square', 'star', 'ring')
palette = [(0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167), (213, 94, 0)]

oriented_dataset = dict(
    type='DOTADataset',
    data_root='data/shapes/',
    img_suffix='jpg',
    metainfo=dict(classes=classes, palette=palette),
)
oriented_boxes = [
    dict(type='mmdet.LoadImageFromFile'),
    dict(type='mmdet.LoadAnnotations', with_bbox=True, box_type='qbox'),
    dict(type='mmdet.Resize', scale=(160, 160), keep_ratio=True),
    dict(type='ConvertBoxType', box_type_mapping=dict(gt_bboxes='rbox')),
]
oriented_train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        oriented_dataset,
        ann_file='annfiles/train/',
        data_prefix=dict(img_path='images/train/'),
        pipeline=[
            *oriented_boxes,
            dict(
                type='mmdet.RandomFlip',
                prob=0.75,
                direction=['horizontal', 'vertical', 'diagonal'],
            ),
            dict(type='mmdet.PackDetInputs'),
        ],
    ),
)
oriented_val_dataloader = dict(
    batch_size=10,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        oriented_dataset,
        ann_file='annfiles/val/',
        data_prefix=dict(img_path='images/val/'),
        test_mode=True,
        pipeline=[
            *oriented_boxes,
            dict(
                type='mmdet.PackDetInputs',
                meta_keys=(
                    *('img_id', 'img_path', 'ori_shape', 'img_shape'),
                    'scale_factor',
                ),
            ),
        ],
    ),
)
