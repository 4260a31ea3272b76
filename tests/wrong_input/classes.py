"""Classes that don't fit the data or the model."""

import contextlib
from pathlib import Path

from small_data import (
    detector,
    segmentor,
    with_validation,
    write,
    write_coco,
    write_labels,
)

from dcls_mm.apis import configs
from dcls_mm.apis.train import prepare_train
from dcls_mm.checks.class_checks import check_classes
from dcls_mm.checks.errors import ConfigError

from . import wrong
from .configs import test, train

KEY = 'train_dataloader.dataset.metainfo.classes'


def metainfo(content):
    """Return a detector's config with this metainfo."""
    return detector(None, dataset={'metainfo': content})


def model(scope='mmdet', **parts):
    """Check the classes of a config with such a model."""
    cfg = {'mmdet': detector, 'mmseg': segmentor}[scope]()
    write_coco(images=1)
    write_labels(images=1)
    cfg = configs.load_config(write({**cfg, 'model': {'type': 'X', **parts}}))
    return check_classes(cfg, ['train'])


def coco(text):
    """Prepare a training on an annotation file with this text."""
    write_coco(images=1)
    with open('data/other.json', 'w', encoding='utf-8') as file:
        file.write(text)
    dataset = {'ann_file': 'other.json'}
    return prepare_train(write(detector(dataset=dataset)))


def evaluator(key, value):
    """Prepare a test with a changed metric; other.json has one class."""
    with contextlib.suppress(ConfigError):
        coco('{"categories": [{"id": 1, "name": "disc"}]}')
    cfg = detector()
    return test({**cfg, 'test_evaluator': {**cfg['test_evaluator'], key: value}})


def voc(classes, **dataset):
    """Prepare a training on VOC files, including cut/0.xml, which ends early."""
    Path('data/cut').mkdir(parents=True)
    Path('data/cut/0.xml').write_text('<annotation><object>')
    prefix = {'sub_data_root': ''}
    settings = {'type': 'XMLDataset', 'ann_file': 'ids.txt', 'data_prefix': prefix}
    return train(detector(classes, len(classes), {**settings, **dataset}))


CLASSES = [
    wrong(
        lambda: train(detector('disc', 1)),
        ConfigError,
        f"{KEY} must be a tuple of names, got the string 'disc'",
        "write ('disc',)",
    ),
    wrong(
        lambda: train(segmentor(('disc'), 4)),
        ConfigError,
        "got the string 'disc', each letter of which would be a class",
    ),
    wrong(
        lambda: train(detector(('disk', 'ring', 'box'))),
        ConfigError,
        f"{KEY} are disk, ring, box, but data/ann.json has no 'disk' (did you mean "
        "'disc'?); it has disc, ring, box",
        f"{KEY}=('disc', 'ring', 'box')",
    ),
    wrong(
        lambda: train(detector(('disc', 'RING', 'box'))),
        ConfigError,
        "has no 'RING' (did you mean 'ring'?)",
    ),
    wrong(
        lambda: train(detector(('disc', 'ring', 'box', 'nucleus'), 4)),
        ConfigError,
        "data/ann.json has no 'nucleus'; it has disc, ring, box",
    ),
    wrong(
        lambda: train(detector(('box', 'disc', 'ring'))),
        ConfigError,
        'data/ann.json has them in the order disc, ring, box, and its order gives the '
        'labels',
    ),
    wrong(
        lambda: train(detector(('box', 'disc'), 2)),
        ConfigError,
        f"in the order disc, box, and its order gives the labels; write {KEY}=('disc', "
        "'box')",
    ),
    wrong(
        lambda: train(detector(None, 80)),
        ConfigError,
        f'{KEY} is not given, so those of CocoDataset apply, person, bicycle, ',
        'and 70 more, but data/ann.json has none of them; it has disc, ring, box',
    ),
    wrong(
        lambda: train(detector(())),
        ConfigError,
        f'{KEY} must name at least one class, got none',
    ),
    wrong(
        lambda: train(detector({'disc': 1})),
        ConfigError,
        f"{KEY} must be a tuple of names, in the order of their labels, got {{'disc'",
    ),
    wrong(
        lambda: train(detector({'disc', 'ring'})),
        ConfigError,
        'must be a tuple of names, in the order of their labels',
    ),
    wrong(
        lambda: train(detector(7)),
        ConfigError,
        'must be a tuple of names, in the order of their labels, got 7',
    ),
    wrong(
        lambda: train(detector(('disc', 2, 'box'))),
        ConfigError,
        'must be a tuple of names, got 2 in it',
    ),
    wrong(
        lambda: train(detector(('disc', 'ring', 'disc'))),
        ConfigError,
        "metainfo.classes has 'disc' 2 times",
    ),
    wrong(
        lambda: train(metainfo({'CLASSES': ('disc', 'ring', 'box')})),
        ConfigError,
        'train_dataloader.dataset.metainfo.CLASSES: nothing reads it; did you mean '
        f'{KEY}?',
    ),
    wrong(
        lambda: train(metainfo({'class_names': ('disc',)})),
        ConfigError,
        'metainfo.class_names: nothing reads it',
    ),
    wrong(
        lambda: train(metainfo(('disc', 'ring', 'box'))),
        ConfigError,
        'train_dataloader.dataset.metainfo must be a dict such as dict(classes=(...))',
    ),
    wrong(
        lambda: train(metainfo({'classes': ('disc', 'ring'), 'palette': [(0, 0, 0)]})),
        ConfigError,
        'train_dataloader.dataset.metainfo.palette has 1 colours for 2 classes',
    ),
    wrong(
        lambda: train(segmentor(('car', 'rode'), 2, {'type': 'CityscapesDataset'})),
        ConfigError,
        f"{KEY}: CityscapesDataset has no 'rode' (did you mean 'road'?); it has",
    ),
    wrong(
        lambda: train(segmentor(('Wall',), 1, {'type': 'ADE20KDataset'})),
        ConfigError,
        "ADE20KDataset has no 'Wall' (did you mean 'wall'?)",
    ),
    wrong(
        lambda: voc(('disc', 'ringg', 'box')),
        ConfigError,
        f'{KEY} are disc, ringg, box',
        "no 'ringg' (did you mean 'ring'?); they have disc, ring, box",
    ),
    wrong(
        lambda: voc(('cell', 'mitosis')),
        ConfigError,
        "but the files in data/Annotations have no 'cell', 'mitosis'",
    ),
    wrong(
        lambda: voc(('disc',), ann_subdir='Elsewhere'),
        ConfigError,
        'train_dataloader.dataset.ann_file: data/ids.txt names 0, but '
        'data/Elsewhere/0.xml does not exist',
    ),
    wrong(
        lambda: voc(('disc',), ann_subdir='cut'),
        ConfigError,
        'train_dataloader.dataset.ann_file: data/ids.txt: data/cut/0.xml is not valid ',
        'XML: no element found: line 1, column 20',
    ),
    wrong(
        lambda: coco('{"images": [], "annotations": []}'),
        ConfigError,
        'data/other.json must have a list of categories',
    ),
    wrong(
        lambda: coco(''),
        ConfigError,
        'data/other.json must have a list of categories, like annotation files of COCO',
    ),
    wrong(
        lambda: coco('{"categories": [1, 2]}'),
        ConfigError,
        'data/other.json must have a list of categories',
    ),
    wrong(
        lambda: coco('{"categories": [{"id": 1, "name": "disc"}, {"id": 2, "na'),
        ConfigError,
        'data/other.json must have a list of categories',
    ),
    wrong(
        lambda: coco(
            '{"categories": [{"id": 1, "name": "disc"}, {"id": 2, "name": "ring"}, '
            '{"id": 3, "name": "box"}, {"id": 4, "name": "ring"}]}'
        ),
        ConfigError,
        'data/other.json has two categories with one name: ring',
    ),
    wrong(
        lambda: train(
            with_validation(detector(), metainfo={'classes': ('disc', 'ring')})
        ),
        ConfigError,
        f'val_dataloader.dataset.metainfo.classes are other classes than {KEY}: not',
    ),
    wrong(
        lambda: train(
            with_validation(segmentor(), metainfo={'classes': ('ring', 'box', 'disc')})
        ),
        ConfigError,
        'the same in another order',
        'give both the same names in the same order',
    ),
    wrong(
        lambda: test(detector(('disc', 'ringg', 'box'))),
        ConfigError,
        'test_dataloader.dataset.metainfo.classes are disc, ringg, box, but',
    ),
    wrong(
        lambda: test(segmentor(count=19)),
        ConfigError,
        'model.decode_head.num_classes is 19, but test_dataloader.dataset.metainfo.'
        'classes are 3 (disc, ring, box)',
    ),
]

METRICS = [
    wrong(
        lambda: evaluator('ann_file', 'data/other.json'),
        ConfigError,
        'test_evaluator.ann_file: test_dataloader.dataset.metainfo.classes are disc, ',
        "but data/other.json has no 'ring', 'box'; it has disc",
    ),
]

OUTPUTS = [
    wrong(
        lambda: train(detector(count=80)),
        ConfigError,
        f'model.bbox_head.num_classes is 80, but {KEY} are 3 (disc, ring, box)',
        '--cfg-options model.bbox_head.num_classes=3',
    ),
    wrong(
        lambda: train(segmentor(count=2)),
        ConfigError,
        f'model.decode_head.num_classes is 2, but {KEY} are 3',
    ),
    wrong(
        lambda: model(
            roi_head={
                'bbox_head': [{'num_classes': 3}, {'num_classes': 80}],
                'mask_head': {'num_classes': 1},
            }
        ),
        ConfigError,
        'model.roi_head.bbox_head.1.num_classes is 80, model.roi_head.mask_head.'
        'num_classes is 1, but',
        'model.roi_head.bbox_head.1.num_classes=3 model.roi_head.mask_head.num_class',
    ),
    wrong(
        lambda: model(roi_head={'mask_head': {'type': 'FCNMaskHead'}}),
        ConfigError,
        'model.roi_head.mask_head.num_classes is 80, but',
    ),
    wrong(
        lambda: model('mmseg', auxiliary_head=[{'num_classes': 3}, {'num_classes': 4}]),
        ConfigError,
        'model.auxiliary_head.1.num_classes is 4, but',
    ),
    wrong(
        lambda: model(head={'num_things_classes': 80, 'num_stuff_classes': 53}),
        ConfigError,
        'model.head.num_things_classes + num_stuff_classes is 133, but',
    ),
    wrong(
        lambda: model(detector={'bbox_head': {'num_classes': 2}}),
        ConfigError,
        'model.detector.bbox_head.num_classes is 2, but',
    ),
]

ROWS = [*CLASSES, *METRICS, *OUTPUTS]
