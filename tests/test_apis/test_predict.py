"""Prediction for a folder of images gives mmdet's and mmseg's own results, as files."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import matplotlib
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.utils import digit_version
from scenes import write_demo

from dcls_mm.apis import predict as predict_module
from dcls_mm.apis.inferencers import build_inferencer
from dcls_mm.apis.predict import output_names, predict, predictions
from dcls_mm.checkpoint import CheckpointError
from dcls_mm.checks.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module', params=['mmdet', 'mmseg'])
def demo(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return request.param, folder, *write_demo(folder, request.param)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def expected(scope, config, checkpoint, image):
    """Predict with mmdet's and mmseg's functions for one image, not an inferencer."""
    if scope == 'mmdet':
        from mmdet.apis import inference_detector, init_detector

        found = inference_detector(
            init_detector(config, checkpoint, 'none', 'cpu'), image
        )
        return found.pred_instances
    from mmseg.apis import init_model

    model = init_model(config, checkpoint, 'cpu')
    load, _, pack = model.cfg.test_dataloader.dataset.pipeline
    data = Compose([load, pack])({'img_path': image})
    return model.test_step(pseudo_collate([data]))[0].pred_sem_seg


def test_pictures_and_predictions(demo, tmp_path):
    scope, folder, config, checkpoint = demo
    images = folder / 'images' / 'val'
    (images / 'notes.txt').write_text('no image')
    assert predict(config, checkpoint, str(images), str(tmp_path), batch_size=2) == 3
    stems = sorted(path.stem for path in images.glob('*.*') if path.suffix != '.txt')
    assert [Path(name).stem for name in names(tmp_path / 'vis')] == stems
    for stem in stems:
        (image,) = images.glob(f'{stem}.*')
        drawn = cv2.imread(str(tmp_path / 'vis' / image.name))
        assert drawn.shape == (96, 96, 3)
        truth = expected(scope, config, checkpoint, str(image))
        if scope == 'mmdet':
            written = json.loads((tmp_path / 'preds' / f'{stem}.json').read_text())
            assert len(written['scores']) == len(truth.scores) > 0
            np.testing.assert_allclose(written['bboxes'], truth.bboxes, atol=1e-3)
            assert written['labels'] == truth.labels.tolist()
        else:
            label_map = cv2.imread(str(tmp_path / 'pred' / f'{stem}.png'), -1)
            np.testing.assert_array_equal(label_map, truth.data[0])


def test_threshold_decides_what_is_drawn(demo, tmp_path):
    scope, folder, config, checkpoint = demo
    if scope != 'mmdet':
        pytest.skip('only detections have scores')
    image = sorted((folder / 'images' / 'val').glob('*.*'))[0]
    for name, threshold in (('all', 0.0), ('none', 1.1)):
        out = str(tmp_path / name)
        assert predict(config, checkpoint, str(image), out, score_threshold=threshold)
    drawn = (tmp_path / name / 'vis' / image.name for name in ('all', 'none'))
    original, everything, nothing = (
        cv2.imread(str(path)).astype(int) for path in (image, *drawn)
    )
    assert np.abs(everything - nothing).mean() > 5
    # Before 3.11, matplotlib blurs every picture that mmengine draws on.
    blurred = digit_version(matplotlib.__version__) < digit_version('3.11')
    assert np.abs(nothing - original).mean() < (10 if blurred else 5)
    assert blurred or np.abs(everything - original).mean() > 5


def test_mistakes_are_named_before_anything_is_written(demo, tmp_path):
    scope, folder, config, checkpoint = demo
    out = tmp_path / 'out'
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'file').write_text('')
    for images, message in (
        ('nowhere', 'nowhere does not exist'),
        (str(tmp_path / 'empty'), 'has no images'),
        (str(tmp_path / 'file'), 'file is not an image'),
    ):
        with pytest.raises(ConfigError, match=message):
            predict(config, checkpoint, images, str(out))
    images = str(folder / 'images' / 'val')
    with pytest.raises(ConfigError, match='--out .*file: File exists'):
        predict(config, checkpoint, images, str(tmp_path / 'file'))
    for options, message in (
        ({'batch_size': 0}, '--batch-size must be at least 1, got 0'),
        ({'device': 'abacus'}, '--device abacus: .*abacus'),
        ({'score_threshold': float('nan')}, '--score-threshold must be a finite'),
    ):
        with pytest.raises(ConfigError, match=message):
            predict(config, checkpoint, images, str(out), **options)
    with pytest.raises(CheckpointError, match='does not exist'):
        predict(config, 'nowhere.pth', images, str(out))
    state_dict = torch.load(checkpoint)
    del state_dict['state_dict']['backbone.stages.0.0.dwconv.P']
    torch.save(state_dict, tmp_path / 'partial.pth')
    with pytest.raises(CheckpointError, match='1 of .* are missing .*dwconv.P'):
        predict(config, str(tmp_path / 'partial.pth'), images, str(out))
    assert not out.exists() or not any(out.iterdir())


def test_images_of_one_stem_keep_their_own_predictions(demo, tmp_path):
    scope, folder, config, checkpoint = demo
    scenes = sorted((folder / 'images' / 'val').glob('*.jpg'))[:2]
    images = tmp_path / 'images'
    images.mkdir()
    for scene, name in zip(scenes, ('a.png', 'a.jpg')):
        cv2.imwrite(str(images / name), cv2.imread(str(scene)))
    assert predict(config, checkpoint, str(images), str(tmp_path / 'out')) == 2
    suffix, where = ('json', 'preds') if scope == 'mmdet' else ('png', 'pred')
    assert names(tmp_path / 'out' / 'vis') == ['a.jpg', 'a.png']
    kept = [f'a.jpg.{suffix}', f'a.png.{suffix}']
    assert names(tmp_path / 'out' / where) == kept
    for name in ('a.jpg', 'a.png'):  # as when predicted alone
        alone = tmp_path / f'{name} alone'
        predict(config, checkpoint, str(images / name), str(alone))
        (single,) = (alone / where).iterdir()
        both = tmp_path / 'out' / where / f'{name}.{suffix}'
        assert both.read_bytes() == single.read_bytes()
    first, second = ((tmp_path / 'out' / where / name).read_bytes() for name in kept)
    assert first != second


@pytest.mark.parametrize(
    'files, expected',
    [
        (['d/a.jpg', 'd/b.png'], ['a', 'b']),
        (['d/a.jpg', 'd/a.png', 'd/b.png'], ['a.jpg', 'a.png', 'b.png']),
        (['d/a.jpg', 'd/A.png'], ['a.jpg', 'A.png']),  # equal on some file systems
        (['d/a.jpg', 'd/a.jpg.png', 'd/a.png'], ['a.jpg', 'a.jpg.png', 'a.png']),
        (['d/a.jpg', 'd/a.jpg.png'], ['a', 'a.jpg']),
    ],
)
def test_names_of_predictions(files, expected):
    assert list(output_names(files).values()) == expected


NAMES = {'mmdet': 'kidney', 'mmseg': 'road'}


def other_names(scope, folder, checkpoint, meta):
    """Write a config with other classes in its test set, and a file with ``meta``."""
    cfg = Config.fromfile(folder / f'{scope}.py')
    metainfo = cfg.test_dataloader.dataset.metainfo
    count = len(metainfo.classes)
    ours = {
        'classes': tuple(f'{NAMES[scope]}{i}' for i in range(count)),
        'palette': [(10 * i, 200, 0) for i in range(count)],
    }
    cfg.test_dataloader.dataset.metainfo = ours
    config = folder / 'other_names.py'
    cfg.dump(config)
    weights = {'state_dict': torch.load(checkpoint)['state_dict'], **meta}
    bare = folder / 'bare.pth'
    torch.save(weights, bare)
    return str(config), str(bare), ours


@pytest.mark.parametrize('meta', [{}, {'meta': {}}, {'meta': {'epoch': 3}}])
def test_classes_are_named_by_the_config_where_the_file_does_not(demo, meta):
    scope, folder, _, checkpoint = demo
    config, bare, ours = other_names(scope, folder, checkpoint, meta)
    assert build_inferencer(config, bare, 'cpu').model.dataset_meta == ours


@pytest.mark.parametrize(
    'meta',
    [
        {'dataset_meta': {'classes': ('a', 'b', 'c'), 'palette': [(1, 2, 3)] * 3}},
        {'dataset_meta': {'CLASSES': ('a', 'b', 'c'), 'PALETTE': [[1, 2, 3]] * 3}},
        {'CLASSES': ('a', 'b', 'c'), 'PALETTE': [[1, 2, 3]] * 3},  # mmdet 2, mmseg 0
    ],
)
def test_classes_are_named_by_the_file_where_it_does(demo, meta):
    scope, folder, _, checkpoint = demo
    config, bare, _ = other_names(scope, folder, checkpoint, {'meta': meta})
    found = build_inferencer(config, bare, 'cpu').model.dataset_meta
    assert found == {'classes': ('a', 'b', 'c'), 'palette': [(1, 2, 3)] * 3}


def test_a_picture_shows_the_names(demo, tmp_path, monkeypatch):
    """The drawn picture has them, not just the model's meta information."""
    scope, folder, _, checkpoint = demo
    config, bare, ours = other_names(scope, folder, checkpoint, {})
    inferencer = build_inferencer(config, bare, 'cpu')
    drawn = []
    kind = type(inferencer.visualizer)
    original = kind.add_datasample

    def spy(self, *args, **kwargs):
        drawn.append(self.dataset_meta)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(kind, 'add_datasample', spy)
    image = sorted((folder / 'images' / 'val').glob('*.jpg'))[0]
    (result,) = predictions(inferencer, [str(image)], 0.3, {})
    assert drawn == [ours] and result.picture.shape == (96, 96, 3)


def test_unreadable_images_are_named_and_the_rest_is_done(demo, tmp_path):
    scope, folder, config, checkpoint = demo
    images = tmp_path / 'images'
    shutil.copytree(folder / 'images' / 'val', images)
    (images / 'notes.txt').unlink(missing_ok=True)
    whole = names(images)
    cv2.imwrite(str(images / 'm_float.tiff'), np.random.rand(64, 64, 3) / 2)
    content = (folder / 'images' / 'val' / whole[0]).read_bytes()
    (images / 'm_cut_off.png').write_bytes(content[: len(content) // 2])
    (images / 'm_text.png').write_text('no image')
    (images / 'm_empty.jpg').write_bytes(b'')
    (images / 'm_link.jpg').symlink_to('nowhere')
    with pytest.raises(ConfigError) as error:
        predict(config, checkpoint, str(images), str(tmp_path / 'out'), batch_size=2)
    text = str(error.value)
    bad = sorted(set(names(images)) - set(whole))
    assert f'{len(bad)} of {len(bad) + len(whole)} images could not be read' in text
    assert all(name in text for name in bad)
    assert names(tmp_path / 'out' / 'vis') == whole


def test_an_image_too_small_for_the_model_is_named(demo, tmp_path):
    scope, folder, config, checkpoint = demo
    if scope != 'mmseg':
        pytest.skip('detectors pad their images')
    tiny = tmp_path / 'tiny.png'
    cv2.imwrite(str(tiny), np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(ConfigError, match=r'cannot be run on .*tiny.png \(2x2 pixels'):
        predict(config, checkpoint, str(tiny), str(tmp_path / 'out'))


def test_labels_beyond_255_are_written_as_they_are(tmp_path):
    """In 8 bits they would become other labels."""
    labels = np.arange(300, dtype=np.int64).reshape(15, 20)
    predict_module._write_label_map(tmp_path, 'many', labels)
    written = cv2.imread(str(tmp_path / 'pred' / 'many.png'), -1)
    np.testing.assert_array_equal(written, labels)


def test_depths_are_written_as_they_are(tmp_path):
    depths = np.linspace(0, 80, 12, dtype=np.float32).reshape(3, 4)
    predict_module._write_label_map(tmp_path, 'far', depths)
    np.testing.assert_array_equal(np.load(tmp_path / 'pred' / 'far.npy'), depths)


def test_command(demo, tmp_path):
    scope, folder, config, checkpoint = demo
    if scope != 'mmseg':
        pytest.skip('one scope is enough')
    shutil.copytree(folder / 'images' / 'val', tmp_path / 'pictures')
    done = subprocess.run(
        [sys.executable, ROOT / 'tools/predict.py', config, checkpoint]
        + [tmp_path / 'pictures', '--out', tmp_path / 'out', '--cfg-options', 'x.y=1'],
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == 'error: --cfg-options x.y: no config has a x'
