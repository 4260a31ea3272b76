"""Class names come from the checkpoint, else from the config's test data."""

import pytest
from mmengine.config import Config
from mmseg.datasets import CityscapesDataset

from dcls_mm.apis.class_names import class_names

COLOURS = [(1, 2, 3), (4, 5, 6)]
NAMED = {'classes': ('a', 'b'), 'palette': COLOURS}


def names(dataset, meta=None):
    test_data = {} if dataset is None else {'test_dataloader': {'dataset': dataset}}
    cfg = Config(dict(default_scope='mmseg', **test_data))
    return class_names({} if meta is None else {'meta': meta}, cfg)


@pytest.mark.parametrize(
    'dataset, expected',
    [
        ({'type': 'mmseg.CityscapesDataset'}, 'road'),
        ({'type': CityscapesDataset}, 'road'),
        ({'type': 'CityscapesDataset', 'metainfo': {'classes': ('sky',)}}, 'sky'),
        ({'type': 'Repeat', 'dataset': {'type': 'mmdet.CocoDataset'}}, 'person'),
        ({'datasets': [{'dataset': {'type': 'mmdet.CocoDataset'}}, {}]}, 'person'),
    ],
)
def test_of_the_test_data(dataset, expected):
    assert names(dataset)['classes'][0] == expected


def test_of_a_subset_the_colours_are_its_own():
    """A subset keeps its own colours, as in mmseg's training: not the first colours."""
    found = names({'type': 'CityscapesDataset', 'metainfo': {'classes': ('sky',)}})
    sky = CityscapesDataset.METAINFO['classes'].index('sky')
    assert found['palette'] == [tuple(CityscapesDataset.METAINFO['palette'][sky])]


def test_in_a_file(tmp_path):
    (tmp_path / 'classes.txt').write_text('a\nb\n')
    metainfo = {'classes': str(tmp_path / 'classes.txt')}
    dataset = {'type': 'mmdet.CocoDataset', 'metainfo': metainfo}
    assert names(dataset)['classes'] == ['a', 'b']


@pytest.mark.parametrize(
    'meta',
    [
        {'dataset_meta': NAMED},
        {'dataset_meta': {'CLASSES': ('a', 'b'), 'PALETTE': COLOURS}},
        {'CLASSES': ('a', 'b'), 'PALETTE': COLOURS},  # mmdet 2, mmseg 0
    ],
)
def test_of_the_checkpoint_come_first(meta):
    assert names({'type': 'CityscapesDataset'}, meta) == NAMED
    assert names(None, meta) == NAMED


def test_a_text_is_one_class_and_not_its_letters():
    assert names(None, {'CLASSES': 'disc'})['classes'] == ('disc',)


def test_colours_of_a_checkpoint_without_any():
    """They are the config's for the same classes, else arbitrary but reproducible."""
    dataset = {'type': 'BaseSegDataset', 'metainfo': NAMED}
    assert names(dataset, {'CLASSES': ['a', 'b']})['palette'] == COLOURS
    found = names(dataset, {'CLASSES': ['x', 'y', 'z']})
    assert len({*found['palette']}) == 3
    assert names(None, {'CLASSES': ['x', 'y', 'z']}) == found


def test_without_any():
    assert names(None) == names({'type': 'mmseg.BaseSegDataset'}) == {}
