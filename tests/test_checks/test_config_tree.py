"""Configs are read in both of mmengine's styles, and data sets inside others."""

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from small_data import detector, segmentor, write, write_coco, write_labels
from small_data import write_pure_python as write_pure
from torch import nn

from dcls_mm.apis import configs, train
from dcls_mm.apis import test as testing
from dcls_mm.apis.compare import plot_predictions
from dcls_mm.apis.launchers import replace_sync_bn
from dcls_mm.apis.predict import predict
from dcls_mm.apis.robustness import corrupt_images
from dcls_mm.checks.config_tree import find_scope, innermost_datasets, type_name
from dcls_mm.checks.errors import ConfigError


class Own(nn.Module):
    pass


@pytest.mark.parametrize(
    'kind, name',
    [
        ('RetinaNet', 'RetinaNet'),
        ('mmdet.RetinaNet', 'RetinaNet'),
        ('mmdet.models.RetinaNet', 'RetinaNet'),
        (nn.SyncBatchNorm, 'SyncBatchNorm'),
        (Own, 'Own'),
        (None, ''),
    ],
)
def test_the_name_of_a_type(kind, name):
    assert type_name({'type': kind}) == name
    assert type_name({}) == type_name(3) == ''


def test_data_sets_inside_others():
    a, b, c = ({'type': 'CocoDataset', 'ann_file': name} for name in 'abc')
    repeated = {'type': 'RepeatDataset', 'dataset': a, 'times': 2}
    mixed = {'type': 'MultiImageMixDataset', 'dataset': repeated, 'pipeline': []}
    several = {'type': 'ConcatDataset', 'datasets': [mixed, b]}
    assert innermost_datasets(a) == {'dataset': a}
    assert innermost_datasets(mixed, 'x') == {'x.dataset.dataset': a}
    assert innermost_datasets([several, c], 'x') == {
        'x.0.datasets.0.dataset.dataset': a,
        'x.0.datasets.1': b,
        'x.1': c,
    }
    assert innermost_datasets(None) == {}


@pytest.mark.parametrize(
    'model, scope',
    [
        ({'type': 'mmseg.EncoderDecoder'}, 'mmseg'),
        ({'type': 'mmdet.models.RetinaNet'}, 'mmdet'),
        ({'type': 'RetinaNet', 'neck': [{'type': 'mmdet.FPN'}]}, 'mmdet'),
        ({'type': 'RetinaNet'}, None),
        ({'type': Own}, None),
    ],
)
def test_the_scope_of_types(model, scope):
    assert find_scope(Config({'model': model}), ('mmdet', 'mmseg')) == scope


def test_the_scope_of_an_heir():
    from mmdet.models import RetinaNet

    heir = type('Heir', (RetinaNet,), {'__module__': 'elsewhere'})
    cfg = Config({'optim_wrapper': {'type': nn.Linear}, 'model': {'type': heir}})
    assert find_scope(cfg, ('mmdet', 'mmseg')) == 'mmdet'


@pytest.mark.parametrize(
    'kind', ['SyncBN', 'mmdet.SyncBN', 'MMSyncBN', 'SyncBatchNorm', nn.SyncBatchNorm]
)
def test_sync_bn_in_every_form(kind):
    model = Config({'a': [{'norm_cfg': {'type': kind, 'eps': 1e-3}}]})
    assert replace_sync_bn(model._cfg_dict) == 1
    assert model.a[0].norm_cfg == {'type': 'BN', 'eps': 1e-3}
    assert MODELS.build({**model.a[0].norm_cfg, 'num_features': 2}).num_features == 2


def repeat(dataset):
    return {'type': 'RepeatDataset', 'dataset': dataset, 'times': 1}


def concatenate(dataset):
    return {'type': 'ConcatDataset', 'datasets': [dataset, {**dataset}]}


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Return a function that writes a checkpoint and a config with wrapped data."""
    monkeypatch.chdir(tmp_path)

    def make(scope, writer, wrap):
        cfg = {'mmdet': detector, 'mmseg': segmentor}[scope]()
        if scope == 'mmdet':
            write_coco()
        else:
            write_labels()
            flips = [{'type': 'RandomFlip', 'prob': p} for p in (0.0, 1.0)]
            pack = [{'type': 'PackSegInputs'}]
            steps = cfg['test_dataloader']['dataset']['pipeline'][:-1]
            cfg['tta_model'] = {'type': 'SegTTAModel'}
            augment = {'type': 'TestTimeAug', 'transforms': [flips, pack]}
            cfg['tta_pipeline'] = [*steps, augment]
        loader = cfg['test_dataloader']
        loader['dataset'] = wrap(loader['dataset'])
        init_default_scope(scope)
        torch.manual_seed(0)
        model = MODELS.build(Config({'model': cfg['model']}).model)
        torch.save({'state_dict': model.state_dict()}, 'x.pth')
        return writer(cfg), 'x.pth'

    return make


@pytest.mark.parametrize(
    'scope, wrap', [('mmdet', concatenate), ('mmseg', repeat)], ids=['mmdet', 'mmseg']
)
def test_a_config_of_pure_python_with_data_inside_others(files, scope, wrap):
    """Our tools support both: test with augmentation, predict and draw."""
    config, checkpoint = files(scope, write_pure, wrap)
    cfg, _ = testing.prepare_test(config, checkpoint, tta=True)
    assert cfg.default_scope == scope
    tested = innermost_datasets(cfg.test_dataloader.dataset).values()
    assert {type_name(one.pipeline[-1]) for one in tested} == {'TestTimeAug'}
    testing.test(config=config, checkpoint=checkpoint, tta=True, work_dir='work')

    assert predict(config, checkpoint, 'data/images', 'out') == 3
    drawn = 6 if wrap is concatenate else 3
    said = plot_predictions(config, checkpoint, 'drawn', count=8)
    assert said == f'drawn: {drawn} pictures'
    limited = plot_predictions(config, checkpoint, 'four', count=2)
    assert limited == 'four: 2 pictures'


@pytest.mark.parametrize('writer', [write, write_pure])
def test_images_are_corrupted_in_every_data_set(files, writer):
    config, _ = files('mmdet', writer, concatenate)
    cfg = configs.load_config(config)
    corrupt_images(cfg.test_dataloader.dataset, 'fog', 2)
    for one in innermost_datasets(cfg.test_dataloader.dataset).values():
        names = [type_name(step) for step in one.pipeline]
        assert names[:2] == ['LoadImageFromFile', 'CorruptImage']
    cfg.test_dataloader.dataset.datasets[1].pipeline.pop(0)
    with pytest.raises(ConfigError, match=r'datasets\.1\.pipeline: has no LoadImage'):
        corrupt_images(cfg.test_dataloader.dataset, 'fog', 2)


def test_a_config_of_pure_python_trains_and_is_overridden(files):
    config, _ = files('mmdet', write_pure, repeat)
    key = 'test_dataloader.dataset.dataset.pipeline.2.scale'
    options = {'model.bbox_head.stacked_convs': 2, key: (32, 32)}
    cfg, _ = train.prepare_train(config, work_dir='work', cfg_options=options)
    assert cfg.model.bbox_head.stacked_convs == 2
    assert cfg.test_dataloader.dataset.dataset.pipeline[2].scale == (32, 32)
    train.train(config=config, work_dir='work', cfg_options=options)
    # mmengine writes this beside the checkpoint, with types as dotted paths.
    written = configs.load_config('work/pure.py')
    assert written.default_scope == 'mmdet'
    assert type_name(written.model.bbox_head) == 'RetinaHead'
    testing.prepare_test('work/pure.py', 'work/epoch_1.pth')
