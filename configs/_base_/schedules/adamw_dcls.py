# AdamW with the learning technique of DCLS: positions (and sigma) learn five times as
# fast as weights, and like biases, norms and layer scale they are not decayed. It
# serves networks of plain and of continuous kernels alike, so that they compare.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
    constructor='DCLSOptimizerConstructor',
    paramwise_cfg=dict(position_lr_mult=5.0),
)
