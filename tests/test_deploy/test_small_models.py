"""Models of every kind fold, and predict the same where dcls_mm can't be imported."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from predictions import predict
from small_models import ALL, write_model

from dcls_mm.apis import export, fold
from dcls_mm.apis.export import export_model
from dcls_mm.apis.fold import fold_checkpoint
from dcls_mm.checks.errors import ConfigError

WITHOUT_US = """
import pathlib, sys
sys.modules['dcls_mm'] = None  # importing it is an error
sys.path.insert(0, sys.argv[1])
import torch
from predictions import predict
for folder in map(pathlib.Path, sys.argv[2:]):
    scope = (folder / 'scope').read_text()
    found = predict(scope, str(folder / 'config.py'), str(folder / 'checkpoint.pth'))
    torch.save(found, folder / 'predicted.pth')
"""
# A folder name that a config would run if it were pasted into it.
RUNS = "x'+str(open('ran','w'))+'"


@pytest.fixture(scope='module', autouse=True)
def small_images():
    """Record and check the models with small images, to match their size."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (fold, export):
            patch.setattr(module, 'RECORDED_SHAPE', (2, 64, 96))
            patch.setattr(module, 'CHECKED_SHAPES', ((1, 96, 64), (3, 128, 96)))
        yield


@pytest.fixture(scope='module')
def folded(tmp_path_factory):
    """Return {model name: its config, checkpoint and the folder of the folded model}.

    One process without dcls_mm has predicted with all of them.
    """
    root = tmp_path_factory.mktemp('models')
    written = {}
    for number, name in enumerate(ALL):
        given = root / str(number)
        given.mkdir()
        out = given / RUNS
        config, checkpoint = write_model(given, name)
        fold_checkpoint(config, checkpoint, str(out))
        (out / 'scope').write_text(ALL[name][0])
        written[name] = config, checkpoint, out
    folders = [str(out) for *_, out in written.values()]
    command = [
        sys.executable,
        '-W',
        'ignore',
        '-c',
        WITHOUT_US,
        str(Path(__file__).parent),
    ]
    done = subprocess.run(command + folders, cwd=root, capture_output=True, text=True)
    assert not done.returncode, done.stderr
    assert not [*root.rglob('ran')]
    return written


@pytest.mark.parametrize('name', ALL)
def test_predicts_the_same_without_us(name, folded):
    config, checkpoint, out = folded[name]
    expected = predict(ALL[name][0], config, checkpoint)
    found = torch.load(out / 'predicted.pth')
    assert found.keys() == expected.keys() and expected
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-3, atol=1e-4)
    assert 'dcls_mm' not in (out / 'config.py').read_text()


@pytest.mark.parametrize(
    'name, format',
    [
        ('resnet with conv_cfg', 'torchscript'),
        ('replaced stem', 'torchscript'),
        ('4 channels', 'torch-export'),
    ],
)
def test_a_segmentor_as_a_file(name, format, folded, tmp_path):
    config, checkpoint, _ = folded[name]
    out = tmp_path / "o'brien {{ x }}.pt2"
    export_model(config, checkpoint, str(out), format)
    assert out.stat().st_size


@pytest.mark.parametrize(
    'name, message',
    [
        ('detr', 'a DETR has no such part .* images alone, .*--part backbone'),
        (
            'mask2former',
            'a Mask2Former has no such part .* images alone, .*--part backbone',
        ),
        ('pointrend', 'the torchscript file, run at sizes other than .* differs'),
    ],
)
def test_what_no_file_holds_is_said(name, message, folded, tmp_path):
    config, checkpoint, _ = folded[name]
    out = tmp_path / 'new' / 'model.pt'
    with pytest.raises(ConfigError, match=message):
        export_model(config, checkpoint, str(out), 'torchscript')
    assert not any(tmp_path.iterdir())


def test_the_backbone_of_what_no_file_holds(folded, tmp_path):
    config, checkpoint, _ = folded['detr']
    out = str(tmp_path / 'backbone.pt')
    export_model(config, checkpoint, out, 'torchscript', part='backbone')
    assert len(torch.jit.load(out)(torch.zeros(1, 3, 64, 96))) == 1


@pytest.mark.parametrize('name', ['ocrnet', 'encnet'])
def test_cascades_and_heads_with_more_outputs(name, folded, tmp_path):
    config, checkpoint, _ = folded[name]
    out = str(tmp_path / 'model.pt')
    export_model(config, checkpoint, out, 'torchscript')
    assert [o.shape for o in torch.jit.load(out)(torch.zeros(2, 3, 64, 96))] == [
        (2, 3, 64, 96)
    ]
