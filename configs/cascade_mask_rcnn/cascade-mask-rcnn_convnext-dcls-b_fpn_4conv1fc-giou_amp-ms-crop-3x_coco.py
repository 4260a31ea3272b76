# ConvNeXt-dcls-B, published: box AP 53.0, mask AP 46.0.
_base_ = './cascade-mask-rcnn_convnext-b_fpn_4conv1fc-giou_amp-ms-crop-3x_coco.py'
# ImageNet-1k, exponential moving average of the weights, 84.1 % top-1.
checkpoint_file = (
    'https://zenodo.org/record/7112021/files/convnext_dcls_base_1k_224_ema.pth'
)

model = dict(
    backbone=dict(
        depthwise_cfg=dict(
            _delete_=True,
            type='DCLSConv2d',
            kernel_count=40,
            dilated_kernel_size=17,
            interpolation='bilinear',
        ),
        init_cfg=dict(checkpoint=checkpoint_file),
    )
)
