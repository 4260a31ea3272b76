# CAFormer-S18: depthwise 7x7 convolutions in two stages, attention in the other two.
# The recipe is that of ConvNeXt-T, with one learning rate for all layers. The backbone
# is timm's, which has to be installed.
_base_ = [
    '../_base_/models/cascade-mask-rcnn_convnext_fpn.py',
    '../_base_/datasets/coco_instance_ms-crop.py',
    '../_base_/schedules/schedule_3x.py',
    '../_base_/mmdet_runtime.py',
]
# ImageNet-1k.
checkpoint_file = (
    'https://huggingface.co/sail/dl/resolve/main/caformer/caformer_s18.pth'
)

model = dict(
    backbone=dict(
        _delete_=True,
        type='TimmBackbone',
        model_name='caformer_s18',
        drop_path_rate=0.4,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint_file),
    ),
    neck=dict(in_channels=[64, 128, 320, 512]),
)
