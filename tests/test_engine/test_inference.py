"""Predicting for a folder of images: mmdet's and mmseg's own results, as files."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.dataset import Compose, pseudo_collate
from scenes import write_demo

from dcls_mm.engine.checkpoint import CheckpointError
from dcls_mm.engine.config_checks import ConfigError
from dcls_mm.engine.inference import predict

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module', params=['mmdet', 'mmseg'])
def demo(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return request.param, folder, *write_demo(folder, request.param)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def expected(scope, config, checkpoint, image):
    """By mmdet's and mmseg's functions for one image, not their inferencers."""
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
    original = cv2.imread(str(image)).astype(int)
    changes = [
        np.abs(cv2.imread(str(tmp_path / name / 'vis' / image.name)) - original).mean()
        for name in ('all', 'none')
    ]
    assert changes[0] > 5 > changes[1]


def test_mistakes_are_named_before_anything_is_written(demo, tmp_path):
    scope, folder, config, checkpoint = demo
    out = tmp_path / 'out'
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'file').write_text('')
    for images, message in (
        ('nowhere', 'nowhere does not exist'),
        (str(tmp_path / 'empty'), 'holds no images'),
        (str(tmp_path / 'file'), 'file is no image'),
    ):
        with pytest.raises(ConfigError, match=message):
            predict(config, checkpoint, images, str(out))
    images = str(folder / 'images' / 'val')
    with pytest.raises(ConfigError, match='--out .*file: File exists'):
        predict(config, checkpoint, images, str(tmp_path / 'file'))
    for options, message in (
        ({'batch_size': 0}, '--batch-size must be at least 1, got 0'),
        ({'device': 'abacus'}, '--device abacus: .*abacus'),
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


def test_command(demo, tmp_path):
    scope, folder, config, checkpoint = demo
    if scope != 'mmseg':
        pytest.skip('one of the two will do')
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
