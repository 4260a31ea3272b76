# The baseline, ConvNeXt-S with its own 7x7 kernels: box AP 51.9, mask AP 45.0.
_base_ = [
    '../_base_/models/cascade-mask-rcnn_convnext_fpn.py',
    '../_base_/datasets/coco_instance_ms-crop.py',
    '../_base_/schedules/schedule_3x.py',
    '../_base_/mmdet_runtime.py',
]
# ImageNet-1k, exponential moving average of the weights, 83.1 % top-1.
checkpoint_file = (
    'https://dl.fbaipublicfiles.com/convnext/convnext_small_1k_224_ema.pth'
)

model = dict(
    backbone=dict(
        arch='small',
        drop_path_rate=0.6,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint_file),
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
optim_wrapper = dict(
    paramwise_cfg=dict(decay_type='layer_wise', decay_rate=0.7, num_layers=12)
)
