# AdamW for training from random weights. Only weights decay: biases, norms and layer
# scale don't, nor do positions, sigma and masks where layers have them, so that
# networks of plain and of continuous kernels compare.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
    constructor='DCLSOptimizerConstructor',
)
