"""Small data sets, and configs of small models for them, for tests that build or train.

Everything is written to the working directory.
"""

import json
from pathlib import Path

import mmcv
import numpy as np
from mmengine.registry import (
    DATA_SAMPLERS,
    DATASETS,
    HOOKS,
    LOOPS,
    METRICS,
    MODELS,
    OPTIMIZERS,
    TASK_UTILS,
    TRANSFORMS,
)

REGISTRIES = (
    MODELS,
    DATASETS,
    TRANSFORMS,
    METRICS,
    TASK_UTILS,
    LOOPS,
    DATA_SAMPLERS,
    OPTIMIZERS,
    HOOKS,
)
CLASSES = ('disc', 'ring', 'box')
SIZE = 64


def write_images(folder, count, suffix='.png'):
    """Write images of noise, named 0, 1, ...; return their names."""
    draw = np.random.RandomState(0)
    names = [f'{number}{suffix}' for number in range(count)]
    for name in names:
        image = draw.randint(0, 255, (SIZE, SIZE, 3), dtype=np.uint8)
        mmcv.imwrite(image, str(Path(folder) / name))
    return names


def write_coco(categories=CLASSES, images=3, boxes=True, area=400, root='data'):
    """Write ``images/`` and ``ann.json``: one object per category in each image."""
    files = write_images(f'{root}/images', images)
    numbers = range(1, len(categories) + 1)
    content = {
        'info': {'description': 'the "categories": [1] of nothing'},
        'images': [
            {'id': index, 'file_name': name, 'width': SIZE, 'height': SIZE}
            for index, name in enumerate(files)
        ],
        'annotations': [
            {
                'id': index * len(categories) + number,
                'image_id': index,
                'category_id': number,
                'bbox': [4 * number, 4, 24, 24],
                'area': area,
                'iscrowd': 0,
            }
            for index in range(images if boxes else 0)
            for number in numbers
        ],
        'categories': [
            {'id': number, 'name': name} for number, name in zip(numbers, categories)
        ],
    }
    Path(root, 'ann.json').write_text(json.dumps(content))


def write_labels(labels=(0, 1, 2), images=3, suffix='.png', root='data', dtype='uint8'):
    """Write ``images/`` and ``labels/``; a label image has stripes of the labels."""
    for name in write_images(f'{root}/images', images, suffix):
        stripes = np.resize(np.array(labels, dtype), SIZE)
        image = np.broadcast_to(stripes, (SIZE, SIZE)).copy()
        mmcv.imwrite(image, str(Path(root, 'labels', name).with_suffix('.png')))


def write_voc(names=CLASSES, images=3, root='data'):
    """Write ``JPEGImages/``, ``Annotations/`` and ``ids.txt``."""
    write_images(f'{root}/JPEGImages', images, '.jpg')
    Path(root, 'Annotations').mkdir(exist_ok=True)
    box = '<xmin>4</xmin><ymin>4</ymin><xmax>28</xmax><ymax>28</ymax>'
    objects = ''.join(
        f'<object><name>{name}</name><bndbox>{box}</bndbox></object>' for name in names
    )
    size = f'<size><width>{SIZE}</width><height>{SIZE}</height></size>'
    for number in range(images):
        text = f'<annotation>{size}{objects}</annotation>'
        Path(root, 'Annotations', f'{number}.xml').write_text(text)
    Path(root, 'ids.txt').write_text('\n'.join(map(str, range(images))))


BACKBONE = {'type': 'ResNet', 'depth': 18, 'base_channels': 8}


def _config(scope, model, dataset, load, pack, evaluator, changes):
    train = {**dataset, 'pipeline': [*load, pack]}
    test = {**train, 'test_mode': True}
    loader = {'batch_size': 1, 'num_workers': 0}
    return {
        'default_scope': scope,
        'model': model,
        'train_dataloader': {
            **loader,
            'dataset': train,
            'sampler': {'type': 'DefaultSampler', 'shuffle': True},
        },
        'test_dataloader': {
            **loader,
            'dataset': test,
            'sampler': {'type': 'DefaultSampler', 'shuffle': False},
        },
        'test_evaluator': evaluator,
        'test_cfg': {'type': 'TestLoop'},
        'train_cfg': {'type': 'EpochBasedTrainLoop', 'max_epochs': 1},
        'optim_wrapper': {'optimizer': {'type': 'SGD', 'lr': 1e-3}},
        'randomness': {'seed': 0},
        **changes,
    }


def detector(classes=CLASSES, count=3, dataset=None, **changes):
    """Return a config of RetinaNet as a dict.

    Args:
        classes: the names, or None to omit metainfo.
        count: num_classes of the head.
        dataset: changes to the data sets.
        changes: changes at the top level.
    """
    model = {
        'type': 'RetinaNet',
        'data_preprocessor': {'type': 'DetDataPreprocessor', 'pad_size_divisor': 32},
        'backbone': BACKBONE,
        'neck': {
            'type': 'FPN',
            'in_channels': [8, 16, 32, 64],
            'out_channels': 8,
            'num_outs': 4,
        },
        'bbox_head': {
            'type': 'RetinaHead',
            'num_classes': count,
            'in_channels': 8,
            'feat_channels': 8,
            'stacked_convs': 1,
            'anchor_generator': {
                'type': 'AnchorGenerator',
                'octave_base_scale': 4,
                'scales_per_octave': 1,
                'ratios': [1.0],
                'strides': [4, 8, 16, 32],
            },
        },
        'train_cfg': {
            'assigner': {
                'type': 'MaxIoUAssigner',
                'pos_iou_thr': 0.5,
                'neg_iou_thr': 0.4,
                'min_pos_iou': 0,
            },
            'allowed_border': -1,
            'pos_weight': -1,
        },
        'test_cfg': {
            'nms_pre': 100,
            'score_thr': 0.0,
            'nms': {'type': 'nms', 'iou_threshold': 0.5},
            'max_per_img': 5,
        },
    }
    settings = {
        'type': 'CocoDataset',
        'data_root': 'data',
        'ann_file': 'ann.json',
        'data_prefix': {'img': 'images/'},
        **({} if classes is None else {'metainfo': {'classes': classes}}),
        **(dataset or {}),
    }
    load = [
        {'type': 'LoadImageFromFile'},
        {'type': 'LoadAnnotations', 'with_bbox': True},
        {'type': 'Resize', 'scale': (SIZE, SIZE), 'keep_ratio': True},
    ]
    evaluator = {'type': 'CocoMetric', 'ann_file': 'data/ann.json', 'metric': 'bbox'}
    pack = {'type': 'PackDetInputs'}
    return _config('mmdet', model, settings, load, pack, evaluator, changes)


def segmentor(classes=CLASSES, count=3, dataset=None, **changes):
    """Return a config of an FCN as a dict; see ``detector``."""
    model = {
        'type': 'EncoderDecoder',
        'data_preprocessor': {
            'type': 'SegDataPreProcessor',
            'size': (SIZE, SIZE),
            'seg_pad_val': 255,
        },
        'backbone': BACKBONE,
        'decode_head': {
            'type': 'FCNHead',
            'in_channels': 64,
            'in_index': 3,
            'channels': 8,
            'num_convs': 1,
            'concat_input': False,
            'num_classes': count,
        },
        'test_cfg': {'mode': 'whole'},
    }
    settings = {
        'type': 'BaseSegDataset',
        'data_root': 'data',
        'img_suffix': '.png',
        'data_prefix': {'img_path': 'images', 'seg_map_path': 'labels'},
        **({} if classes is None else {'metainfo': {'classes': classes}}),
        **(dataset or {}),
    }
    load = [{'type': 'LoadImageFromFile'}, {'type': 'LoadAnnotations'}]
    pack = {'type': 'PackSegInputs'}
    evaluator = {'type': 'IoUMetric'}
    return _config('mmseg', model, settings, load, pack, evaluator, changes)


def with_validation(cfg, **dataset):
    """Add the test data to a config as validation data, with other settings."""
    loader = cfg['test_dataloader']
    cfg['val_dataloader'] = {**loader, 'dataset': {**loader['dataset'], **dataset}}
    cfg['val_evaluator'] = cfg['test_evaluator']
    cfg['val_cfg'] = {'type': 'ValLoop'}
    return cfg


def write(cfg, path='cfg.py'):
    """Write a config and return its name."""
    Path(path).write_text(''.join(f'{key} = {cfg[key]!r}\n' for key in cfg))
    return path


class _Class:
    """A class imported by name in a pure Python config."""

    def __init__(self, kind):
        self.line = f'from {kind.__module__} import {kind.__name__}'
        self.name = kind.__name__

    def __repr__(self):
        return self.name


def _with_classes(node, scope, found):
    """Return a copy of a config with the registered type names replaced by classes."""
    if isinstance(node, (list, tuple)):
        return type(node)(_with_classes(part, scope, found) for part in node)
    if not isinstance(node, dict):
        return node
    node = {key: _with_classes(part, scope, found) for key, part in node.items()}
    for registry in REGISTRIES if isinstance(node.get('type'), str) else ():
        with registry.switch_scope_and_registry(scope) as scoped:
            kind = scoped.get(node['type'])
        if isinstance(kind, type):
            node['type'] = found.setdefault(kind.__name__, _Class(kind))
            break
    return node


def write_pure_python(cfg, path='pure.py'):
    """Write a config in mmengine's new style: types are classes, without a scope."""
    found = {}
    node = _with_classes(cfg, cfg['default_scope'], found)
    node['default_scope'] = None
    lines = [kind.line for kind in found.values()]
    # This import makes mmengine read the file in the new style.
    lines.insert(0, 'from mmengine.config import read_base')
    lines += [f'{key} = {value!r}' for key, value in node.items()]
    Path(path).write_text('\n'.join(lines) + '\n')
    return path
