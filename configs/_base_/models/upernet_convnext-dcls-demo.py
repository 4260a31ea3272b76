# For the demo, whose scenes have 160x160 pixels.
_base_ = './upernet_convnext.py'
dims = [24, 48, 96, 160]
norm_cfg = dict(type='BN')
head = dict(
    channels=64,
    num_classes=6,
    norm_cfg=norm_cfg,
    # Most pixels are easy background. They must not outweigh those that distinguish the
    # shapes.
    loss_decode=dict(class_weight=[0.2, 1.0, 1.0, 1.0, 1.0, 1.0]),
)

model = dict(
    data_preprocessor=dict(size=(160, 160)),
    backbone=dict(
        arch=dict(depths=[1, 1, 3, 1], dims=dims),
        depthwise_cfg=dict(
            _delete_=True,
            type='DCLSConv2d',
            kernel_count=34,
            dilated_kernel_size=17,
            interpolation='bilinear',
        ),
    ),
    decode_head=dict(head, in_channels=dims),
    auxiliary_head=dict(head, in_channels=dims[2]),
)
