# How positions (and sigma) learn according to the DCLS papers: five times as fast as
# weights, not decayed, and clamped into the kernel's extent after every step. Two bases
# may not set the same key, so the config has to pass this on:
#
# optim_wrapper = _base_.position_learning
# custom_hooks = [_base_.clamp_positions]
#
# In each step a position moves by about its rate, in pixels: by at most 1.5 pixels in
# 600 steps at 5e-3 with warm-up and decay. To give the whole travel instead, in pixels:
#
# optim_wrapper = dict(
#     constructor='DCLSOptimizerConstructor', paramwise_cfg=dict(position_travel=17.0)
# )
#
# The fine-tuning behind the published COCO and ADE20K figures was different: positions
# learned at the rate of their layer (its code set the factor of 5, but overwrote it
# with the layer's decay) and were not clamped. schedule_3x.py and schedule_160k.py do
# the same without this file.
#
# The repulsive loss is for training from scratch, where it starts after epoch 20:
# dict(type='RepulsionLossHook').
position_learning = dict(
    constructor='DCLSOptimizerConstructor', paramwise_cfg=dict(position_lr_mult=5.0)
)
clamp_positions = dict(type='ClampPositionsHook')
