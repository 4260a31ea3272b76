# ConvNeXt-dcls-B, published: mIoU 49.3.
_base_ = './convnext-base_upernet_8xb2-amp-160k_ade20k-512x512.py'
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
