# How positions learn by the description of DCLS, in fine-tuning too: five times as
# fast as the weights of their layer, not decayed, and clamped into the kernel's extent
# after every step. The published fine-tuning did otherwise: see dcls_as_published.py,
# which also shows how a config takes this up.
#
# The repulsive loss belongs to training from scratch, where it sets in after epoch 20:
# dict(type='RepulsionLossHook').
position_learning = dict(position_lr_mult=5.0)
# A config with hooks of its own writes [*_base_.custom_hooks, ...], as a list replaces
# the list of its base.
custom_hooks = [dict(type='ClampPositionsHook')]
