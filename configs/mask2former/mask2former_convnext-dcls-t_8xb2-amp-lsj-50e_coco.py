# ConvNeXt-dcls-T under Mask2Former for instances: mmdet's recipe, in mixed
# precision and with the layer decay of ConvNeXt's detectors.
_base_ = 'mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py'
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
        drop_path_rate=0.3,
        layer_scale_init_value=1.0,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint_file),
    ),
    panoptic_head=dict(in_channels=[96, 192, 384, 768]),
)
embedding = dict(decay_mult=0.0)
optim_wrapper = dict(
    type='AmpOptimWrapper',
    constructor='DCLSOptimizerConstructor',
    paramwise_cfg=dict(
        _delete_=True,
        decay_type='layer_wise',
        decay_rate=0.7,
        num_layers=6,
        custom_keys=dict(
            query_embed=embedding, query_feat=embedding, level_embed=embedding
        ),
    ),
)
default_hooks = dict(checkpoint=dict(type='AtomicCheckpointHook', max_keep_ckpts=3))
