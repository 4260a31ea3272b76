# ConvNeXt-dcls-S under mmrotate's rotated RTMDet.
_base_ = './rotated-rtmdet_convnext-dcls-t_2xb4-amp-3x_dota.py'
# ImageNet-1k, exponential moving average of the weights, 83.7 % top-1.
checkpoint_file = (
    'https://zenodo.org/record/7112021/files/convnext_dcls_small_1k_224_ema.pth'
)

model = dict(
    backbone=dict(
        arch='small',
        drop_path_rate=0.3,
        depthwise_cfg=dict(type='DCLSConv2d', kernel_count=40, dilated_kernel_size=17),
        init_cfg=dict(checkpoint=checkpoint_file),
    )
)
optim_wrapper = dict(paramwise_cfg=dict(num_layers=12))
