# ConvNeXt-dcls-XL in 640x640 crops: the published training config. Neither results nor
# weights are published for it.
_base_ = './convnext-dcls-large_upernet_8xb2-amp-160k_ade20k-640x640.py'

model = dict(
    backbone=dict(arch='xlarge'),
    decode_head=dict(in_channels=[256, 512, 1024, 2048]),
    auxiliary_head=dict(in_channels=1024),
)
optim_wrapper = dict(optimizer=dict(lr=8e-5))
