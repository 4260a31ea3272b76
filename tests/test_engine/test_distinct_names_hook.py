"""Outputs of tools/test.py that are named after the images."""

import shutil

import pytest
from mmengine.config import Config
from scenes import write_demo

from dcls_mm.apis import test as testing
from dcls_mm.checks.errors import ConfigError


def run(config, checkpoint, folder, option):
    out = {option: str(folder / 'out')}
    testing.test(
        config=config, checkpoint=checkpoint, work_dir=str(folder / 'w'), **out
    )
    return sorted(path.name for path in (folder / 'out').rglob('*.*g'))


@pytest.mark.parametrize(
    'scope, option, form',
    [
        ('mmdet', 'show_dir', '{}.jpg'),
        ('mmseg', 'out', '{}.png'),
        ('mmseg', 'show_dir', 'test_{}.jpg_0.png'),
    ],
)
def test_two_data_sets_of_one_name(scope, option, form, tmp_path):
    """Two folders, as of two cities or cameras, are refused; one alone works.

    There are no training data, which mmseg's visualization hook would need.
    """
    config, checkpoint = write_demo(tmp_path, scope, count=2)
    cfg = Config.fromfile(config)
    cfg.visualizer.name = str(tmp_path)  # mmengine keeps one per name and process
    cfg.dump(config)
    first = cfg.test_dataloader.dataset
    stems = sorted(path.stem for path in (tmp_path / 'images' / 'val').iterdir())
    names = [form.format(stem) for stem in stems]
    assert run(config, checkpoint, tmp_path, option) == names

    shutil.copytree(tmp_path / 'images' / 'val', tmp_path / 'images' / 'other')
    key = 'img' if scope == 'mmdet' else 'img_path'
    second = first.copy()
    second.data_prefix = {**first.data_prefix, key: 'images/other'}
    cfg.test_dataloader.dataset = dict(type='ConcatDataset', datasets=[first, second])
    cfg.dump(config)
    name = option.replace('_', '-')
    message = f'--{name}: .*val.* and .*other.* would both be'
    with pytest.raises(ConfigError, match=message):
        run(config, checkpoint, tmp_path, option)
