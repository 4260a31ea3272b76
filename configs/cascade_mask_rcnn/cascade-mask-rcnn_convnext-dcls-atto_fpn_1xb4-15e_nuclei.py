# ConvNeXt-dcls-atto: 34 elements in 17x17 pixels instead of 49 weights in 7x7.
_base_ = [
    './cascade-mask-rcnn_convnext-atto_fpn_1xb4-15e_nuclei.py',
    '../_base_/schedules/position_learning.py',
]

model = dict(
    backbone=dict(
        depthwise_cfg=dict(
            _delete_=True,
            type='DCLSConv2d',
            kernel_count=34,
            dilated_kernel_size=17,
            interpolation='bilinear',
        ),
    )
)
optim_wrapper = _base_.position_learning
