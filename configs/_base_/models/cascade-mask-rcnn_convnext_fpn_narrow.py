# Cascade Mask R-CNN with a plain ConvNeXt at a size that a CPU can train from random
# weights: four levels of 64 channels, BN everywhere, lighter heads. The config sets the
# size of the backbone, the neck's in_channels, the anchors and the classes.
_base_ = 'mmdet::_base_/models/cascade-mask-rcnn_r50_fpn.py'
width = 64
strides = [4, 8, 16, 32]
norm_cfg = dict(type='BN')

model = dict(
    backbone=dict(
        _delete_=True,
        type='ConvNeXtDCLS',
        depthwise_cfg=dict(type='Conv2d', kernel_size=7),
        layer_scale_init_value=1.0,
    ),
    # Without a norm in the neck, the detector hardly learns from random weights.
    neck=dict(out_channels=width, num_outs=4, norm_cfg=norm_cfg),
    rpn_head=dict(
        in_channels=width, feat_channels=width, anchor_generator=dict(strides=strides)
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=width),
        bbox_head=[
            dict(
                head,
                type='ConvFCBBoxHead',
                num_shared_convs=2,
                num_shared_fcs=1,
                in_channels=width,
                conv_out_channels=width,
                fc_out_channels=256,
                reg_class_agnostic=False,
                reg_decoded_bbox=True,
                norm_cfg=norm_cfg,
                loss_cls=dict(type='CrossEntropyLoss', loss_weight=1.0),
                loss_bbox=dict(type='GIoULoss', loss_weight=10.0),
            )
            for head in _base_.model.roi_head.bbox_head
        ],
        mask_roi_extractor=dict(out_channels=width),
        mask_head=dict(
            num_convs=2, in_channels=width, conv_out_channels=width, norm_cfg=norm_cfg
        ),
    ),
)
