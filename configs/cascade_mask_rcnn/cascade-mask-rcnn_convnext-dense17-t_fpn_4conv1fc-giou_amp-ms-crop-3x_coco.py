# Ablation: dense 17x17 kernels, the extent of the DCLS ones with all 289 taps learned.
# No ImageNet-1k weights are published (their accuracy is: 82.0 % top-1): set init_cfg
# to your own, without them the backbone starts from random weights.
_base_ = './cascade-mask-rcnn_convnext-t_fpn_4conv1fc-giou_amp-ms-crop-3x_coco.py'

model = dict(
    backbone=dict(
        depthwise_cfg=dict(type='LargeKernelConv2d', kernel_size=17), init_cfg=None
    )
)
