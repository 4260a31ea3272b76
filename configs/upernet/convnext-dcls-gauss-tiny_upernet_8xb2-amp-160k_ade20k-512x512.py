# The gauss variant: 26 elements, each with a learned width, in 23x23 pixels.
_base_ = './convnext-tiny_upernet_8xb2-amp-160k_ade20k-512x512.py'
# ImageNet-1k, exponential moving average of the weights.
checkpoint_file = (
    'https://zenodo.org/record/8029747/files/convnext_dcls_gauss_tiny_1k_224_ema.pth'
)

model = dict(
    backbone=dict(
        depthwise_cfg=dict(
            _delete_=True,
            type='DCLSConv2d',
            kernel_count=26,
            dilated_kernel_size=23,
            interpolation='gauss',
        ),
        # The published gauss layers have the rows of their positions in another order.
        init_cfg=dict(checkpoint=checkpoint_file, version='gauss'),
    )
)
