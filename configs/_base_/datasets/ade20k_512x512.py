# mmseg's ADE20K with the multi-scale test of the published figures: ratios of 2048x512
# and mirror images. (mmseg 1 itself takes ratios of each image's own size.)
_base_ = 'mmseg::_base_/datasets/ade20k.py'

ratios = [0.5, 0.75, 1.0, 1.25, 1.5, 1.75]
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [
                dict(
                    type='Resize',
                    scale=(int(2048 * ratio), int(512 * ratio)),
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
