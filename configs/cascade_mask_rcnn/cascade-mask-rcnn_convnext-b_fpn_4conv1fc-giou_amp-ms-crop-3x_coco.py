# The baseline, ConvNeXt-B with its own 7x7 kernels: box AP 52.7, mask AP 45.6.
_base_ = [
    '../_base_/models/cascade-mask-rcnn_convnext_fpn.py',
    '../_base_/datasets/coco_instance_ms-crop.py',
    '../_base_/schedules/schedule_3x.py',
    '../_base_/mmdet_runtime.py',
]
# ImageNet-1k, exponential moving average of the weights, 83.8 % top-1.
checkpoint_file = 'https://dl.fbaipublicfiles.com/convnext/convnext_base_1k_224_ema.pth'

model = dict(
    backbone=dict(
        arch='base',
        drop_path_rate=0.7,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint_file),
    ),
    neck=dict(in_channels=[128, 256, 512, 1024]),
)
optim_wrapper = dict(
    paramwise_cfg=dict(decay_type='layer_wise', decay_rate=0.8, num_layers=12)
)
