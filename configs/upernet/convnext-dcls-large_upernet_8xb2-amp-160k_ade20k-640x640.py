# ConvNeXt-dcls-L in 640x640 crops: the published training config. Neither results nor
# weights are published for it.
_base_ = [
    '../_base_/models/upernet_convnext.py',
    '../_base_/datasets/ade20k_640x640.py',
    '../_base_/schedules/schedule_160k.py',
    '../_base_/mmseg_runtime.py',
]

model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=dict(
        arch='large',
        depthwise_cfg=dict(
            _delete_=True,
            type='DCLSConv2d',
            kernel_count=40,
            dilated_kernel_size=17,
            interpolation='bilinear',
        ),
        drop_path_rate=0.4,
        # The recipe fine-tunes ImageNet-22k weights: set your own.
        init_cfg=None,
    ),
    decode_head=dict(in_channels=[192, 384, 768, 1536], num_classes=150),
    auxiliary_head=dict(in_channels=768, num_classes=150),
    # The stride is two thirds of the crop, so neighbouring windows overlap by a third.
    test_cfg=dict(mode='slide', crop_size=_base_.crop_size, stride=(426, 426)),
)
train_dataloader = dict(batch_size=2)
optim_wrapper = dict(paramwise_cfg=dict(num_layers=12))
default_hooks = dict(checkpoint=dict(interval=16000))
