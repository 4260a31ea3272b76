# The baseline, ConvNeXt-B with its own 7x7 kernels, published: mIoU 49.1.
_base_ = './convnext-dcls-base_upernet_8xb2-amp-160k_ade20k-512x512.py'
# ImageNet-1k, exponential moving average of the weights, 83.8 % top-1.
checkpoint_file = 'https://dl.fbaipublicfiles.com/convnext/convnext_base_1k_224_ema.pth'

model = dict(
    backbone=dict(
        depthwise_cfg=dict(_delete_=True, type='Conv2d', kernel_size=7),
        init_cfg=dict(checkpoint=checkpoint_file),
    )
)
