# Cascade Mask R-CNN at a size that a CPU can train from random weights: ConvNeXt-atto,
# 64 channels in neck and heads, small anchors.
_base_ = [
    '../_base_/models/cascade-mask-rcnn_convnext_fpn_narrow.py',
    '../_base_/datasets/nuclei.py',
    '../_base_/schedules/adamw.py',
    '../_base_/schedules/schedule_15e.py',
    '../_base_/mmdet_runtime.py',
]
model = dict(
    backbone=dict(arch='atto'),
    neck=dict(in_channels=[40, 80, 160, 320]),
    # The anchors have sides of 12 to 134 pixels, two per level; 95 % of the nuclei have
    # sides of 13 to 75.
    rpn_head=dict(anchor_generator=dict(scales=[3, 4.2])),
    roi_head=dict(
        bbox_head=[dict(h, num_classes=1) for h in _base_.model.roi_head.bbox_head],
        mask_head=dict(num_classes=1),
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
optim_wrapper = dict(clip_grad=dict(max_norm=10))
default_hooks = dict(logger=dict(interval=10))
