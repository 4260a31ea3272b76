# The plain counterpart of the DCLS atto: 7x7 depthwise convolutions.
_base_ = './cascade-mask-rcnn_convnext-dcls-atto_fpn_1xb4-15e_nuclei.py'

model = dict(
    backbone=dict(depthwise_cfg=dict(_delete_=True, type='Conv2d', kernel_size=7))
)
