"""What is written loads where dcls_mm can't be imported, and computes the same."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from scenes import write_demo

from dcls_mm.apis.fold import fold_checkpoint
from dcls_mm.checks.errors import ConfigError

WITHOUT_US = """
import sys
sys.modules['dcls_mm'] = None  # importing it is an error
import torch
from {scope}.apis import {init}
folder = sys.argv[1]
model = {init}(folder + '/config.py', folder + '/checkpoint.pth', device='cpu')
images = torch.load(folder + '/images.pth')
with torch.no_grad():
    torch.save(model.extract_feat(images), folder + '/features.pth')
"""


def features(config, checkpoint, images):
    cfg = Config.fromfile(config)
    init_default_scope(cfg.default_scope)
    model = MODELS.build(cfg.model).eval()
    model.load_state_dict(torch.load(checkpoint)['state_dict'])
    with torch.no_grad():
        return model.extract_feat(images)


@pytest.mark.parametrize(
    'scope, init', [('mmdet', 'init_detector'), ('mmseg', 'init_model')]
)
def test_stock_code_loads_it(scope, init, tmp_path):
    config, checkpoint = write_demo(tmp_path, scope, count=1)
    out = tmp_path / 'out'
    report = fold_checkpoint(config, checkpoint, str(out))
    assert '6 layers folded' in report
    images = torch.randn(2, 3, 96, 128, generator=torch.Generator().manual_seed(0))
    torch.save(images, out / 'images.pth')
    script = WITHOUT_US.format(scope=scope, init=init)
    command = [sys.executable, '-W', 'ignore', '-c', script, str(out)]
    done = subprocess.run(command, cwd=out, capture_output=True, text=True)
    assert not done.returncode, done.stderr
    expected = features(config, checkpoint, images)
    for actual, wanted in zip(torch.load(out / 'features.pth'), expected):
        torch.testing.assert_close(actual, wanted, rtol=1e-4, atol=1e-5)
    assert 'dcls_mm' not in (out / 'config.py').read_text()


def test_rounded_positions(tmp_path):
    config, checkpoint = write_demo(tmp_path, 'mmseg', count=1)
    out = str(tmp_path / 'out')
    assert '0 of the largest' not in fold_checkpoint(
        config, checkpoint, out, round_positions=True
    )
    weights = torch.load(f'{out}/checkpoint.pth')['state_dict']
    kernel = weights['backbone.stages.0.0.dwconv.weight']
    assert kernel.shape == (24, 1, 17, 17)
    assert (kernel != 0).flatten(1).sum(1).max() <= 34


@pytest.mark.parametrize(
    'changes, message',
    [
        (
            {'model.backbone.depthwise_cfg': dict(type='Conv2d', kernel_size=7)},
            'the model has no DCLS layers to fold',
        ),
        (
            {'model.decode_head.conv_cfg': dict(type='DCLSConv2d')},
            'decode_head.*DCLSConv2d.*outside the backbone.*export.py',
        ),
    ],
)
def test_mistakes_leave_no_files(changes, message, tmp_path):
    config, checkpoint = write_demo(tmp_path, 'mmseg', count=1)
    cfg = Config.fromfile(config)
    for key, value in changes.items():
        section, _, name = key.rpartition('.')
        node = cfg
        for part in section.split('.'):
            node = node[part]
        node[name] = value
    cfg.dump(config)
    model = MODELS.build(cfg.model)
    torch.save({'state_dict': model.state_dict()}, checkpoint)
    out = tmp_path / 'out'
    with pytest.raises(ConfigError, match=message):
        fold_checkpoint(config, checkpoint, str(out))
    assert not out.exists()


def test_a_folder_that_cannot_be_written_to(tmp_path):
    config, checkpoint = write_demo(tmp_path, 'mmseg', count=1)
    (tmp_path / 'file').touch()
    with pytest.raises(ConfigError, match='--out .*file'):
        fold_checkpoint(config, checkpoint, str(tmp_path / 'file'))
    assert Path(tmp_path / 'file').stat().st_size == 0
