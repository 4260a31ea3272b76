"""The commands that draw and report on a checkpoint, and errors in using them."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import save_checkpoint

from dcls_mm.analysis import collect_elements
from dcls_mm.apis import compare, tuning_report, visualize
from dcls_mm.apis.explain import plot_grad_cam
from dcls_mm.checkpoint import CheckpointError
from dcls_mm.checks.errors import ConfigError
from dcls_mm.datasets import write_scenes
from dcls_mm.visualization import depthwise_kernels

ROOT = Path(__file__).resolve().parents[2]
DEMOS = ROOT / 'configs' / 'demo'
CONFIGS = {
    'mmdet': DEMOS / 'cascade-mask-rcnn_convnext-dcls-demo_fpn_shapes.py',
    'mmseg': DEMOS / 'upernet_convnext-dcls-demo_shapes.py',
}


PICTURE = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)


def write_model(folder, scope, plain=False):
    """Write a config and two checkpoints; return the model as in the second one."""
    cfg = Config.fromfile(CONFIGS[scope])
    cfg.test_dataloader.update(batch_size=1, num_workers=0, persistent_workers=False)
    cfg.test_dataloader.dataset.data_root = str(folder.parent)
    if scope == 'mmdet':
        cfg.test_evaluator.ann_file = f'{folder.parent}/annotations/val.json'
    if plain:
        cfg.model.backbone.depthwise_cfg = {'type': 'Conv2d', 'kernel_size': 7}
    folder.mkdir()
    cfg.dump(folder / 'config.py')
    init_default_scope(scope)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    meta = {'dataset_meta': dict(cfg.test_dataloader.dataset.metainfo)}
    for epoch in (1, 2):
        for name, parameter in model.named_parameters():
            if name.endswith('.P'):
                parameter.data += 1.0
        weights = {'state_dict': model.state_dict(), 'meta': meta}
        save_checkpoint(weights, str(folder / f'epoch_{epoch}.pth'))
    return model


@pytest.fixture(scope='module')
def models(tmp_path_factory):
    """Return a folder with scenes, and {name: model}; models have folders in it."""
    folder = tmp_path_factory.mktemp('models')
    list(write_scenes(str(folder), split='val', count=2, seed=3, size=96))
    return folder, {
        name: write_model(folder / name, scope, name == 'plain')
        for name, scope in (('det', 'mmdet'), ('seg', 'mmseg'), ('plain', 'mmdet'))
    }


@pytest.fixture
def files(models):
    """Return a function from a kind of model to its config and checkpoint."""
    folder, _ = models
    return lambda kind: [
        str(folder / kind / name) for name in ('config.py', 'epoch_2.pth')
    ]


def read(path):
    return cv2.imread(str(path))[..., ::-1]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def drawn(monkeypatch):
    """Return a function that mocks a drawing function and records its arguments."""

    def record(name):
        calls = []

        def draw(*args):
            calls.append(args)
            return PICTURE

        monkeypatch.setattr(visualize.visualization, name, draw)
        return calls

    return record


def test_kernels_are_those_of_the_model(models, files, tmp_path, drawn):
    calls = drawn('draw_kernels')
    visualize.plot_kernels(*files('det'), str(tmp_path / 'new/a.png'), columns=3)
    ((kernels, columns),) = calls
    expected = depthwise_kernels(models[1]['det'])
    assert kernels.keys() == expected.keys() and columns == 3
    assert all(torch.equal(kernels[name], expected[name]) for name in expected)
    np.testing.assert_array_equal(read(tmp_path / 'new/a.png'), PICTURE)


def test_positions_are_those_of_the_model(models, files, tmp_path, drawn):
    calls = drawn('draw_positions')
    visualize.plot_positions(*files('det'), str(tmp_path / 'a.png'))
    ((elements,),) = calls
    expected = collect_elements(models[1]['det'])
    assert elements.keys() == expected.keys()
    for name, layer in expected.items():
        np.testing.assert_array_equal(elements[name].positions, layer.positions)


def test_movement_between_checkpoints(files, tmp_path, drawn):
    """From the first to the second, the model moved by a pixel along both axes."""
    movement, curves = drawn('draw_movement'), drawn('draw_curves')
    config, checkpoint = files('det')
    visualize.plot_movement(config, str(Path(checkpoint).parent), str(tmp_path), 2)
    assert names(tmp_path) == ['displacement.png', 'movement.png']
    assert movement[0][1:] == ([1, 2], 'epoch', 2)
    for points in curves[0][0].values():
        assert [step for step, _ in points] == [1, 2]
        assert points[1][1] == pytest.approx(2**0.5, rel=1e-5)


def test_iterations_count_where_there_are_no_epochs(tmp_path):
    for number in (5, 10, 100):
        (tmp_path / f'iter_{number}.pth').touch()
    (tmp_path / 'epoch_1.pth').touch()
    unit, found = visualize._training_checkpoints(str(tmp_path))
    assert unit == 'iteration' and list(found) == [5, 10, 100]


def test_receptive_fields_side_by_side(models, files, tmp_path):
    folder, _ = models
    shown = [
        compare.plot_receptive_field(
            *files('det'),
            str(tmp_path / 'field.png'),
            against=files('plain'),
            names=['learned', 'plain'],
            images=images,
            count=1,
            shape=(96, 64),
            level=0,
            shares=[0.9],
        )
        for images in (None, str(folder / 'images/val'))
    ]
    for text in shown:
        assert 'learned (96x64): 90%' in text and 'plain (96x64): 90%' in text
    assert names(tmp_path) == ['field.png']


@pytest.mark.parametrize('channels', [1, 3, 4])
def test_receptive_field_of_models_of_other_images(channels, models, tmp_path):
    """It works with noise, and with images that have as many channels."""
    folder, _ = models
    cfg = Config.fromfile(folder / 'seg' / 'config.py')
    cfg.model.backbone.in_channels = channels
    numbers = dict(mean=[100.0] * channels, std=[50.0] * channels)
    cfg.model.data_preprocessor.update(numbers, bgr_to_rgb=False)
    cfg.dump(tmp_path / 'config.py')
    init_default_scope('mmseg')
    model = MODELS.build(cfg.model)
    save_checkpoint({'state_dict': model.state_dict()}, str(tmp_path / 'a.pth'))
    pixels = np.random.default_rng(0).integers(0, 256, (96, 64, 4), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / 'a.png'), pixels)
    for images in (None, str(tmp_path / 'a.png')):
        text = compare.plot_receptive_field(
            *(str(tmp_path / name) for name in ('config.py', 'a.pth', 'field.png')),
            images=images,
            count=1,
            shape=(64, 96),
            level=0,
        )
        assert '(64x96): 50%' in text


def test_images_of_other_channels_are_refused(models, tmp_path):
    model, files = SimpleNamespace(data_preprocessor=None), [str(tmp_path / 'a.png')]
    cv2.imwrite(files[0], np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(ConfigError, match='takes 4 channels, and .*a.png has 3'):
        next(compare._prepared(model, files, (64, 64), 4))
    Path(files[0]).write_bytes(b'text')
    with pytest.raises(ConfigError, match='a.png is not an image that OpenCV can read'):
        next(compare._prepared(model, files, (64, 64), 3))


def test_two_models_of_one_config_have_the_same_names(files, tmp_path, monkeypatch):
    """Only one of the files says what the classes are called."""
    config, checkpoint = files('det')
    bare = tmp_path / 'bare.pth'
    torch.save({'state_dict': torch.load(checkpoint)['state_dict']}, bare)
    named = []

    def spy(inferencer, *args):
        named.append(inferencer.visualizer.dataset_meta)
        return iter(())

    monkeypatch.setattr(compare, 'predictions', spy)
    monkeypatch.setattr(compare.visualization, 'draw_side_by_side', lambda *_: PICTURE)
    compare.plot_predictions(
        config, checkpoint, str(tmp_path), [config, str(bare)], count=1, device='cpu'
    )
    assert len(named) == 2 and named[0] == named[1]
    expected = Config.fromfile(config).test_dataloader.dataset.metainfo
    assert named[0]['classes'] == expected.classes


@pytest.mark.parametrize('kind', ['det', 'seg'])
def test_an_unreadable_image_is_named_and_the_rest_drawn(kind, models, files, tmp_path):
    folder, _ = models
    images = tmp_path / 'images'
    shutil.copytree(folder / 'images/val', images)
    (images / 'a.png').write_bytes(b'text')
    with pytest.raises(
        ConfigError, match='1 of 3 images could not be read and .*\n.*a.png'
    ):
        compare.plot_predictions(
            *files(kind), str(tmp_path / 'out'), images=str(images), device='cpu'
        )
    assert len(names(tmp_path / 'out')) == 2


@pytest.mark.parametrize('kind, truth', [('det', True), ('seg', False)])
def test_predictions_side_by_side(models, files, tmp_path, drawn, kind, truth):
    """Names are on top; the truth comes first if the test set is drawn."""
    calls = drawn('draw_side_by_side')
    folder, _ = models
    config, checkpoint = files(kind)
    images = None if truth else str(folder / 'images/val')
    other = [config, checkpoint.replace('epoch_2', 'epoch_1')]
    options = dict(device='cpu', score_threshold=0.0, count=1, images=images)
    compare.plot_predictions(config, checkpoint, str(tmp_path), other, **options)
    ((pictures, _),) = calls
    expected = ['config, epoch_2.pth', 'config, epoch_1.pth']
    assert list(pictures) == ['ground truth'] * truth + expected
    assert all(picture.shape == (96, 96, 3) for picture in pictures.values())
    first, second, *rest = pictures.values()
    assert (first != second).any()
    assert len(names(tmp_path)) == 1


def test_truth_of_segmentation(models, tmp_path):
    from mmseg.visualization import SegLocalVisualizer

    folder, _ = models
    cfg = Config.fromfile(folder / 'seg' / 'config.py')
    init_default_scope('mmseg')
    visualizer = SegLocalVisualizer(name='test_truth', alpha=1.0)
    ((file, pictures), *_) = compare._with_truth(cfg, visualizer, 1)
    palette = cfg.test_dataloader.dataset.metainfo.palette
    found = {tuple(colour) for colour in pictures['ground truth'].reshape(-1, 3)}
    # Most pixels have the classes' colours, the others those of the text.
    assert len(found & {tuple(colour) for colour in palette}) >= 2
    assert Path(file).parent == folder / 'images/val'


def test_report(models, files, tmp_path):
    text = tuning_report.report_tuning(*files('seg'))
    assert 'backbone.stages.0.0.dwconv' in text and 'Advice' in text
    content = json.loads(
        tuning_report.report_tuning(*files('seg'), str(tmp_path), True)
    )
    pictures = ['histograms.png', 'positions.png']
    assert names(tmp_path) == [*pictures, 'report.json', 'report.md']
    assert json.loads((tmp_path / 'report.json').read_text()) == content
    page = (tmp_path / 'report.md').read_text()
    assert all(f'({picture})' in page for picture in pictures)
    assert (read(tmp_path / 'positions.png') != 255).any()


def test_travel_since_an_earlier_checkpoint(models, files):
    """Both coordinates of every position grow by one between the checkpoints."""
    config, checkpoint = files('seg')
    earlier = str(Path(checkpoint).with_name('epoch_1.pth'))
    content = tuning_report.report_tuning(config, checkpoint, json=True, since=earlier)
    layers = json.loads(content)['layers']
    travels = {name: layer['travel'] for name, layer in layers.items()}
    assert len(travels) == 4
    assert list(travels.values()) == pytest.approx([2**0.5] * 4)
    with pytest.raises(CheckpointError, match='epoch_2.pth'):
        tuning_report.report_tuning(config, checkpoint, since=files('det')[1])


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(label='hexagon'), '--label must be a class of the model, .*got hexagon'),
        (dict(point=(500, 3)), '--point .*500'),
        (dict(level=9), '--level 9'),
    ],
)
def test_grad_cam_of_what_is_not_there(models, files, tmp_path, options, message):
    images = str(models[0] / 'images/val')
    with pytest.raises(ConfigError, match=message):
        plot_grad_cam(*files('seg'), images, str(tmp_path / 'out'), **options)


COMMANDS = {
    'kernels': visualize.plot_kernels,
    'positions': visualize.plot_positions,
    'report': tuning_report.report_tuning,
}


@pytest.mark.parametrize('name', COMMANDS)
def test_checkpoint_without_dcls_layers(files, tmp_path, name):
    out = tmp_path / ('out' if name == 'report' else 'out.png')
    with pytest.raises(ConfigError, match='epoch_2.pth: .*no (DCLS )?layer'):
        COMMANDS[name](*files('plain'), str(out))
    assert not out.is_file() and not (out.is_dir() and names(out))


@pytest.mark.parametrize('name', COMMANDS)
def test_unwritable_output(files, tmp_path, name):
    (tmp_path / 'file').touch()
    out = tmp_path / 'file' / ('out' if name == 'report' else 'out.png')
    with pytest.raises(ConfigError, match=r'^--out .*(Not a directory|File exists)$'):
        COMMANDS[name](*files('det'), str(out))
    assert names(tmp_path) == ['file']


def test_nothing_is_left_half_written(files, tmp_path, monkeypatch):
    def fail(*args):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, 'fsync', fail)
    with pytest.raises(ConfigError, match='--out .*: No space left on device'):
        visualize.plot_positions(*files('det'), str(tmp_path / 'out.png'))
    assert names(tmp_path) == []


def test_mistakes(files, tmp_path):
    det, seg = files('det'), files('seg')
    field = compare.plot_receptive_field
    out = str(tmp_path / 'a.png')
    (tmp_path / 'empty').mkdir()
    bare = tmp_path / 'bare.py'
    bare.write_text("default_scope = 'mmdet'\n")
    for call, message in (
        (lambda: visualize.plot_kernels(*det, 'a.gif'), 'must be the name of a .png'),
        (lambda: visualize.plot_kernels(*det, out, 0), '--columns'),
        (lambda: visualize.plot_movement(det[0], 'nowhere', 'b'), 'is not a folder'),
        (
            lambda: visualize.plot_movement(det[0], str(tmp_path / 'empty'), out[:-4]),
            'at least two checkpoints',
        ),
        (lambda: field(*det, out, det), 'must give 2 different names'),
        (lambda: field(*det, out, names=['a', 'b']), 'must give 1 different names'),
        (lambda: field(*det, out, count=0), '--count must be at least 1'),
        (lambda: field(*det, out, shape=(9, 0)), '--shape must be at least 1'),
        (lambda: field(*det, out, shares=[50.0]), '--shares must lie'),
        (lambda: field(*det, out, images='nowhere'), 'nowhere does not exist'),
        (
            lambda: field(*det, out, shape=(64, 64), count=1, level=9),
            '--shape 64 64, --level 9: level must be one of',
        ),
        (
            lambda: compare.plot_predictions(*det, str(tmp_path / 'c'), seg),
            'one model detects and the other segments',
        ),
        (
            lambda: compare.plot_predictions(*det, str(tmp_path / 'c'), count=0),
            '--count must be',
        ),
        (lambda: visualize.plot_kernels('no.py', det[1], out), 'does not exist'),
        (lambda: visualize.plot_kernels(str(bare), det[1], out), 'has no model'),
        (
            lambda: field(*det, out, shape=(8, 8), count=1),
            '--shape 8 8, --level -1: the input must have at least 32 x 32 pixels',
        ),
    ):
        with pytest.raises(ConfigError, match=message):
            call()
    with pytest.raises(CheckpointError, match='belongs to another model'):
        visualize.plot_kernels(det[0], seg[1], out)
    assert not Path(out).exists()


def run_tool(name, *arguments):
    return subprocess.run(
        [sys.executable, ROOT / 'tools/analysis_tools' / name, *arguments],
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
        capture_output=True,
        text=True,
    )


def test_commands(files, tmp_path):
    out = str(tmp_path / 'out.png')
    done = run_tool('visualize.py', 'positions', *files('plain'), '--out', out)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith('error: ')
    assert 'Traceback' not in done.stderr and not os.path.exists(out)
