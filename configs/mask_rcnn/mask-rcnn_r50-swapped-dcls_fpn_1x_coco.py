# ResNet-50 whose 3x3 convolutions in stages c3 to c5 are swapped for DCLS. They start
# from the ImageNet weights, and their 9 elements can move within 9x9 pixels. All
# outputs of a stage share one set of positions, so sampling the input costs less than
# building kernels.
_base_ = [
    'mmdet::_base_/models/mask-rcnn_r50_fpn.py',
    'mmdet::_base_/datasets/coco_instance.py',
    'mmdet::_base_/schedules/schedule_1x.py',
    '../_base_/schedules/position_learning.py',
    '../_base_/mmdet_runtime.py',
]

model = dict(
    backbone=dict(
        _delete_=True,
        type='ReplacedConvBackbone',
        backbone=_base_.model.backbone,
        layer=dict(
            type='DCLSConv2d',
            dilated_kernel_size=9,
            per_output_positions=False,
            formulation='sample',
        ),
        name='layer[234]',
        kernel_size=3,
        share_positions=r'layer(\d)',
    )
)
optim_wrapper = _base_.position_learning
custom_hooks = [_base_.clamp_positions]
