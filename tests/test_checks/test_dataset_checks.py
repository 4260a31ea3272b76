"""Data sets with nothing to train on are reported before the first iteration."""

import logging
from pathlib import Path
from types import SimpleNamespace

import mmcv
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from small_data import (
    CLASSES,
    detector,
    segmentor,
    write_coco,
    write_images,
    write_labels,
)

from dcls_mm.checks.dataset_checks import check_datasets
from dcls_mm.checks.errors import ConfigError


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def build(cfg, stage='train'):
    """Build a dataloader as a runner does; return what was logged."""
    cfg = Config(cfg)
    init_default_scope(cfg.default_scope)
    runner = SimpleNamespace(build_dataloader=Runner.build_dataloader)
    check_datasets(runner, cfg, [stage])
    logger = MMLogger.get_current_instance()
    records = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())
    logger.addHandler(handler)
    try:
        runner.build_dataloader(cfg[f'{stage}_dataloader'])
    finally:
        logger.removeHandler(handler)
    return [text for text in records if '_dataloader' in text]


def refused(cfg, stage='train'):
    with pytest.raises(ConfigError) as caught:
        build(cfg, stage)
    return str(caught.value)


def test_data_that_are_in_order():
    write_coco()
    write_labels(root='seg')
    for stage in ('train', 'test'):
        assert not build(detector(), stage)
        assert not build(segmentor(dataset={'data_root': 'seg'}), stage)


@pytest.mark.parametrize('serialize', [True, False])
def test_a_suffix_that_no_image_has(serialize):
    write_labels()
    dataset = {'img_suffix': '.jpg', 'serialize_data': serialize}
    assert refused(segmentor(dataset=dataset)) == (
        "train_dataloader.dataset is empty: no file in 'data/images' ends in "
        "img_suffix='.jpg'; there are 3 '.png'"
    )


def test_of_two_dataloaders_with_the_same_data_the_one_that_runs_is_named():
    write_labels()
    cfg = segmentor(dataset={'img_suffix': '.jpg'})
    cfg['val_dataloader'] = cfg['test_dataloader']
    for stage in ('val', 'test'):
        assert refused(cfg, stage).startswith(f'{stage}_dataloader.dataset is empty: ')


def test_a_data_set_that_is_filtered_away():
    write_coco(boxes=False)
    cfg = detector(dataset={'filter_cfg': {'filter_empty_gt': True}})
    assert refused(cfg) == (
        "train_dataloader.dataset is empty: filter_cfg={'filter_empty_gt': True} "
        'leaves none of its 3 images; are there objects of its classes?'
    )


def test_a_data_set_inside_others_is_named():
    write_coco()
    cfg = detector()
    inner = cfg['train_dataloader']['dataset']
    empty = {**inner, 'filter_cfg': {'min_size': 100}}
    both = {'type': 'ConcatDataset', 'datasets': [inner, empty]}
    cfg['train_dataloader']['dataset'] = {
        'type': 'RepeatDataset',
        'dataset': both,
        'times': 2,
    }
    assert refused(cfg).startswith(
        'train_dataloader.dataset.dataset.datasets.1 is empty: filter_cfg='
    )


def test_annotations_that_hold_no_object():
    write_coco(boxes=False)
    said = 'train_dataloader.dataset: none of 3 images has an object of its classes; '
    assert refused(detector()).startswith(said)
    write_coco(area=0)  # mmdet omits these
    assert refused(detector()).startswith(said)
    assert not build(detector(), 'test')
    unlabelled = detector()
    del unlabelled['train_dataloader']['dataset']['pipeline'][1]
    assert not build(unlabelled)


def test_files_that_are_not_there():
    write_labels()
    assert refused(segmentor(dataset={'seg_map_suffix': '_labels.png'})) == (
        "train_dataloader.dataset: 'data/labels/0_labels.png' does not exist; is the "
        "data_prefix or seg_map_suffix right? 'data/labels' has 0.png"
    )
    write_coco(root='det')
    dataset = {'data_root': 'det', 'data_prefix': {'img': 'nowhere'}}
    assert refused(detector(dataset=dataset)).endswith(
        "is the data_prefix or img_suffix right? 'det/nowhere' is not a folder"
    )


def test_label_images_are_asked_for_only_where_they_are_read():
    write_images('data/images', 2)
    cfg = segmentor()
    for stage in ('train', 'test'):
        del cfg[f'{stage}_dataloader']['dataset']['pipeline'][1]
    assert not build(cfg, 'test')


@pytest.mark.parametrize('stage', ['train', 'test'])
@pytest.mark.parametrize(
    'labels, dataset',
    [((0, 1, 3), {}), ((0, 1, 2, 3), {}), ((1, 2, 4), {'reduce_zero_label': True})],
)
def test_labels_beyond_the_classes(labels, dataset, stage):
    write_labels(labels)
    said = refused(segmentor(dataset=dataset), stage)
    assert said.startswith(f'{stage}_dataloader.dataset: data/labels/0.png has the lab')
    assert f'labels 3 (in the file {", ".join(map(str, labels))})' in said
    assert 'there are 3 classes, 0 to 2' in said and 'reduce_zero_label=' in said


def test_labels_that_fit():
    write_labels((0, 1, 2, 255))
    assert not build(segmentor())
    write_labels((0, 1, 2, 3))
    assert not build(segmentor(dataset={'reduce_zero_label': True}))
    write_labels((0, 13, 18))  # chosen by name, the others ignored
    dataset = {'type': 'CityscapesDataset', 'seg_map_suffix': '.png'}
    assert not build(segmentor(('car', 'road'), 2, dataset))


def test_label_images_that_hold_no_labels():
    write_labels()
    colours = np.zeros((64, 64, 3), np.uint8)
    mmcv.imwrite(colours, 'data/labels/1.png')
    said = refused(segmentor())
    assert 'data/labels/1.png must have one channel, with a class number' in said
    write_labels((0, 1, 300), dtype='uint16')  # mmseg would read 300 as 44
    assert 'has the label 300; mmseg reads 8 bits' in refused(segmentor())
    Path('data/labels/0.png').write_text('no image')
    said = "train_dataloader.dataset: the label image data/labels/0.png can't be read: "
    assert refused(segmentor()).startswith(said)
    dataset = {'data_prefix': {'img_path': 'images'}}
    said = 'their folder, data_prefix.seg_map_path, is not given'
    assert refused(segmentor(dataset=dataset)).endswith(said)


@pytest.mark.parametrize(
    'labels, dataset, words',
    [
        ((0, 255), {}, 'the 3 label images that were checked have only the label 0'),
        ((255,), {}, 'all pixels of the 3 label images that were checked are ignored'),
        ((0, 1, 2), {'reduce_zero_label': True}, 'have every class but the last'),
    ],
)
def test_labels_that_are_odd_are_logged(labels, dataset, words):
    write_labels(labels)
    (notice,) = build(segmentor(CLASSES, 3, dataset))
    assert words in notice
