# UperNet with a plain ConvNeXt (7x7 depthwise convolutions). The config sets the size
# of the backbone, the heads' in_channels, the classes and the weights.
_base_ = 'mmseg::_base_/models/upernet_r50.py'

model = dict(
    pretrained=None,
    backbone=dict(
        _delete_=True,
        type='ConvNeXtDCLS',
        depthwise_cfg=dict(type='Conv2d', kernel_size=7),
        layer_scale_init_value=1.0,
    ),
)
