# The baseline, ConvNeXt-B with its own 7x7 kernels: box AP 52.7, mask AP 45.6.
_base_ = './cascade-mask-rcnn_convnext-dcls-b_fpn_4conv1fc-giou_amp-ms-crop-3x_coco.py'
# ImageNet-1k, exponential moving average of the weights, 83.8 % top-1.
checkpoint_file = 'https://dl.fbaipublicfiles.com/convnext/convnext_base_1k_224_ema.pth'

model = dict(
    backbone=dict(
        depthwise_cfg=dict(_delete_=True, type='Conv2d', kernel_size=7),
        init_cfg=dict(checkpoint=checkpoint_file),
    )
)
