# ConvNeXt-dcls-B, published: box AP 53.0, mask AP 46.0.
_base_ = './cascade-mask-rcnn_convnext-dcls-t_fpn_4conv1fc-giou_amp-ms-crop-3x_coco.py'
# ImageNet-1k, exponential moving average of the weights, 84.1 % top-1.
checkpoint_file = (
    'https://zenodo.org/record/7112021/files/convnext_dcls_base_1k_224_ema.pth'
)

model = dict(
    backbone=dict(
        arch='base',
        depthwise_cfg=dict(kernel_count=40),
        drop_path_rate=0.7,
        init_cfg=dict(checkpoint=checkpoint_file),
    ),
    neck=dict(in_channels=[128, 256, 512, 1024]),
)
optim_wrapper = dict(paramwise_cfg=dict(decay_rate=0.8, num_layers=12))
