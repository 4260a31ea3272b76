# CAFormer-S18: depthwise 7x7 convolutions in two stages, attention in the other two.
# The recipe is that of ConvNeXt-T, with one learning rate for all layers. The backbone
# is timm's, which has to be installed.
_base_ = [
    '../_base_/models/upernet_convnext.py',
    '../_base_/datasets/ade20k_512x512.py',
    '../_base_/schedules/schedule_160k.py',
    '../_base_/mmseg_runtime.py',
]
# ImageNet-1k.
checkpoint_file = (
    'https://huggingface.co/sail/dl/resolve/main/caformer/caformer_s18.pth'
)

model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=dict(
        _delete_=True,
        type='TimmBackbone',
        model_name='caformer_s18',
        drop_path_rate=0.4,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint_file),
    ),
    decode_head=dict(in_channels=[64, 128, 320, 512], num_classes=150),
    auxiliary_head=dict(in_channels=320, num_classes=150),
    # The stride is two thirds of the crop, so neighbouring windows overlap by a third.
    test_cfg=dict(mode='slide', crop_size=_base_.crop_size, stride=(341, 341)),
)
train_dataloader = dict(batch_size=2)
optim_wrapper = dict(paramwise_cfg=dict(decay_type=None, decay_rate=None))
default_hooks = dict(checkpoint=dict(interval=16000))
