# ResNet-50 with DCLS where mmdet's own configs have deformable convolution: 9 elements
# in 9x9 pixels for each 3x3 kernel of stages c3 to c5. They start from random weights,
# because those of ImageNet have another shape.
_base_ = [
    'mmdet::_base_/models/mask-rcnn_r50_fpn.py',
    'mmdet::_base_/datasets/coco_instance.py',
    'mmdet::_base_/schedules/schedule_1x.py',
    '../_base_/schedules/position_learning.py',
    '../_base_/mmdet_runtime.py',
]

model = dict(
    backbone=dict(
        dcn=dict(type='DCLSConv2d', dilated_kernel_size=9),
        stage_with_dcn=(False, True, True, True),
    )
)
optim_wrapper = _base_.position_learning
