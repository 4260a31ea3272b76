# Cascade Mask R-CNN with a plain ConvNeXt (7x7 depthwise convolutions) and the heads of
# its published results: 4conv1fc with SyncBN, GIoU on decoded boxes with weight 10, one
# box per class. The config sets the size of the backbone, the neck's in_channels and
# the weights.
_base_ = 'mmdet::_base_/models/cascade-mask-rcnn_r50_fpn.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='ConvNeXtDCLS',
        depthwise_cfg=dict(type='Conv2d', kernel_size=7),
        layer_scale_init_value=1.0,
    ),
    roi_head=dict(
        bbox_head=[
            dict(
                head,
                type='ConvFCBBoxHead',
                num_shared_convs=4,
                num_shared_fcs=1,
                conv_out_channels=256,
                reg_class_agnostic=False,
                reg_decoded_bbox=True,
                norm_cfg=dict(type='SyncBN', requires_grad=True),
                loss_cls=dict(type='CrossEntropyLoss', loss_weight=1.0),
                loss_bbox=dict(type='GIoULoss', loss_weight=10.0),
            )
            for head in _base_.model.roi_head.bbox_head
        ]
    ),
)
