# COCO instances with the augmentation of DETR and Sparse R-CNN: half of the images get
# a random short side of 480-800; the other half are resized, cropped and resized again.
_base_ = 'mmdet::_base_/datasets/coco_instance.py'

multi_scale = dict(
    type='RandomChoiceResize',
    scales=[(short, 1333) for short in range(480, 801, 32)],
    keep_ratio=True,
)
resize_crop_resize = [
    dict(
        type='RandomChoiceResize',
        scales=[(400, 1333), (500, 1333), (600, 1333)],
        keep_ratio=True,
    ),
    dict(
        type='RandomCrop',
        crop_type='absolute_range',
        crop_size=(384, 600),
        allow_negative_crop=True,
    ),
    multi_scale,
]
train_pipeline = [
    dict(type='LoadImageFromFile', backend_args=_base_.backend_args),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='RandomChoice', transforms=[[multi_scale], resize_crop_resize]),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
