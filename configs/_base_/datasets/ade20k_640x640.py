# mmseg's ADE20K in 640x640 crops, with ConvNeXt's multi-scale test: ratios of 2560x640
# and mirror images.
_base_ = 'mmseg::_base_/datasets/ade20k_640x640.py'

ratios = [0.5, 0.75, 1.0, 1.25, 1.5, 1.75]
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [
                dict(
                    type='Resize',
                    scale=(int(2560 * ratio), int(640 * ratio)),
                    keep_ratio=True,
                )
                for ratio in ratios
            ],
            [dict(type='RandomFlip', prob=prob) for prob in (0.0, 1.0)],
            [dict(type='LoadAnnotations')],
            [dict(type='PackSegInputs')],
        ],
    ),
]
