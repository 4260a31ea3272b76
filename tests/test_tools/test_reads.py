"""Each command reads each checkpoint file once, and loads its weights once."""

import shutil
from pathlib import Path

import pytest
import torch
from opened import CHECKPOINTS
from tool_inputs import write_config, write_data, write_weights
from toy import write_config as write_toy
from wrong_input import command

from dcls_mm.apis import train
from dcls_mm.apis.inferencers import build_inferencer
from dcls_mm.backbones import ConvNeXtDCLS
from dcls_mm.layers import DCLSConv2d

MODEL = ('config.py', 'weights.pth')
VISUALIZE = 'tools/analysis_tools/visualize.py'
ONE_SHAPE = ('--count', 1, '--shape', 64, 64)

# Command -> the checkpoints that it opens, one entry per time.
MODELS = {
    ('tools/test.py', *MODEL, '--work-dir', 'work'): ['weights'],
    ('tools/predict.py', *MODEL, 'data/images', '--out', 'o'): ['weights'],
    ('tools/analysis_tools/tuning_report.py', *MODEL): ['weights'],
    ('tools/analysis_tools/get_flops.py', 'config.py', '--shape', 64): [],
    ('tools/analysis_tools/test_robustness.py', *MODEL, '--work-dir', 'work')
    + ('--corruptions', 'brightness', '--severities', 2): ['weights'],
    (VISUALIZE, 'kernels', *MODEL, '--out', 'o.png'): ['weights'],
    (VISUALIZE, 'positions', *MODEL, '--out', 'o.png'): ['weights'],
    (VISUALIZE, 'movement', 'config.py', 'trained', '--out', 'o'): [
        'epoch_1',
        'epoch_2',
    ],
    (VISUALIZE, 'receptive-field', *MODEL, '--out', 'o.png', *ONE_SHAPE): ['weights'],
    (VISUALIZE, 'grad-cam', *MODEL, '--out', 'o')
    + ('--images', 'data/images', '--count', 1): ['weights'],
    (VISUALIZE, 'predictions', *MODEL, '--out', 'o')
    + ('--against', 'config.py', 'trained/epoch_1.pth'): ['epoch_1', 'weights'],
    # It also reads its own file, to compare it with the model.
    ('tools/deploy/fold.py', *MODEL, '--out', 'o'): ['checkpoint', 'weights'],
    ('tools/deploy/export.py', *MODEL, '--out', 'o.pt') + ('--format', 'torchscript'): [
        'weights'
    ],
    ('tools/model_converters/convert.py', 'plain.pth', 'o.pth')
    + ('--from', 'convnext'): ['plain'],
}
TRAIN = ('tools/train.py', 'toy.py', '--work-dir', 'work')
OPTIONS = (*TRAIN, '--cfg-options')
TRAININGS = {
    (*TRAIN, '--resume', 'epoch_1.pth'): ['epoch_1'],
    (*TRAIN, '--resume'): ['epoch_1', 'epoch_2'],  # the second is cut off
    (*OPTIONS, 'resume=True'): ['epoch_1', 'epoch_2'],
    (*OPTIONS, 'resume=True', 'load_from=epoch_1.pth'): ['epoch_1'],
    (*OPTIONS, 'load_from=epoch_1.pth'): ['epoch_1'],
    ('tools/test.py', 'toy.py', 'epoch_1.pth'): ['epoch_1'],
}


def name(arguments):
    return '-'.join(Path(str(part)).stem for part in arguments)


def opened(*arguments):
    before = len(CHECKPOINTS)
    command(*arguments)
    return sorted(Path(file).stem for file in CHECKPOINTS[before:])


@pytest.fixture(scope='module')
def small_model(tmp_path_factory):
    folder = tmp_path_factory.mktemp('model')
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_config('mmseg', 'text', 'none', 3, 'dcls')
        write_data('mmseg', 3)
        write_weights('mmseg', 'dcls', 3)
        plain = ConvNeXtDCLS(
            arch={'depths': [1], 'dims': [8]},
            depthwise_cfg={'type': 'Conv2d', 'kernel_size': 7},
            out_indices=(0,),
        )
        torch.save({'model': plain.state_dict()}, 'plain.pth')
        Path('trained').mkdir()
        for epoch in (1, 2):
            shutil.copy('weights.pth', f'trained/epoch_{epoch}.pth')
    return folder


@pytest.mark.parametrize('arguments', MODELS, ids=name)
def test_commands_on_a_model(arguments, small_model, tmp_path, monkeypatch):
    if 'brightness' in arguments:
        pytest.importorskip('imagecorruptions')
    shutil.copytree(small_model, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    assert opened(*arguments) == MODELS[arguments]


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg'])
def test_an_inferencer_loads_once(scope, tmp_path, monkeypatch, recwarn):
    monkeypatch.chdir(tmp_path)
    write_config(scope, 'text', 'none', 3, 'dcls')
    write_weights(scope, 'dcls', 3)
    loaded = []
    before = DCLSConv2d._load_from_state_dict

    def count(layer, state_dict, prefix, *rest):
        loaded.append(prefix)
        before(layer, state_dict, prefix, *rest)

    monkeypatch.setattr(DCLSConv2d, '_load_from_state_dict', count)
    model = build_inferencer('config.py', 'weights.pth', 'cpu').model
    layers = [f'{n}.' for n, m in model.named_modules() if isinstance(m, DCLSConv2d)]
    assert loaded == layers
    assert not any('weights is None' in str(warning.message) for warning in recwarn)
    expected = torch.load('weights.pth')['state_dict']
    assert all(torch.equal(v, expected[k]) for k, v in model.state_dict().items())


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp('trained')
    changes = {'train_cfg': {'by_epoch': True, 'max_epochs': 1}}
    train.train(config=write_toy(folder / 'toy.py', **changes), work_dir=str(folder))
    return folder / 'epoch_1.pth'


@pytest.mark.parametrize('arguments', TRAININGS, ids=name)
def test_trainings(arguments, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = trained.read_bytes()
    Path('work').mkdir()
    for file in ('epoch_1.pth', 'work/epoch_1.pth'):
        Path(file).write_bytes(content)
    Path('work/epoch_2.pth').write_bytes(content[:-100])
    cfg = {'by_epoch': True, 'max_epochs': 2}
    write_toy(Path('toy.py'), train_cfg=cfg)
    assert opened(*arguments) == TRAININGS[arguments]
