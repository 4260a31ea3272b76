# ConvNeXt-dcls-B, published: mIoU 49.3.
_base_ = './convnext-dcls-tiny_upernet_8xb2-amp-160k_ade20k-512x512.py'
# ImageNet-1k, exponential moving average of the weights, 84.1 % top-1.
checkpoint_file = (
    'https://zenodo.org/record/7112021/files/convnext_dcls_base_1k_224_ema.pth'
)

model = dict(
    backbone=dict(
        arch='base',
        depthwise_cfg=dict(kernel_count=40),
        drop_path_rate=0.4,
        init_cfg=dict(checkpoint=checkpoint_file),
    ),
    decode_head=dict(in_channels=[128, 256, 512, 1024]),
    auxiliary_head=dict(in_channels=512),
)
optim_wrapper = dict(paramwise_cfg=dict(num_layers=12))
