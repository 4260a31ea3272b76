# ConvNeXt-V2-T with its own 7x7 kernels, in the recipe of ConvNeXt-T.
_base_ = [
    '../_base_/models/upernet_convnext.py',
    '../_base_/datasets/ade20k_512x512.py',
    '../_base_/schedules/schedule_160k.py',
    '../_base_/mmseg_runtime.py',
]
# ImageNet-1k, exponential moving average of the weights, 83.0 % top-1. Their licence,
# CC BY-NC 4.0, excludes commercial use.
checkpoint_file = (
    'https://dl.fbaipublicfiles.com/convnext/convnextv2/im1k/'
    'convnextv2_tiny_1k_224_ema.pt'
)

model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=dict(
        arch='tiny',
        grn=True,
        layer_scale_init_value=0.0,
        drop_path_rate=0.4,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint_file),
    ),
    decode_head=dict(in_channels=[96, 192, 384, 768], num_classes=150),
    auxiliary_head=dict(in_channels=384, num_classes=150),
    # The stride is two thirds of the crop, so neighbouring windows overlap by a third.
    test_cfg=dict(mode='slide', crop_size=_base_.crop_size, stride=(341, 341)),
)
train_dataloader = dict(batch_size=2)
optim_wrapper = dict(paramwise_cfg=dict(num_layers=6))
default_hooks = dict(checkpoint=dict(interval=16000))
