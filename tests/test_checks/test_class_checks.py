"""Classes that don't fit the data or the model are reported before training."""

import itertools
import json
import re
from pathlib import Path

import pytest
from mmengine.config import Config
from small_data import (
    CLASSES,
    detector,
    segmentor,
    with_validation,
    write_coco,
    write_labels,
    write_voc,
)

from dcls_mm.checks.annotation_files import read_categories
from dcls_mm.checks.class_checks import check_classes, foresee_test
from dcls_mm.checks.errors import ConfigError

STAGES = ['train', 'val', 'test']
KEY = 'train_dataloader.dataset.metainfo.classes'
ROOTS = ('data', 'other')


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def check(cfg, stages=STAGES):
    return check_classes(Config(cfg), stages)


def candidates():
    names = (*CLASSES, 'disk', 'Box')
    for count in (1, 2, 3):
        yield from itertools.permutations(names, count)


def test_as_the_built_data_set_gives_out_labels():
    """Exactly those lists are refused for which a label would mean another name."""
    from mmdet.datasets import CocoDataset

    write_coco(images=1)
    refused = 0
    for names in candidates():
        metainfo = {'classes': names}
        built = CocoDataset(
            ann_file='data/ann.json',
            data_prefix={'img': ''},
            metainfo=metainfo,
            serialize_data=False,
        )
        meant = [CLASSES[number - 1] for number in built.cat_ids]
        cfg = detector(names, len(names))
        if meant == list(names):
            notices = check(cfg, ['train'])
            assert bool(notices) == (len(names) < len(CLASSES))
        else:
            refused += 1
            with pytest.raises(ConfigError, match='data/ann.json has'):
                check(cfg, ['train'])
    assert refused == 85 - 7


def test_voc_gives_out_labels_by_name():
    from mmdet.datasets import XMLDataset

    write_voc()
    settings = {'ann_file': 'ids.txt', 'data_prefix': {'sub_data_root': ''}}
    for names in (('box', 'disc', 'ring'), ('ring',)):
        built = XMLDataset(
            ann_file='data/ids.txt',
            data_prefix={'sub_data_root': 'data'},
            metainfo={'classes': names},
        )
        labels = [part['bbox_label'] for part in built.get_data_info(0)['instances']]
        assert labels == [names.index(name) for name in CLASSES if name in names]
        dataset = {**settings, 'type': 'XMLDataset'}
        notices = check(detector(names, len(names), dataset), ['train'])
        assert len(notices) == (len(names) < 3)
    with pytest.raises(ConfigError, match=r"no 'disk' \(did you mean 'disc'\?\)"):
        check(detector(('disk', 'ring', 'box'), 3, dataset), ['train'])


def test_of_a_rare_class_all_of_vocs_files_are_looked_at():
    """It is in the second of 250 files; a class with a similar name changes nothing."""
    write_voc(('disc',), images=250)
    path = Path('data/Annotations/1.xml')
    path.write_text(path.read_text().replace('disc', 'discs'))
    dataset = {'type': 'XMLDataset', 'ann_file': 'ids.txt'}
    dataset['data_prefix'] = {'sub_data_root': ''}
    (notice,) = check(detector(('discs',), 1, dataset), ['train'])
    assert notice == f'{KEY}: leaves out objects of data/Annotations: disc'
    with pytest.raises(ConfigError, match=r"no 'ring'; they have disc, discs$"):
        check(detector(('ring',), 1, dataset), ['train'])


def test_files_that_only_resemble_vocs_are_not_read():
    """WIDER Face's are in the folder of the images."""
    from mmdet.datasets import WIDERFaceDataset

    write_voc(('face',), root='data/WIDER_train')
    image = Path('data/WIDER_train/Annotations/0.xml')
    image.write_text(image.read_text().replace('<size>', '<folder>f</folder><size>'))
    Path('data/ids.txt').write_text('0')
    settings = {'ann_file': 'ids.txt', 'data_prefix': {'img': 'WIDER_train'}}
    assert len(WIDERFaceDataset(data_root='data', **settings)) == 1
    dataset = {**settings, 'type': 'WIDERFaceDataset'}
    assert not check(detector(None, 1, dataset), ['train'])


def test_a_part_of_the_categories_is_a_choice():
    write_coco()
    (notice,) = check(detector(('ring',), 1), ['train'])
    said = f'{KEY}: leaves out 2 of the categories of data/ann.json (disc, box)'
    assert notice == said


def test_a_part_of_a_segmentors_classes_is_a_choice():
    dataset = {'type': 'CityscapesDataset'}
    (notice,) = check(segmentor(('car', 'road'), 2, dataset), ['train'])
    assert 'leaves out 17 of the 19 classes of CityscapesDataset (sidewalk' in notice
    assert not check(segmentor(None, 19, dataset))


def test_names_from_a_file(tmp_path):
    write_coco()
    (tmp_path / 'names.txt').write_text('disc\nring\nbox\n')
    assert not check(detector('names.txt'))
    (tmp_path / 'names.txt').write_text('disc\nring\nboxes\n')
    with pytest.raises(ConfigError, match=r"'boxes' \(did you mean 'box'\?\)"):
        check(detector('names.txt'))


@pytest.mark.parametrize('where', ['first', 'last'])
@pytest.mark.parametrize('indent', [None, 2])
@pytest.mark.parametrize('count', [1, 5000])
def test_categories_are_read_wherever_they_stand(tmp_path, where, indent, count):
    names = [f'näme "{number}" [' for number in range(count)]
    listed = [{'id': number, 'name': name} for number, name in enumerate(names)]
    categories = {'categories': listed}
    rest = {'images': [{'categories': [1, 2], 'note': '"categories": ['}]}
    parts = [categories, rest] if where == 'first' else [rest, categories]
    content = json.dumps({**parts[0], **parts[1]}, indent=indent, ensure_ascii=False)
    (tmp_path / 'a.json').write_text(content, encoding='utf-8')
    assert read_categories('a.json') == names


def test_data_elsewhere_are_not_read():
    for dataset in ({'backend_args': {'backend': 'petrel'}}, {'data_root': 's3://b'}):
        assert not check(detector(dataset=dataset), ['train'])


def test_validation_has_the_same_classes():
    write_coco()
    cfg = with_validation(detector())
    assert not check(cfg)
    cfg['val_evaluator'] = {'type': 'CocoMetric'}
    val = cfg['val_dataloader']['dataset']
    val['ann_file'] = 'other.json'
    val['metainfo'] = {'classes': ('ring', 'disc', 'box')}
    with pytest.raises(ConfigError, match='val_data.* the same in another order'):
        check(cfg)
    val['metainfo'] = {'classes': ('disc', 'ring', 'cube')}
    with pytest.raises(ConfigError, match=f'than {KEY}: not box and but cube'):
        check(cfg)
    assert not check(cfg, ['train'])


def test_the_metric_numbers_labels_as_the_data_do():
    write_coco(('disc', 'ring'), root='other')
    write_coco()
    cfg = detector()
    cfg['test_evaluator'] = {**cfg['test_evaluator'], 'ann_file': 'other/ann.json'}
    metric = cfg['test_evaluator']
    for evaluator, key in (
        (metric, ''),
        ([metric], '.0'),
        ({'metrics': metric}, '.metrics'),
        ({'metrics': [metric]}, '.metrics.0'),
    ):
        said = rf"^test_evaluator{key}\.ann_file: .* but other/ann\.json has no 'box'"
        with pytest.raises(ConfigError, match=said):
            check({**cfg, 'test_evaluator': evaluator}, ['test'])
    assert not check(cfg, ['train'])


def test_a_test_that_will_be_refused_is_foreseen():
    """mmdet's base files give test_dataloader its own classes."""
    write_coco()
    cfg = Config(detector())
    assert foresee_test(cfg) == []
    cfg.test_dataloader.dataset.pop('metainfo')
    (notice,) = foresee_test(cfg)
    said = 'tools/test.py will refuse this config: test_dataloader.dataset.metainfo.cl'
    assert notice.startswith(said)
    assert not check_classes(cfg, ['train'])


def test_models_that_take_any_text_may_have_other_classes():
    write_coco()
    cfg = detector(count=256)
    cfg['model'] = {**cfg['model'], 'language_model': {'type': 'BertModel'}}
    assert not check(cfg)
    write_coco(('square',), root='other')
    dataset = {**cfg['test_dataloader']['dataset'], 'data_root': 'other'}
    dataset['metainfo'] = {'classes': ('square',)}
    both = [cfg['test_dataloader']['dataset'], dataset]
    cfg['test_dataloader']['dataset'] = {'type': 'ConcatDataset', 'datasets': both}
    metrics = [{**cfg['test_evaluator'], 'ann_file': f'{r}/ann.json'} for r in ROOTS]
    cfg['test_evaluator'] = {'type': 'MultiDatasetsEvaluator', 'metrics': metrics}
    assert not check(cfg)


def outputs(**model):
    write_labels()
    cfg = segmentor()
    cfg['model'] = {'type': 'EncoderDecoder', **model}
    return cfg


@pytest.mark.parametrize(
    'part',
    [
        {'backbone': {'num_classes': 1000}},
        {'rpn_head': {'type': 'RPNHead'}},
        {'auxiliary_head': [{'type': 'STDCHead', 'num_classes': 2}]},
        {'roi_head': {'semantic_head': {'type': 'FusedSemanticHead'}}},
        {'panoptic_head': {'num_things_classes': 2, 'num_stuff_classes': 1}},
        {'bbox_head': {'num_classes': 3}},
    ],
)
def test_outputs_that_fit_or_count_something_else(part):
    assert not check(outputs(**part))


@pytest.mark.parametrize(
    'part, key, number',
    [
        ({'decode_head': {'num_classes': 4}}, 'decode_head.num_classes', 4),
        ({'aux': [{}, {'num_classes': 2}]}, 'aux.1.num_classes', 2),
        (
            {'panoptic_head': {'num_things_classes': 3, 'num_stuff_classes': 1}},
            'panoptic_head.num_things_classes + num_stuff_classes',
            4,
        ),
    ],
)
def test_outputs_that_do_not_fit(part, key, number):
    with pytest.raises(ConfigError) as caught:
        check(outputs(**part))
    said = str(caught.value)
    assert said.startswith(f'model.{key} is {number}, but {KEY} are 3 (disc, ring')
    option = f'pass --cfg-options model.{key}=3,'
    assert ('give as many,' if '+' in key else option) in said


def test_outputs_that_a_head_has_by_default():
    write_coco()
    cfg = detector()
    roi_head = {'bbox_head': [{'type': 'Shared2FCBBoxHead'}]}
    cfg['model'] = {**cfg['model'], 'roi_head': roi_head}
    key = re.escape('model.roi_head.bbox_head.0.num_classes is 80, but')
    with pytest.raises(ConfigError, match=key):
        check(cfg)


def test_stock_configs_are_in_order():
    """They have the classes of their data sets, and no data here."""
    for name in (
        'mmdet::rtmdet/rtmdet-ins_tiny_8xb32-300e_coco.py',
        'mmdet::panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py',
        'mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic.py',
        'mmdet::htc/htc_r50_fpn_1x_coco.py',
        'mmdet::sort/sort_faster-rcnn_r50_fpn_8xb2-4e_mot17halftrain_'
        'test-mot17halfval.py',
        'mmseg::stdc/stdc1_4xb12-80k_cityscapes-512x1024.py',
        'mmseg::unet/unet-s5-d16_fcn_4xb4-40k_hrf-256x256.py',
        'mmseg::san/san-vit-b16_voc12aug-640x640.py',
    ):
        package, _, path = name.partition('::')
        check_classes(stock(package, path), STAGES)


def stock(package, path):
    from mmengine.config.utils import MODULE2PACKAGE
    from mmengine.utils import get_installed_path

    root = get_installed_path(MODULE2PACKAGE.get(package, package))
    return Config.fromfile(f'{root}/.mim/configs/{path}')
