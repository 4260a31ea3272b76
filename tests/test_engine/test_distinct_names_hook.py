"""Outputs of tools/test.py that are called as the images are."""

import shutil

import pytest
from mmengine.config import Config
from scenes import write_demo

from dcls_mm.engine import launch
from dcls_mm.engine.config_checks import ConfigError

OPTIONS = {'mmdet': 'show_dir', 'mmseg': 'out'}


def run(config, checkpoint, folder, scope):
    out = {OPTIONS[scope]: str(folder / 'out')}
    launch.test(config=config, checkpoint=checkpoint, work_dir=str(folder / 'w'), **out)
    return sorted(path.stem for path in (folder / 'out').rglob('*.*'))


@pytest.mark.parametrize('scope', OPTIONS)
def test_two_data_sets_of_one_name(scope, tmp_path):
    """Two folders, as two cities or two cameras have them; and one of them alone."""
    config, checkpoint = write_demo(tmp_path, scope, count=2)
    cfg = Config.fromfile(config)
    first = cfg.test_dataloader.dataset
    stems = sorted(path.stem for path in (tmp_path / 'images' / 'val').iterdir())
    assert run(config, checkpoint, tmp_path, scope) == stems

    shutil.copytree(tmp_path / 'images' / 'val', tmp_path / 'images' / 'other')
    key = 'img' if scope == 'mmdet' else 'img_path'
    second = first.copy()
    second.data_prefix = {**first.data_prefix, key: 'images/other'}
    cfg.test_dataloader.dataset = dict(type='ConcatDataset', datasets=[first, second])
    cfg.dump(config)
    name = '--show-dir' if scope == 'mmdet' else '--out'
    message = f'{name}: .*val.* and .*other.* would both be'
    with pytest.raises(ConfigError, match=message):
        run(config, checkpoint, tmp_path, scope)
