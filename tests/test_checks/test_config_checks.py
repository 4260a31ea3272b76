"""Overrides without effect and missing data are errors."""

import pytest
from mmengine.config import Config

from dcls_mm.checks.config_checks import apply_overrides, check_data
from dcls_mm.checks.errors import ConfigError


def config(**changes):
    pipeline = [{'type': 'LoadImage'}, {'type': 'Resize', 'scale': (10, 20)}]
    return Config(
        {
            'data_root': 'data/here/',
            'train_pipeline': pipeline,
            'unused': 1,
            'train_dataloader': {
                'dataset': {'data_root': 'data/here/', 'pipeline': pipeline}
            },
            'train_cfg': {'max_epochs': 3},
            'optim_wrapper': {'type': 'OptimWrapper', 'optimizer': {'lr': 1.0}},
            'default_hooks': {'checkpoint': {'interval': 1}},
            **changes,
        }
    )


@pytest.mark.parametrize(
    'key',
    [
        'train_cfg.max_epochs',
        'train_cfg.val_interval',  # a new key in a section
        'train_dataloader.dataset.pipeline.1.scale',
        'optim_wrapper.clip_grad.max_norm',  # a new section
        'randomness.seed',  # a section that Runner knows
        'resume',
        'compile',
    ],
)
def test_overrides_that_take_effect(key):
    cfg = config()
    apply_overrides(cfg, {key: 5})
    for part in key.split('.'):
        cfg = cfg[int(part) if part.isdigit() else part]
    assert cfg == 5


@pytest.mark.parametrize(
    'key, message',
    [
        (
            'train_cfgs.max_epochs',
            'no config has a train_cfgs; did you mean train_cfg?',
        ),
        ('resum', 'no config has a resum; did you mean resume?'),
        ('default_hooks.checkpont.interval', 'did you mean checkpoint?'),
        ('train_cfg.max_epochs.x', 'train_cfg.max_epochs is 3, which has no x'),
        ('train_dataloader.dataset.pipeline.2.scale', 'pipeline is a list of 2'),
        ('train_dataloader.dataset.pipeline.last.scale', 'without a last'),
        ('data_root', 'variable .* set train_dataloader.dataset.data_root$'),
        ('train_pipeline.1.scale', 'set train_dataloader.dataset.pipeline$'),
        ('unused', 'unused is a variable .* set what was made from it'),
    ],
)
def test_overrides_that_would_go_unnoticed(key, message):
    cfg = config()
    with pytest.raises(ConfigError, match=message) as caught:
        apply_overrides(cfg, {'resume': True, key: 5})
    assert str(caught.value).startswith(f'--cfg-options {key}: ')
    assert 'resume' not in cfg


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Create a folder with data, which relative paths refer to."""
    (tmp_path / 'data/images').mkdir(parents=True)
    (tmp_path / 'data/train.json').write_text('{}')
    monkeypatch.chdir(tmp_path)
    return tmp_path / 'data'


def dataset(**changes):
    return {
        'data_root': 'data',
        'ann_file': 'train.json',
        'data_prefix': {'img': 'images/'},
        **changes,
    }


def loaders(train, **changes):
    return Config({'train_dataloader': {'dataset': train}, **changes})


@pytest.mark.parametrize(
    'changes',
    [
        {},
        {'data_root': None, 'ann_file': 'data/train.json', 'data_prefix': {}},
        {'data_prefix': {'img': ''}, 'ann_file': ''},
        {'data_root': 'nowhere', 'backend_args': {'backend': 'petrel'}},
        {'data_root': 's3://bucket'},
        {'data_prefix': {'img': 's3://bucket'}, 'ann_file': 's3://bucket/a.json'},
    ],
)
def test_data_that_are_there_or_elsewhere(data, changes):
    check_data(loaders(dataset(**changes)), ['train'])


def test_absolute_paths_stand_alone(data):
    cfg = loaders(dataset(data_root='', ann_file=str(data / 'train.json')))
    cfg.train_dataloader.dataset.data_prefix.img = str(data / 'images')
    check_data(cfg, ['train'])


@pytest.mark.parametrize(
    'changes, key, path',
    [
        ({'data_root': 'nowhere/'}, 'data_root', 'nowhere/'),
        ({'ann_file': 'no.json'}, 'ann_file', 'data/no.json'),
        ({'data_prefix': {'img': 'no/'}}, 'data_prefix.img', 'data/no/'),
        ({'ann_file': '/no.json'}, 'ann_file', '/no.json'),
    ],
)
def test_data_that_are_missing(data, changes, key, path):
    with pytest.raises(ConfigError) as caught:
        check_data(loaders(dataset(**changes)), ['train'])
    name = f'train_dataloader.dataset.{key}'
    assert str(caught.value) == (
        f'{name}: {path!r} does not exist (looked in {data.parent}); '
        f'put the data there, or pass --cfg-options {name}=...'
    )


def test_datasets_inside_others(data):
    bad = dataset(data_root='nowhere')
    cfg = loaders({'type': 'RepeatDataset', 'dataset': {'datasets': [dataset(), bad]}})
    with pytest.raises(ConfigError, match=r'dataset\.dataset\.datasets\.1\.data_root:'):
        check_data(cfg, ['train'])


def test_a_path_that_several_need_is_told_once(data):
    bad = {'dataset': dataset(data_root='nowhere')}
    cfg = Config({'train_dataloader': bad, 'val_dataloader': bad, 'val_evaluator': []})
    with pytest.raises(ConfigError) as caught:
        check_data(cfg, ['train', 'val'])
    (line,) = str(caught.value).splitlines()
    assert 'train_dataloader.dataset.data_root=... val_dataloader.dataset.d' in line


def test_evaluators(data):
    metrics = [{'type': 'A'}, {'type': 'B', 'ann_file': 'data/val.json'}]
    cfg = Config({'test_dataloader': {'dataset': dataset()}, 'test_evaluator': metrics})
    with pytest.raises(ConfigError, match=r"test_evaluator\.1\.ann_file: 'data/val.js"):
        check_data(cfg, ['test'])
    cfg.test_evaluator = {'type': 'Evaluator', 'metrics': metrics}
    with pytest.raises(ConfigError, match=r'test_evaluator\.metrics\.1\.ann_file: '):
        check_data(cfg, ['test'])


def test_only_what_is_about_to_run_counts(data):
    cfg = loaders(dataset(), test_dataloader={'dataset': dataset(data_root='nowhere')})
    check_data(cfg, ['train', 'val'])
    with pytest.raises(ConfigError, match='test_dataloader'):
        check_data(cfg, ['test'])
