# How positions (and sigma) learn, as DCLS documents it: five times as fast as weights,
# not decayed, and clamped into the kernel's extent after every step. Two bases may not
# set the same key, so the config hands this on:
#
# optim_wrapper = _base_.position_learning
# custom_hooks = [_base_.clamp_positions]
#
# The fine-tuning behind the published COCO and ADE20K figures did otherwise: positions
# learned at the rate of their layer (its code named the factor of 5, and overwrote it
# by the layer's decay) and were not clamped. That is what schedule_3x.py and
# schedule_160k.py give without this file.
#
# The repulsive loss belongs to training from scratch, where it sets in after epoch 20:
# dict(type='RepulsionLossHook').
position_learning = dict(
    constructor='DCLSOptimizerConstructor', paramwise_cfg=dict(position_lr_mult=5.0)
)
clamp_positions = dict(type='ClampPositionsHook')
