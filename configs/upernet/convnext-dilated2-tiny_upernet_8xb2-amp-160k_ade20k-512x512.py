# Ablation: 7x7 kernels with dilation 2, so 13x13 pixels on a fixed grid. Its
# ImageNet-1k accuracy is published (80.8 % top-1), but no weights are. Set init_cfg to
# your own; without it the backbone starts from random weights.
_base_ = './convnext-tiny_upernet_8xb2-amp-160k_ade20k-512x512.py'

model = dict(backbone=dict(depthwise_cfg=dict(dilation=2), init_cfg=None))
