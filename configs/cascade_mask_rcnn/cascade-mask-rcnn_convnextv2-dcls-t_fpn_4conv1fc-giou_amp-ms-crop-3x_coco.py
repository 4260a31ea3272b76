# ConvNeXt-V2-T with DCLS. Each tap of its trained 7x7 kernels starts an element on its
# place, so training starts from what ConvNeXt-V2-T computes.
_base_ = './cascade-mask-rcnn_convnextv2-t_fpn_4conv1fc-giou_amp-ms-crop-3x_coco.py'

model = dict(
    backbone=dict(
        depthwise_cfg=dict(
            _delete_=True,
            type='DCLSConv2d',
            kernel_count=49,
            dilated_kernel_size=17,
            interpolation='bilinear',
        ),
    )
)
