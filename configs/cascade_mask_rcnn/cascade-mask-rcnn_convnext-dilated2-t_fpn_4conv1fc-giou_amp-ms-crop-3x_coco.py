# Ablation: 7x7 kernels with dilation 2, so 13x13 pixels on a fixed grid. Its
# ImageNet-1k accuracy is published (80.8 % top-1), but no weights are. Set init_cfg to
# your own; without it the backbone starts from random weights.
_base_ = './cascade-mask-rcnn_convnext-t_fpn_4conv1fc-giou_amp-ms-crop-3x_coco.py'

model = dict(backbone=dict(depthwise_cfg=dict(dilation=2), init_cfg=None))
