# ConvNeXt-dcls-T under mmrotate's rotated RTMDet, with the neck and head of its l.
_base_ = 'mmrotate::rotated_rtmdet/rotated_rtmdet_l-3x-dota.py'
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
        out_indices=(1, 2, 3),
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint_file),
    ),
    neck=dict(in_channels=[192, 384, 768]),
)
optim_wrapper = dict(
    type='AmpOptimWrapper',
    constructor='DCLSOptimizerConstructor',
    paramwise_cfg=dict(
        _delete_=True, decay_type='layer_wise', decay_rate=0.7, num_layers=6
    ),
)
default_hooks = dict(checkpoint=dict(type='AtomicCheckpointHook', max_keep_ckpts=3))
