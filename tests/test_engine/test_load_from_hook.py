"""A training does not start from a checkpoint that hardly fits the model."""

import pytest
import torch
from torch import nn
from toy import write_config

from dcls_mm.apis import train
from dcls_mm.checkpoint import CheckpointError, read_checkpoint
from dcls_mm.engine.hooks.load_from_hook import count_matching
from dcls_mm.layers import DCLSConv2d


def model(classes=3, **settings):
    settings = {'dilated_kernel_size': 7, 'kernel_count': 3, 'groups': 4, **settings}
    backbone = nn.Sequential(nn.Conv2d(3, 4, 1), DCLSConv2d(4, 4, **settings))
    head = nn.Linear(4, classes)
    return nn.ModuleDict({'backbone': backbone, 'head': head})


def test_all_of_it():
    ours = model()
    assert count_matching(ours, model().state_dict(), 'x.pth') is None


def test_a_head_for_other_classes_is_usual():
    ours, other = model(), model(5).state_dict()
    other['more'] = torch.ones(1)
    assert count_matching(ours, other, 'x.pth') == (
        "load_from x.pth: 5 of 7 values are taken from it; 2 don't fit (head.weight "
        '[5, 4] instead of [3, 4], head.bias [5] instead of [3]): these keep '
        'their initial values'
    )
    assert torch.equal(ours['backbone'][0].weight, other['backbone.0.weight'])


def test_a_backbone_alone_is_usual():
    ours, other = model(), model()
    del other['head']
    notice = count_matching(ours, other.state_dict(), 'x.pth')
    assert '5 of 7 values are taken from it; 2 are not in it (head.weight, he' in notice


@pytest.mark.parametrize('prefix', ['', 'module.backbone.0.'])
def test_another_model(prefix):
    state_dict = {f'{prefix}weight': torch.ones(3), f'{prefix}bias': torch.ones(3)}
    with pytest.raises(CheckpointError) as caught:
        count_matching(model(), state_dict, 'x.pth')
    said = str(caught.value)
    assert "only 0 of the 5 values of the model's backbone are taken from it" in said
    assert f'It holds {prefix}weight, {prefix}bias.' in said
    assert "init_cfg=dict(type='Pretrained'" in said


def test_less_than_half_of_a_backbone():
    part = dict(list(model().state_dict().items())[:2])
    with pytest.raises(CheckpointError, match='only 2 of the 5 values of the model'):
        count_matching(model(), part, 'x.pth')


def test_a_model_without_a_backbone():
    ours = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    half = dict(list(ours.state_dict().items())[:2])
    assert '2 of 4 values' in count_matching(ours, half, 'x.pth')
    with pytest.raises(CheckpointError, match='only 1 of the 4 values of the mod'):
        count_matching(ours, {'0.bias': torch.ones(2)}, 'x.pth')


def test_what_a_layer_says_against_a_file_stops():
    """mmengine would log it and train on."""
    state_dict = model().state_dict()
    metadata = state_dict._metadata['backbone.1']
    assert metadata['position_axes'] == (0, 1)
    metadata['position_axes'] = (1, 0)
    with pytest.raises(CheckpointError, match=r'load_from x\.pth: .*spatial axes'):
        count_matching(model(), state_dict, 'x.pth')


def test_a_training_stops_and_another_is_told(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    torch.save({'state_dict': {'a': torch.ones(1)}}, 'other.pth')
    config = write_config(tmp_path / 'toy.py', load_from='other.pth')
    with pytest.raises(CheckpointError, match='load_from other.pth: only 0 of the 8'):
        train.train(config=config, work_dir='work')
    assert not list(tmp_path.glob('work/*.pth'))

    config = write_config(
        tmp_path / 'toy.py', train_cfg={'by_epoch': True, 'max_epochs': 1}
    )
    train.train(config=config, work_dir='first')
    start = read_checkpoint('first/epoch_1.pth')['state_dict']
    torch.save({'state_dict': {**start, 'net.2.bias': torch.ones(5)}}, 'most.pth')
    config = write_config(
        tmp_path / 'toy.py',
        load_from='most.pth',
        train_cfg={'by_epoch': True, 'max_epochs': 1},
    )
    capfd.readouterr()
    train.train(config=config, work_dir='second')
    assert 'load_from most.pth: 7 of 8 values are taken' in ''.join(capfd.readouterr())
