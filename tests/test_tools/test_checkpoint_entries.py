"""Every command says in one sentence what is wrong with a checkpoint's form."""

import pytest
import torch
from toy import write_config
from wrong_input import command

from dcls_mm.backbones import ConvNeXtDCLS, ReplacedConvBackbone
from dcls_mm.checkpoint import CheckpointError
from dcls_mm.checkpoint.mmengine_loaders import as_data

pytest.importorskip('mmdet')

ONE = torch.ones(1)
NO_WEIGHTS = {
    'list': ([ONE], 'a list'),
    'tensor': (ONE, 'a Tensor'),
    'text': ('weights', 'a str'),
    'none': ({'state_dict': None}, 'None as state_dict'),
    'list inside': ({'state_dict': [ONE]}, 'a list as state_dict'),
    'empty': ({'state_dict': {}}, 'state_dict with nothing'),
    'integer keys': ({'state_dict': {1: ONE}}, 'the key 1'),
    'integer keys alone': ({1: ONE}, 'the key 1'),
    'deeper': ({'state_dict': {'backbone': {'weight': ONE}}}, 'with backbone'),
    'numbers': ({'epoch': 3, 'lr': 0.1}, 'only epoch, lr'),
}
ODD_META = {
    'list as meta': ({'meta': [1], 'state_dict': {'a': ONE}}, 'its meta must be'),
    'list as dataset_meta': (
        {'meta': {'dataset_meta': [1]}, 'state_dict': {'a': ONE}},
        'its dataset_meta must be',
    ),
    'classes': (
        {'meta': {'dataset_meta': {'classes': 3}}, 'state_dict': {'a': ONE}},
        'meta classes must be',
    ),
    'integer keys of meta': (
        {'meta': {3: 1}, 'state_dict': {'a': ONE}},
        'the keys of its meta must be',
    ),
}
HUB = {'log_scalars': {}, 'runtime_info': {}, 'resumed_keys': {}}
TRAINING = {
    'meta': {'epoch': 1, 'iter': 4},
    'state_dict': {'a': ONE},
    'message_hub': HUB,
    'optimizer': {'state': {}, 'param_groups': []},
}
NOT_RESUMABLE = {
    'no epoch': ({**TRAINING, 'meta': {'iter': 4}}, 'epoch'),
    'text as iter': ({**TRAINING, 'meta': {'epoch': 1, 'iter': '4'}}, 'iter'),
    'no meta': ({**TRAINING, 'meta': None}, 'meta'),
    'hub': ({**TRAINING, 'message_hub': {'log_scalars': {}}}, 'runtime_info'),
    'scalars': ({**TRAINING, 'message_hub': {**HUB, 'log_scalars': []}}, 'log_scalars'),
    'optimizer': ({**TRAINING, 'optimizer': [1]}, 'optimizer'),
    'schedules': ({**TRAINING, 'param_schedulers': 3}, 'param_schedulers'),
}
COMMANDS = {
    'resume': ['tools/train.py', 'toy.py', '--resume', 'x.pth'],
    'load_from': ['tools/train.py', 'toy.py', '--cfg-options', 'load_from=x.pth'],
    'test': ['tools/test.py', 'toy.py', 'x.pth'],
    'predict': ['tools/predict.py', 'toy.py', 'x.pth', 'a.png', '--out', 'out'],
    'convert': [
        'tools/model_converters/convert.py',
        'x.pth',
        'y.pth',
        '--from',
        'timm',
    ],
    'fold': ['tools/deploy/fold.py', 'toy.py', 'x.pth'] + ['--out', 'out'],
    'export': ['tools/deploy/export.py', 'toy.py', 'x.pth', '--format', 'onnx']
    + ['--out', 'out.onnx'],
    'report': ['tools/analysis_tools/tuning_report.py', 'toy.py', 'x.pth'],
    'robustness': ['tools/analysis_tools/test_robustness.py', 'toy.py', 'x.pth'],
    **{
        f'visualize {what}': ['tools/analysis_tools/visualize.py', what, 'toy.py']
        + ['x.pth', '--out', 'out.png']
        for what in ('positions', 'kernels', 'receptive-field')
    },
}


def ends_with(arguments, content, tmp_path, monkeypatch):
    """Run a command on a checkpoint; return what it ends with."""
    monkeypatch.chdir(tmp_path)
    torch.save(content, 'x.pth')
    test_set = {'type': 'ToyDataset', 'pipeline': [{'type': 'LoadImageFromFile'}]}
    test_dataloader = {
        'batch_size': 4,
        'dataset': test_set,
        'sampler': {'type': 'DefaultSampler'},
    }
    write_config(tmp_path / 'toy.py', work_dir='work', test_dataloader=test_dataloader)
    (tmp_path / 'a.png').write_bytes(_picture())
    with pytest.raises(SystemExit) as ended:
        command(*arguments)
    assert isinstance(ended.value.code, str)
    assert ended.value.code.startswith('error: ')
    assert '\n' not in ended.value.code
    return ended.value.code


def _picture():
    cv2 = pytest.importorskip('cv2')
    np = pytest.importorskip('numpy')
    return cv2.imencode('.png', np.zeros((32, 32, 3), 'uint8'))[1].tobytes()


@pytest.mark.parametrize('content', NO_WEIGHTS)
@pytest.mark.parametrize('name', COMMANDS)
def test_no_weights(name, content, tmp_path, monkeypatch):
    if name == 'robustness':
        pytest.importorskip('imagecorruptions')
    written, says = NO_WEIGHTS[content]
    said = ends_with(COMMANDS[name], written, tmp_path, monkeypatch)
    if name == 'resume':
        assert 'x.pth holds no ' in said
    else:
        assert 'x.pth holds no weights' in said
        assert says in said


@pytest.mark.parametrize('content', ODD_META)
@pytest.mark.parametrize('name', ['load_from', 'test', 'predict', 'report'])
def test_odd_meta(name, content, tmp_path, monkeypatch):
    written, says = ODD_META[content]
    assert says in ends_with(COMMANDS[name], written, tmp_path, monkeypatch)


@pytest.mark.parametrize('content', NOT_RESUMABLE)
def test_not_resumable(content, tmp_path, monkeypatch):
    written, says = NOT_RESUMABLE[content]
    said = ends_with(COMMANDS['resume'], written, tmp_path, monkeypatch)
    assert 'x.pth' in said
    assert says in said


@pytest.mark.parametrize('content', NO_WEIGHTS)
def test_backbones(content, tmp_path):
    written, says = NO_WEIGHTS[content]
    path = str(tmp_path / 'x.pth')
    torch.save(written, path)
    pretrained = {'type': 'Pretrained', 'checkpoint': path}
    arch = {'depths': [1], 'dims': [4]}
    own = ConvNeXtDCLS(arch=arch, out_indices=(0,), init_cfg=pretrained)
    replaced = ReplacedConvBackbone(
        {'type': 'mmdet.ResNet', 'depth': 18, 'init_cfg': pretrained},
        {'type': 'DCLSConv2d', 'dilated_kernel_size': 5},
        name='layer4.1.conv2',
    )
    for backbone in (own, replaced):
        with (
            as_data(),
            pytest.raises(CheckpointError, match='holds no weights') as said,
        ):
            backbone.init_weights()
        assert says in str(said.value)
