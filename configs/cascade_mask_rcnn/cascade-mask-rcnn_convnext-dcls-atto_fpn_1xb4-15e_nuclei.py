# The Cascade Mask R-CNN family at a size that a CPU can train from random weights:
# ConvNeXt-dcls-atto, 64 channels in neck and heads, small anchors.
_base_ = [
    '../_base_/models/cascade-mask-rcnn_convnext-dcls_fpn.py',
    '../_base_/datasets/nuclei.py',
    '../_base_/schedules/adamw_dcls.py',
    '../_base_/mmdet_runtime.py',
]
width = 64
strides = [4, 8, 16, 32]
norm_cfg = dict(type='BN')
num_classes = 1

model = dict(
    backbone=dict(arch='atto'),
    # Without a norm in the neck the detector hardly learns from random weights.
    neck=dict(
        in_channels=[40, 80, 160, 320],
        out_channels=width,
        num_outs=4,
        norm_cfg=norm_cfg,
    ),
    rpn_head=dict(
        in_channels=width,
        feat_channels=width,
        # Sides of 12 to 134 pixels, two a level; 95 % of the nuclei have 13 to 75.
        anchor_generator=dict(scales=[3, 4.2], strides=strides),
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=width),
        bbox_head=[
            dict(
                head,
                num_shared_convs=2,
                in_channels=width,
                conv_out_channels=width,
                fc_out_channels=256,
                num_classes=num_classes,
                norm_cfg=norm_cfg,
            )
            for head in _base_.model.roi_head.bbox_head
        ],
        mask_roi_extractor=dict(out_channels=width),
        mask_head=dict(
            num_convs=2,
            in_channels=width,
            conv_out_channels=width,
            num_classes=num_classes,
            norm_cfg=norm_cfg,
        ),
    ),
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=500, max_per_img=300),
        rcnn=[
            dict(stage, sampler=dict(stage.sampler, num=64, pos_fraction=0.5))
            for stage in _base_.model.train_cfg.rcnn
        ],
    ),
    test_cfg=dict(rpn=dict(nms_pre=500, max_per_img=300)),
)

max_epochs = 15
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=3)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=40),
    dict(
        type='CosineAnnealingLR',
        T_max=max_epochs,
        begin=0,
        end=max_epochs,
        by_epoch=True,
        convert_to_iter_based=True,
        eta_min=0.0,
    ),
]
optim_wrapper = dict(clip_grad=dict(max_norm=10))
default_hooks = dict(logger=dict(interval=10))
