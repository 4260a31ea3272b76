# Cascade Mask R-CNN on drawn scenes, for `make demo`.
_base_ = [
    '../_base_/models/cascade-mask-rcnn_convnext-dcls_fpn.py',
    '../_base_/mmdet_runtime.py',
    './_base_/shapes.py',
]
width = 64
strides = [4, 8, 16, 32]
num_classes = 5
norm_cfg = dict(type='BN')

model = dict(
    backbone=_base_.backbone,
    # Without a norm in the neck the detector hardly learns from random weights.
    neck=dict(
        in_channels=_base_.dims, out_channels=width, num_outs=4, norm_cfg=norm_cfg
    ),
    rpn_head=dict(
        in_channels=width,
        feat_channels=width,
        # Sides of 20 to 224 pixels; the shapes have 25 to 90.
        anchor_generator=dict(scales=[5, 7], ratios=[1.0], strides=strides),
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(
            out_channels=width, finest_scale=28, roi_layer=dict(sampling_ratio=1)
        ),
        bbox_head=[
            dict(
                head,
                num_shared_convs=1,
                in_channels=width,
                conv_out_channels=width,
                fc_out_channels=256,
                num_classes=num_classes,
                norm_cfg=norm_cfg,
                reg_class_agnostic=True,
            )
            for head in _base_.model.roi_head.bbox_head
        ],
        mask_roi_extractor=dict(
            out_channels=width, finest_scale=28, roi_layer=dict(sampling_ratio=1)
        ),
        mask_head=dict(
            num_convs=2,
            in_channels=width,
            conv_out_channels=width,
            num_classes=num_classes,
            norm_cfg=norm_cfg,
        ),
    ),
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=200, max_per_img=100),
        rcnn=[
            dict(stage, sampler=dict(stage.sampler, num=32))
            for stage in _base_.model.train_cfg.rcnn
        ],
    ),
    test_cfg=dict(rpn=dict(nms_pre=200, max_per_img=50), rcnn=dict(max_per_img=20)),
)

dataset = dict(
    type='CocoDataset',
    data_root=_base_.data_root,
    metainfo=dict(classes=_base_.classes, palette=_base_.palette),
)
resize = dict(type='Resize', scale=_base_.image_size, keep_ratio=True)
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        ann_file='annotations/train.json',
        data_prefix=dict(img='images/train/'),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
            resize,
            dict(
                type='RandomFlip',
                prob=[0.25, 0.25, 0.25],
                direction=['horizontal', 'vertical', 'diagonal'],
            ),
            dict(type='PackDetInputs'),
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
        ann_file='annotations/val.json',
        data_prefix=dict(img='images/val/'),
        test_mode=True,
        pipeline=[
            dict(type='LoadImageFromFile'),
            resize,
            dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
            dict(
                type='PackDetInputs',
                meta_keys=(
                    'img_id',
                    'img_path',
                    'ori_shape',
                    'img_shape',
                    'scale_factor',
                ),
            ),
        ],
        **dataset,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(
    type='CocoMetric',
    ann_file=_base_.data_root + 'annotations/val.json',
    metric=['bbox', 'segm'],
)
test_evaluator = val_evaluator

default_hooks = dict(logger=dict(interval=10))
log_processor = dict(window_size=10)
