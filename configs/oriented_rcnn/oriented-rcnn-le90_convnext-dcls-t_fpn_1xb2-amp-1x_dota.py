# ConvNeXt-dcls-T under mmrotate's Oriented R-CNN, for 12 epochs of AdamW.
_base_ = 'mmrotate::oriented_rcnn/oriented-rcnn-le90_r50_fpn_1x_dota.py'
custom_imports = dict(imports=['dcls_mm'], allow_failed_imports=False)
# ImageNet-1k, exponential moving average of the weights, 82.5 % top-1.
checkpoint_file = (
    'https://zenodo.org/record/7112021/files/convnext_dcls_tiny_1k_224_ema.pth'
)

model = dict(
    backbone=dict(
        _delete_=True,
        type='ConvNeXtDCLS',
        arch='tiny',
        drop_path_rate=0.2,
        layer_scale_init_value=1.0,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint_file),
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
optim_wrapper = dict(
    _delete_=True,
    type='AmpOptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, weight_decay=0.05),
    clip_grad=dict(max_norm=35),
    constructor='DCLSOptimizerConstructor',
    paramwise_cfg=dict(decay_type='layer_wise', decay_rate=0.7, num_layers=6),
)
default_hooks = dict(checkpoint=dict(type='AtomicCheckpointHook', max_keep_ckpts=3))
