# Ablation: 7x7 kernels with dilation 2, 13x13 pixels on a fixed grid. No ImageNet-1k
# weights are published (their accuracy is: 80.8 % top-1): set init_cfg to your own,
# without them the backbone starts from random weights.
_base_ = './convnext-tiny_upernet_8xb2-amp-160k_ade20k-512x512.py'

model = dict(backbone=dict(depthwise_cfg=dict(dilation=2), init_cfg=None))
