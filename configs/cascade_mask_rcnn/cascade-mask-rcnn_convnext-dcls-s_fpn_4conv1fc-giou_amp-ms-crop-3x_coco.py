# ConvNeXt-dcls-S, published: box AP 52.8, mask AP 45.6.
_base_ = './cascade-mask-rcnn_convnext-s_fpn_4conv1fc-giou_amp-ms-crop-3x_coco.py'
# ImageNet-1k, exponential moving average of the weights, 83.7 % top-1.
checkpoint_file = (
    'https://zenodo.org/record/7112021/files/convnext_dcls_small_1k_224_ema.pth'
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
