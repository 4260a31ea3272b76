# mmseg's config with DCLS for the depthwise 3x3 convolutions of its MobileNetV2.
# They start from the ImageNet weights, dilated by up to 4, and their elements can move
# within 17x17 pixels. Identical blocks of a stage share their positions.
_base_ = [
    'mmseg::mobilenet_v2/mobilenet-v2-d8_deeplabv3plus_4xb4-160k_ade20k-512x512.py',
    '../_base_/schedules/position_learning.py',
]
custom_imports = dict(imports=['dcls_mm'], allow_failed_imports=False)

model = dict(
    backbone=dict(
        _delete_=True,
        type='ReplacedConvBackbone',
        backbone=_base_.model.backbone,
        layer=dict(type='DCLSConv2d', dilated_kernel_size=17),
        depthwise=True,
        share_positions=r'layer(\d)',
    )
)
optim_wrapper = _base_.position_learning
custom_hooks = [_base_.clamp_positions]
default_hooks = dict(checkpoint=dict(type='AtomicCheckpointHook', max_keep_ckpts=3))
