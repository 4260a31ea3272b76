"""Accuracy on corrupted images, against images that were corrupted beforehand."""

import json

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS
from scenes import write_demo

from dcls_mm.apis import robustness
from dcls_mm.checks.errors import ConfigError
from dcls_mm.datasets.corruption import CorruptImage

imagecorruptions = pytest.importorskip('imagecorruptions')


@METRICS.register_module(force=True)
class MeanPixel(BaseMetric):
    """The mean of the input images, as detectors with random weights find nothing."""

    def process(self, data_batch, data_samples):
        self.results += [image.float().mean().item() for image in data_batch['inputs']]

    def compute_metrics(self, results):
        return {'mean': sum(results) / len(results)}


def evaluate(config, checkpoint, tmp_path, **options):
    options = {'corruptions': ['brightness'], 'severities': [5], **options}
    work_dir = str(tmp_path / 'work')
    return robustness.evaluate_corrupted(
        config, checkpoint, work_dir=work_dir, **options
    )


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg'])
def test_equals_the_evaluation_of_corrupted_files(scope, tmp_path):
    config, checkpoint = write_demo(tmp_path, scope)
    cfg = Config.fromfile(config)
    cfg.test_evaluator = {'type': 'MeanPixel'}
    cfg.dump(config)
    out = tmp_path / 'results.json'
    results = evaluate(config, checkpoint, tmp_path, out=str(out))
    assert json.loads(out.read_text()) == results
    (severe,) = {row['5']['mean'] for row in results['corrupted'].values()}
    for path in (tmp_path / 'images' / 'val').iterdir():
        image = cv2.imread(str(path))[..., ::-1].copy()
        image = imagecorruptions.corrupt(image, 5, 'brightness')
        cv2.imwrite(str(path), image[..., ::-1])
    again = evaluate(config, checkpoint, tmp_path)
    assert again['clean']['mean'] == pytest.approx(severe, abs=0.5)  # JPEG is lossy
    assert abs(results['clean']['mean'] - severe) > 20


RESULTS = {
    'clean': {'mIoU': 40.0, 'zero': 0.0},
    'corrupted': {
        'fog': {'1': {'mIoU': 30.0, 'zero': 0.0}, '5': {'mIoU': 10.0, 'zero': 0.0}},
        'snow': {'1': {'mIoU': 20.0, 'zero': 0.0}, '5': {}},  # nothing detected
    },
}


def test_mean_performance_under_corruption():
    assert robustness.summarize(RESULTS, 'mIoU') == {
        'clean': 40.0,
        'corrupted': {'fog': {'1': 30.0, '5': 10.0}, 'snow': {'1': 20.0, '5': 0.0}},
        'mPC': 15.0,
        'rPC': 0.375,
    }
    assert robustness.summarize(RESULTS, 'zero')['rPC'] is None
    with pytest.raises(ConfigError, match='--metrics mAP: was not .* mIoU, zero'):
        robustness.summarize(RESULTS, 'mAP')


def test_metrics_of_papers_come_first():
    assert robustness.usual_metrics(RESULTS) == ['mIoU']
    assert robustness.usual_metrics({'clean': {'a': 1, 'b': 2}}) == ['a', 'b']


def test_a_model_that_detects_nothing_is_said():
    with pytest.raises(ConfigError, match='no metrics, .* nothing at all is detected'):
        robustness.usual_metrics({'clean': {}, 'corrupted': {'fog': {'1': {}}}})


def corrupted(image, corruption='brightness'):
    np.random.seed(0)
    return CorruptImage(corruption, 3).transform({'img': image})['img']


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)


@pytest.mark.parametrize('corruption', imagecorruptions.get_corruption_names('all'))
def test_grey_images_are_those_in_colour(corruption, image):
    """Every shape works, not mirrored, not darkened, as noisy as one channel."""
    grey = image[..., 0]
    in_colour = corrupted(np.stack([grey] * 3, axis=-1), corruption)[..., 1]
    np.testing.assert_array_equal(corrupted(grey, corruption), in_colour)
    np.testing.assert_array_equal(
        corrupted(grey[..., None], corruption), in_colour[..., None]
    )


def test_8_bit_values_in_floats_stay_floats(image):
    found = corrupted(image.astype(np.float32))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, corrupted(image))


@pytest.mark.parametrize(
    'change, message',
    [
        (lambda x: x.astype(np.uint16) * 257, 'hold 8-bit values .* uint16 from 0'),
        (lambda x: (x / 255).astype(np.float32), 'hold 8-bit values .* float32 from 0'),
        (lambda x: (x > 99).astype(np.float32), 'hold 8-bit values .* from 0 to 1'),
        (lambda x: x - 300.0, 'hold 8-bit values'),
        (lambda x: x + np.nan, 'hold 8-bit values'),
        (lambda x: x > 99, 'hold 8-bit values'),
        (lambda x: np.dstack([x, x[..., :1]]), r'1 or 3 channels, .* \(40, 48, 4\)'),
        (lambda x: x[:31], 'at least 32 pixels on each side, has 31x48'),
    ],
)
def test_other_images_are_refused_by_name(change, message, image):
    results = {'img': change(image), 'img_path': 'a.tif'}
    with pytest.raises(ValueError, match=f'CorruptImage: a.tif must .*{message}'):
        CorruptImage('fog').transform(results)


def test_a_refused_image_is_a_sentence(tmp_path):
    try:
        torch.zeros(1, dtype=torch.uint16)[[0]]
    except RuntimeError:
        pytest.skip('the evaluation indexes uint16, which this torch does not support')
    config, checkpoint = write_demo(tmp_path, 'mmseg', count=1)
    cfg = Config.fromfile(config)
    cfg.test_dataloader.dataset.pipeline[0].color_type = 'unchanged'
    cfg.dump(config)
    (path,) = (tmp_path / 'images' / 'val').iterdir()
    _, content = cv2.imencode('.png', np.uint16(cv2.imread(str(path))) * 257)
    path.write_bytes(content.tobytes())
    message = f'--corruptions: .*{path.name} must hold 8-bit values .* holds uint16'
    with pytest.raises(ConfigError, match=message):
        evaluate(config, checkpoint, tmp_path)


def test_a_metric_that_is_not_evaluated_is_told_after_the_first_evaluation(tmp_path):
    config, checkpoint = write_demo(tmp_path, 'mmseg', count=1)
    out = tmp_path / 'results.json'
    with pytest.raises(ConfigError, match='--metrics mAP: was not evaluated; .* mIoU'):
        evaluate(config, checkpoint, tmp_path, metrics=['mAP'], out=str(out))
    assert not out.exists()


def test_groups_stand_for_their_members():
    blur = ['defocus_blur', 'glass_blur', 'motion_blur', 'zoom_blur']
    assert robustness.corruption_names(['blur', 'fog', 'zoom_blur']) == [*blur, 'fog']
    assert len(robustness.corruption_names(['common'])) == 15
    assert len(robustness.corruption_names(['all'])) == 19


@pytest.mark.parametrize(
    'options, message',
    [
        ({'corruptions': ['fogg']}, '--corruptions fogg: must be one of common, all'),
        ({'severities': [0]}, '--severities 0: must be from 1 to 5'),
        ({'out': f'{__file__}/x.json'}, '--out .*x.json: .* is not a writable f'),
    ],
)
def test_mistakes_are_named(options, message, tmp_path):
    config, checkpoint = write_demo(tmp_path, 'mmseg', count=1)
    with pytest.raises(ConfigError, match=message):
        evaluate(config, checkpoint, tmp_path, **options)


def test_pipeline_that_loads_no_images():
    dataset = ConfigDict(
        dataset=ConfigDict(pipeline=[ConfigDict(type='PackSegInputs')])
    )
    with pytest.raises(ConfigError, match='pipeline: has no LoadImageFromFile'):
        robustness.corrupt_images(dataset, 'fog', 1)


def test_missing_library_is_named(monkeypatch):
    monkeypatch.setattr(robustness, 'find_spec', lambda name: None)
    with pytest.raises(ConfigError, match='pip install imagecorruptions-imaug'):
        robustness.corruption_names(['fog'])
