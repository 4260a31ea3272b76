# ConvNeXt-V2-T with its own 7x7 kernels, in the recipe of ConvNeXt-T.
_base_ = [
    '../_base_/models/cascade-mask-rcnn_convnext_fpn.py',
    '../_base_/datasets/coco_instance_ms-crop.py',
    '../_base_/schedules/schedule_3x.py',
    '../_base_/mmdet_runtime.py',
]
# ImageNet-1k, exponential moving average of the weights, 83.0 % top-1. Their licence,
# CC BY-NC 4.0, excludes commercial use.
checkpoint_file = (
    'https://dl.fbaipublicfiles.com/convnext/convnextv2/im1k/'
    'convnextv2_tiny_1k_224_ema.pt'
)

model = dict(
    backbone=dict(
        arch='tiny',
        grn=True,
        layer_scale_init_value=0.0,
        drop_path_rate=0.4,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint_file),
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
# Layer ids: 0 the stem, 1 and 2 the first two stages, 3 to 5 the third stage's blocks
# in threes, 6 the fourth stage, 7 everything after it.
optim_wrapper = dict(
    paramwise_cfg=dict(decay_type='layer_wise', decay_rate=0.7, num_layers=6)
)
