# The scenes that tools/dataset_converters/draw_shapes.py draws: what the detector
# (shapes_instance.py) and the segmentor (shapes_semantic.py) have in common.
data_root = 'data/shapes/'
image_size = (160, 160)
classes = ('disc', 'triangle', 'square', 'star', 'ring')
palette = [(0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167), (213, 94, 0)]

train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
)
val_dataloader = dict(
    batch_size=10,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
)
