# For the demo, whose scenes have 160x160 pixels.
_base_ = './cascade-mask-rcnn_convnext_fpn_narrow.py'
dims = [24, 48, 96, 160]
num_classes = 5
extractor = dict(finest_scale=28, roi_layer=dict(sampling_ratio=1))

model = dict(
    backbone=dict(
        arch=dict(depths=[1, 1, 3, 1], dims=dims),
        depthwise_cfg=dict(
            _delete_=True,
            type='DCLSConv2d',
            kernel_count=34,
            dilated_kernel_size=17,
            interpolation='bilinear',
            # The schedule is too short for positions to spread by learning.
            initial_positions='even',
        ),
    ),
    neck=dict(in_channels=dims),
    # The anchors have sides of 20 to 224 pixels, the shapes of 25 to 90.
    rpn_head=dict(anchor_generator=dict(scales=[5, 7], ratios=[1.0])),
    roi_head=dict(
        bbox_roi_extractor=extractor,
        bbox_head=[
            dict(
                head,
                num_shared_convs=1,
                num_classes=num_classes,
                reg_class_agnostic=True,
            )
            for head in _base_.model.roi_head.bbox_head
        ],
        mask_roi_extractor=extractor,
        mask_head=dict(num_classes=num_classes),
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
