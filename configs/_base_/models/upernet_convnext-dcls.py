# UperNet with a ConvNeXt-dcls backbone. The size of the backbone, the heads'
# in_channels, the classes and the weights come from the config.
_base_ = 'mmseg::_base_/models/upernet_r50.py'

model = dict(
    pretrained=None,
    backbone=dict(
        _delete_=True,
        type='ConvNeXtDCLS',
        depthwise_cfg=dict(
            type='DCLSConv2d',
            kernel_count=34,
            dilated_kernel_size=17,
            interpolation='bilinear',
        ),
        layer_scale_init_value=1.0,
    ),
)
