# ConvNeXt-dcls-S, published: box AP 52.8, mask AP 45.6.
_base_ = './cascade-mask-rcnn_convnext-dcls-t_fpn_4conv1fc-giou_amp-ms-crop-3x_coco.py'
# ImageNet-1k, exponential moving average of the weights, 83.7 % top-1.
checkpoint_file = (
    'https://zenodo.org/record/7112021/files/convnext_dcls_small_1k_224_ema.pth'
)

model = dict(
    backbone=dict(
        arch='small',
        depthwise_cfg=dict(kernel_count=40),
        drop_path_rate=0.6,
        init_cfg=dict(checkpoint=checkpoint_file),
    )
)
optim_wrapper = dict(paramwise_cfg=dict(num_layers=12))
