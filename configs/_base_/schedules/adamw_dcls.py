# AdamW with the learning technique of DCLS: positions learn five times as fast as
# weights, and are not decayed towards the centre. The blocks of a stage share their
# positions: bypass_duplicate lists them once.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
    paramwise_cfg=dict(
        bypass_duplicate=True,
        norm_decay_mult=0.0,
        custom_keys={'dwconv.P': dict(lr_mult=5.0, decay_mult=0.0)},
    ),
)
