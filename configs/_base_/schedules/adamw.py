# AdamW for training from random weights. Only weights decay. Biases, norms and layer
# scale don't, and neither do positions, sigma and masks if layers have them. That makes
# networks with plain and with continuous kernels comparable.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
    constructor='DCLSOptimizerConstructor',
)
