# ConvNeXt-dcls-T under SegFormer's head of linear layers: a seventh of UperNet's FLOPs.
_base_ = [
    'mmseg::_base_/models/segformer_mit-b0.py',
    '../_base_/datasets/ade20k_512x512.py',
    '../_base_/schedules/schedule_160k.py',
    '../_base_/mmseg_runtime.py',
]
# ImageNet-1k, exponential moving average of the weights, 82.5 % top-1.
checkpoint_file = (
    'https://zenodo.org/record/7112021/files/convnext_dcls_tiny_1k_224_ema.pth'
)

model = dict(
    data_preprocessor=dict(size=(512, 512)),
    backbone=dict(
        _delete_=True,
        type='ConvNeXtDCLS',
        arch='tiny',
        drop_path_rate=0.3,
        layer_scale_init_value=1.0,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint_file),
    ),
    decode_head=dict(in_channels=[96, 192, 384, 768], num_classes=150),
)
train_dataloader = dict(batch_size=2)
optim_wrapper = dict(paramwise_cfg=dict(num_layers=6))
default_hooks = dict(checkpoint=dict(interval=16000))
