# The plain counterpart of the DCLS atto: 7x7 depthwise convolutions.
_base_ = './convnext-dcls-atto_upernet_1xb4-1k_camvid-256x256.py'

model = dict(
    backbone=dict(depthwise_cfg=dict(_delete_=True, type='Conv2d', kernel_size=7))
)
