# ConvNeXt-dcls-T, published: box AP 51.2, mask AP 44.5. The figures are those of the
# published training config (github.com/K-H-Ismail/ConvNeXt-dcls, object_detection).
_base_ = './cascade-mask-rcnn_convnext-t_fpn_4conv1fc-giou_amp-ms-crop-3x_coco.py'
# ImageNet-1k, exponential moving average of the weights, 82.5 % top-1.
checkpoint_file = (
    'https://zenodo.org/record/7112021/files/convnext_dcls_tiny_1k_224_ema.pth'
)

model = dict(
    backbone=dict(
        depthwise_cfg=dict(
            _delete_=True,
            type='DCLSConv2d',
            kernel_count=34,
            dilated_kernel_size=17,
            interpolation='bilinear',
        ),
        init_cfg=dict(checkpoint=checkpoint_file),
    )
)
