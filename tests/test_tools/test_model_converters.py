"""tools/model_converters/convert.py: what it writes, and what it refuses."""

import hashlib
import os
import re
import runpy
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from urllib.error import URLError

import pytest
import torch

from dcls_mm.backbones import ConvNeXtDCLS

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'test_conversion'))
from other_convnexts import PACKAGES, random_weights  # noqa: E402

TOOL = Path(__file__).resolve().parents[2] / 'tools' / 'model_converters' / 'convert.py'


def build(depthwise_cfg) -> ConvNeXtDCLS:
    return ConvNeXtDCLS(
        arch=dict(depths=[1, 2], dims=[8, 12]),
        depthwise_cfg=depthwise_cfg,
        out_indices=(0, 1),
    )


def dcls(interpolation='bilinear', count=4):
    return dict(
        type='DCLSConv2d',
        kernel_count=count,
        dilated_kernel_size=17,
        interpolation=interpolation,
    )


def published(interpolation='bilinear') -> OrderedDict:
    """Return a state_dict without the metadata that ours have."""
    return OrderedDict(build(dcls(interpolation)).state_dict().items())


def whole(backbone, *others) -> dict:
    weights = {f'backbone.{key}': value for key, value in backbone.items()}
    weights.update((key, torch.ones(1)) for key in others)
    classes, palette = ('wall', 'sky'), [[1, 2, 3], [4, 5, 6]]
    meta = dict(CLASSES=classes, PALETTE=palette, config='model = 1', epoch=36)
    return dict(meta=meta, state_dict=weights, optimizer=dict(state={}))


@pytest.fixture
def plain_file(tmp_path):
    path = tmp_path / 'plain.pth'
    model = build(dict(type='Conv2d', kernel_size=7))
    torch.save({'model': model.state_dict()}, path)
    return path


@pytest.fixture
def convert(tmp_path, monkeypatch, capsys):
    """Run the tool in this process; return its output or the error it ends with."""

    def run(source, *options, destination=tmp_path / 'converted.pth'):
        arguments = [TOOL, source, destination, *options]
        monkeypatch.setattr(sys, 'argv', [str(argument) for argument in arguments])
        try:
            runpy.run_path(str(TOOL), run_name='__main__')
        except SystemExit as error:
            # Python prints a string and exits with status 1.
            assert isinstance(error.code, str) and '\n' not in error.code
            return error.code
        finally:
            assert not list(tmp_path.rglob('*.tmp'))
        return capsys.readouterr().out

    return run


def test_command(tmp_path, plain_file):
    """It works from a checkout in which dcls_mm is not installed."""
    destination = tmp_path / 'new' / 'converted.pth'
    done = subprocess.run(
        [sys.executable, TOOL, plain_file, destination]
        + ['--from', 'convnext', '--extent', '9'],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('\n') == 1
    assert 'kernel_count=49, dilated_kernel_size=9' in done.stdout
    model = build({**dcls(count=49), 'dilated_kernel_size': 9})
    model.init_cfg = dict(type='Pretrained', checkpoint=str(destination))
    model.init_weights()
    weight = torch.load(plain_file)['model']['stages.1.1.dwconv.weight']
    kernel = model.stages[1][1].dwconv.kernel()
    assert torch.equal(kernel, torch.nn.functional.pad(weight, [1] * 4))


@pytest.mark.parametrize('interpolation', ['bilinear', 'gauss'])
def test_published_backbone(tmp_path, convert, interpolation):
    weights = published(interpolation)
    torch.save({'model': weights}, tmp_path / 'dcls.pth')
    version = 'v0' if interpolation == 'bilinear' else 'gauss'
    printed = convert(tmp_path / 'dcls.pth', '--from', 'dcls', '--version', version)
    assert f"kernel_count=4, interpolation='{version}'" in printed
    converted = torch.load(tmp_path / 'converted.pth')
    assert converted['meta'] == {}
    build(dcls(interpolation)).load_state_dict(converted['state_dict'])
    rows = weights['stages.1.0.dwconv.P']
    rows = rows if version == 'v0' else rows.flip(0)
    assert torch.equal(converted['state_dict']['stages.1.0.dwconv.P'], rows)
    again = convert(
        tmp_path / 'converted.pth',
        '--from',
        'dcls',
        '--version',
        version,
        destination=tmp_path / 'again.pth',
    )
    assert 'of a layer of dcls_mm already' in again


@pytest.mark.parametrize(
    ('form', 'others'),
    [
        ('dcls-mmdet2', ['neck.a', 'rpn_head.a', 'roi_head.bbox_head.0.fc_cls.bias']),
        ('dcls-mmseg0', ['decode_head.a', 'auxiliary_head.a']),
    ],
)
def test_whole_model(tmp_path, convert, form, others):
    checkpoint = whole(published(), *others)
    torch.save(checkpoint, tmp_path / 'old.pth')
    assert convert(tmp_path / 'old.pth', '--from', form, '--version', 'v0')
    converted = torch.load(tmp_path / 'converted.pth')
    assert set(converted) == {'meta', 'state_dict'}
    assert converted['meta'] == {
        'dataset_meta': {
            'classes': ('wall', 'sky'),
            'palette': [[1, 2, 3], [4, 5, 6]],
        }
    }
    assert set(converted['state_dict']) == set(checkpoint['state_dict'])


def test_positions_apart(tmp_path, convert):
    weights = published()
    weights['stages.1.1.dwconv.P'] = weights['stages.1.1.dwconv.P'] + 1
    torch.save(weights, tmp_path / 'apart.pth')
    options = ['--from', 'dcls', '--version', 'v0']
    assert 'stages.1.1.dwconv.P differs' in convert(tmp_path / 'apart.pth', *options)
    printed = convert(tmp_path / 'apart.pth', *options, '--no-sync-positions')
    assert printed.startswith(str(tmp_path / 'converted.pth'))


@pytest.mark.parametrize('name', PACKAGES)
def test_formats_are_recognised(tmp_path, convert, name):
    form, package = PACKAGES[name]
    weights = random_weights(package, bool(package.v2))
    if form == 'dinov3':
        weights |= {f'norms.3.{t}': weights[f'norm.{t}'] for t in ('weight', 'bias')}
    torch.save(weights, tmp_path / 'weights.pth')
    printed = convert(tmp_path / 'weights.pth')
    assert f'({form}, recognised by its keys); depthwise_cfg takes ' in printed
    assert ('CC BY-NC 4.0' in printed) == bool(package.v2)
    assert ('DINOv3 License' in printed) == ('dinov3' in form)
    assert ('not used: norms.3.weight, norms.3.bias' in printed) == (form == 'dinov3')
    converted = torch.load(tmp_path / 'converted.pth')['state_dict']
    assert converted['stages.1.1.dwconv.P'].shape == (2, 12, 1, 49)


@pytest.mark.parametrize('interpolation', ['triangle', 'max', 'gauss'])
def test_other_interpolations(tmp_path, convert, plain_file, interpolation):
    """What spreads over taps is fitted, and the error is said."""
    options = ['--interpolation', interpolation, '--extent', '9']
    options += ['--sigma', '0.1'] if interpolation != 'triangle' else []
    printed = convert(plain_file, *options)
    said = f"kernel_count=49, interpolation='{interpolation}', dilated_kernel_size=9"
    assert said in printed
    model = build(
        {
            **dcls(interpolation, count=49),
            'dilated_kernel_size': 9,
            'initial_sigma': 0.1,
        }
        if interpolation != 'triangle'
        else {**dcls(interpolation, count=49), 'dilated_kernel_size': 9}
    )
    converted = torch.load(tmp_path / 'converted.pth')['state_dict']
    model.load_state_dict(converted)
    source = torch.load(plain_file)['model']
    worst = 0.0
    for i, stage in enumerate(model.stages):
        for j, block in enumerate(stage):
            plain = source[f'stages.{i}.{j}.dwconv.weight']
            plain = torch.nn.functional.pad(plain, [1] * 4)
            error = (block.dwconv.kernel() - plain).norm() / plain.norm()
            worst = max(worst, error.item())
    if interpolation == 'triangle':
        assert worst < 1e-6 and 'relative error' not in printed
    else:
        assert f'a relative error of up to {worst:.2g}' in printed and worst > 1e-3


@pytest.mark.parametrize('form', ['timm', 'convnext', 'mmpretrain backbone'])
def test_a_detector_with_a_plain_backbone(tmp_path, convert, form):
    """Its other parts and classes stay, so that it can be given as load_from."""
    name = {'convnext': 'release'}.get(form, form)
    package = PACKAGES[name][1]
    checkpoint = whole(random_weights(package, False), 'neck.a', 'rpn_head.b')
    torch.save(checkpoint, tmp_path / 'old.pth')
    assert 'recognised by its keys' in convert(tmp_path / 'old.pth')
    converted = torch.load(tmp_path / 'converted.pth')
    assert converted['meta']['dataset_meta']['classes'] == ('wall', 'sky')
    assert {'neck.a', 'rpn_head.b', 'backbone.stages.0.0.dwconv.P'} <= set(
        converted['state_dict']
    )


def test_a_published_detector_is_recognised(tmp_path, convert):
    torch.save(whole(published(), 'neck.a', 'rpn_head.b'), tmp_path / 'old.pth')
    assert 'pass --version v0' in convert(tmp_path / 'old.pth')
    torch.save(whole(published(), 'roi_head.a'), tmp_path / 'detector.pth')
    options = ['--version', 'v0']
    assert '(dcls-mmdet2, recognised' in convert(tmp_path / 'detector.pth', *options)
    torch.save(whole(published(), 'decode_head.a'), tmp_path / 'segmentor.pth')
    options += ['--force']
    assert '(dcls-mmseg0, recognised' in convert(tmp_path / 'segmentor.pth', *options)


def test_a_part_of_another_model(tmp_path, convert):
    weights = random_weights(PACKAGES['timm'][1], False)
    both = {f'{part}.{k}': v for part in ('a', 'b') for k, v in weights.items()}
    torch.save({**both, 'text.weight': torch.ones(2)}, tmp_path / 'both.pth')
    assert "prefix='a.'" in convert(tmp_path / 'both.pth')
    convert(tmp_path / 'both.pth', '--prefix', 'b.')
    converted = torch.load(tmp_path / 'converted.pth')['state_dict']
    assert all(key.startswith(('downs', 'stages', 'norm', 'head')) for key in converted)
    weights = {f'visual.trunk.{k}': v for k, v in weights.items()}
    torch.save({**weights, 'text.weight': torch.ones(2)}, tmp_path / 'clip.pth')
    convert(tmp_path / 'clip.pth', '--force')
    again = torch.load(tmp_path / 'converted.pth')['state_dict']
    assert list(again) == list(converted)


def test_a_safetensors_file(tmp_path, convert):
    safetensors = pytest.importorskip('safetensors.torch')
    weights = random_weights(PACKAGES['torchvision'][1], False)
    safetensors.save_file(weights, tmp_path / 'model.safetensors')
    assert '(torchvision, recognised' in convert(tmp_path / 'model.safetensors')


@pytest.mark.parametrize(
    ('content', 'options', 'message'),
    [
        ('plain', ['--sigma', '0.1'], 'initial_sigma'),
        ('plain', ['--from', 'dcls', '--sigma', '0.1'], '--sigma is for convnext'),
        ({'layer1.0.conv1.weight': torch.ones(1)}, [], 'looks like a ResNet'),
        ('plain', ['--from', 'dcls', '--version', 'v0'], 'only downsample_layers.0.0'),
        ('plain', ['--from', 'dcls'], 'only downsample_layers.0.0.weight'),
        ('plain', ['--from', 'dcls-mmdet2'], 'has no downsample_layers.0.0.weight, '),
        ('plain', ['--from', 'convnext', '--version', 'v0'], '--version and'),
        ('plain', ['--from', 'dcls', '--extent', '9'], '--extent is for convnext'),
        ('plain', ['--from', 'convnext', '--extent', '0'], 'dilated_kernel_size'),
        ('bilinear', ['--from', 'convnext'], 'ConvNeXtDCLS loads it as it is$'),
        ('bilinear', ['--from', 'dcls'], 'has no SIG.*--version v0 .*or v1$'),
        ('gauss', ['--from', 'dcls'], 'has SIG.*--version gauss .*or max$'),
        ('gauss', ['--from', 'dcls', '--version', 'v0'], "version can't be 'v0'"),
        ({'epoch': 3, 'lr': 0.1}, ['--from', 'timm'], 'no weights, only epoch, lr'),
        (torch.ones(2), ['--from', 'timm'], 'no weights, only a Tensor'),
        (runpy.run_path, ['--from', 'timm'], 'holds runpy.run_path, which'),
    ],
)
def test_wrong_form(tmp_path, convert, content, options, message):
    if content == 'plain':
        content = build(dict(type='Conv2d', kernel_size=7)).state_dict()
    elif isinstance(content, str):
        content = published(content)
    torch.save(content, tmp_path / 'wrong.pth')
    error = convert(tmp_path / 'wrong.pth', *options)
    assert error.startswith('error: ')
    assert re.search(message, error), error
    assert not (tmp_path / 'converted.pth').exists()


def test_no_file(convert):
    assert 'nothing.pth does not exist' in convert('nothing.pth', '--from', 'timm')


def test_damaged_file(convert, plain_file):
    plain_file.write_bytes(plain_file.read_bytes()[:5000])
    assert 'is damaged' in convert(plain_file, '--from', 'convnext')


def test_folder_that_can_not_be_written(tmp_path, convert, plain_file):
    destination = plain_file / 'converted.pth'
    error = convert(plain_file, '--from', 'convnext', destination=destination)
    assert f'{destination} could not be written' in error
    assert f"'{plain_file}'" in error


def test_existing_file_stays_until_forced(tmp_path, convert, plain_file):
    destination = tmp_path / 'converted.pth'
    destination.write_text('precious')
    assert '--force' in convert(plain_file, '--from', 'convnext')
    assert destination.read_text() == 'precious'
    convert(plain_file, '--from', 'convnext', '--force')
    assert set(torch.load(destination)) == {'meta', 'state_dict'}


def test_checksum(convert, plain_file):
    digest = hashlib.sha256(plain_file.read_bytes()).hexdigest()
    wrong = convert(plain_file, '--from', 'convnext', '--sha256', digest[::-1])
    assert f'has the SHA-256 {digest}, expected {digest[::-1]}' in wrong
    assert convert(plain_file, '--from', 'convnext', '--sha256', digest.upper())


def test_checksum_of_a_download(tmp_path, convert, plain_file, monkeypatch):
    """The file that is checked is the one that torch.hub has kept."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    kept = tmp_path / 'hub' / 'checkpoints' / 'weights.pth'
    kept.parent.mkdir(parents=True)
    os.rename(plain_file, kept)
    address = 'https://example.org/files/weights.pth?download=1'
    digest = hashlib.sha256(kept.read_bytes()).hexdigest()
    wrong = convert(address, '--from', 'convnext', '--sha256', '0' * 64)
    assert f'{kept} has the SHA-256 {digest}' in wrong
    assert convert(address, '--from', 'convnext', '--sha256', digest)


def test_no_network(convert, monkeypatch):
    def unreachable(*arguments, **options):
        raise URLError('no route to host')

    monkeypatch.setattr(torch.hub, 'download_url_to_file', unreachable)
    error = convert('https://example.org/weights.pth', '--from', 'timm')
    assert 'could not be downloaded (no route to host)' in error
