# Ablation: dense 17x17 kernels, the extent of the DCLS ones with all 289 taps learned.
# Its ImageNet-1k accuracy is published (82.0 % top-1), but no weights are. Set init_cfg
# to your own; without it the backbone starts from random weights.
_base_ = './cascade-mask-rcnn_convnext-t_fpn_4conv1fc-giou_amp-ms-crop-3x_coco.py'

model = dict(
    backbone=dict(
        depthwise_cfg=dict(type='LargeKernelConv2d', kernel_size=17), init_cfg=None
    )
)
