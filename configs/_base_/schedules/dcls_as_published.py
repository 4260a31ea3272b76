# How the positions learned in the fine-tuning behind the published COCO and ADE20K
# figures: at the learning rate of their layer, not decayed, not clamped, without the
# repulsive loss. Its code named a factor of 5, and overwrote it by the layer's decay.
#
# To be listed in _base_ beside a schedule. Two bases may not set the same key, so the
# config itself hands this on to the optimizer:
#
# optim_wrapper = dict(
#     constructor='DCLSOptimizerConstructor',
#     paramwise_cfg=dict(
#         decay_type='layer_wise', decay_rate=0.7, num_layers=6,
#         **_base_.position_learning,
#     ),
# )
position_learning = dict(position_lr_mult=1.0)
