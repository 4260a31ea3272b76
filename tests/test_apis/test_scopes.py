"""Test options change a config as mmdet and mmseg each need it."""

import matplotlib
import pytest
from mmengine.config import Config

from dcls_mm.apis.scopes import SCOPES, use_tta, use_visualization
from dcls_mm.checks.errors import ConfigError


def detection(**changes):
    pipeline = [{'type': 'LoadImageFromFile'}, {'type': 'PackDetInputs'}]
    return Config(
        {
            'default_scope': 'mmdet',
            'model': {'type': 'FasterRCNN', 'roi_head': {'bbox_head': {}}},
            'test_dataloader': {'dataset': {'dataset': {'pipeline': pipeline}}},
            'test_evaluator': {'type': 'CocoMetric'},
            'default_hooks': {'visualization': {'type': 'DetVisualizationHook'}},
            **changes,
        }
    )


def segmentation(**changes):
    return Config(
        {
            'default_scope': 'mmseg',
            'model': {'type': 'EncoderDecoder'},
            'test_dataloader': {'dataset': {'pipeline': [{'type': 'Pack'}]}},
            'test_evaluator': {'type': 'IoUMetric'},
            'default_hooks': {'visualization': {'type': 'SegVisualizationHook'}},
            'visualizer': {'type': 'SegLocalVisualizer'},
            **changes,
        }
    )


def test_detection_has_a_default_for_tta():
    cfg = detection()
    notices = use_tta(cfg)
    assert cfg.model.type == 'DetTTAModel'
    assert cfg.model.module.type == 'FasterRCNN'
    load, augment = cfg.test_dataloader.dataset.dataset.pipeline
    assert load.type == 'LoadImageFromFile'
    flips, (pack,) = augment.transforms
    assert [flip.prob for flip in flips] == [1, 0]
    assert pack.type == 'PackDetInputs' and 'flip_direction' in pack.meta_keys
    assert len(notices) == 2


def test_tta_of_the_config_comes_first():
    tta = {'tta_model': {'type': 'Own'}, 'tta_pipeline': [{'type': 'Mine'}]}
    for cfg in (detection(**tta), segmentation(**tta)):
        assert use_tta(cfg) == []
        assert cfg.model.type == 'Own'
        dataset = cfg.test_dataloader.dataset
        assert dataset.get('dataset', dataset).pipeline[0].type == 'Mine'


@pytest.mark.parametrize('key', ['model.mask_head', 'model.roi_head.mask_head'])
def test_mmdet_does_not_merge_masks(key):
    cfg = detection()
    cfg.merge_from_dict({key: {'type': 'FCNMaskHead'}})
    with pytest.raises(ConfigError, match=rf'{key}; .*--cfg-options {key}=None'):
        use_tta(cfg)
    cfg.merge_from_dict({key: None})
    use_tta(cfg)


def test_segmentation_has_no_default_for_tta():
    with pytest.raises(ConfigError, match='no tta_model and no tta_pipeline'):
        use_tta(segmentation())
    with pytest.raises(ConfigError, match='no tta_pipeline;'):
        use_tta(segmentation(tta_model={'type': 'SegTTAModel'}))


@pytest.mark.parametrize(
    'evaluator, metrics',
    [
        ({'type': 'CocoMetric'}, lambda cfg: cfg.test_evaluator),
        ([{'type': 'CocoMetric'}], lambda cfg: cfg.test_evaluator),
        ({'metrics': [{'type': 'CocoMetric'}]}, lambda cfg: cfg.test_evaluator.metrics),
    ],
)
def test_detections_are_dumped_beside_the_metrics(evaluator, metrics):
    cfg = detection(test_evaluator=evaluator)
    SCOPES['mmdet'].save_predictions(cfg, 'out.pkl')
    metric, dump = metrics(cfg)
    assert metric.type == 'CocoMetric'
    assert dump == {'type': 'DumpDetResults', 'out_file_path': 'out.pkl'}


def test_label_maps_go_into_a_folder():
    metrics = [{'type': 'IoUMetric'}, {'type': 'Other'}]
    cfg = segmentation(test_evaluator=metrics)
    SCOPES['mmseg'].save_predictions(cfg, 'out/maps')
    assert [metric.output_dir for metric in cfg.test_evaluator] == ['out/maps'] * 2
    cfg = segmentation(test_evaluator={'type': 'Evaluator', 'metrics': metrics})
    SCOPES['mmseg'].save_predictions(cfg, 'maps')
    assert [metric.output_dir for metric in cfg.test_evaluator.metrics] == ['maps'] * 2
    assert 'output_dir' not in cfg.test_evaluator


def test_detections_of_several_metrics_data_are_not_dumped():
    """mmdet's evaluator would omit the last metric and write no file."""
    kind = {'type': 'MultiDatasetsEvaluator', 'metrics': [{'type': 'CocoMetric'}]}
    with pytest.raises(ConfigError, match='--out: .*one data set'):
        SCOPES['mmdet'].save_predictions(detection(test_evaluator=kind), 'out.pkl')


def test_a_form_of_output_that_does_not_fit(tmp_path):
    with pytest.raises(ConfigError, match=r'--out maps: .*end in \.pkl'):
        SCOPES['mmdet'].save_predictions(detection(), 'maps')
    with pytest.raises(ConfigError, match=r'--out out\.pkl: .*name of a folder'):
        SCOPES['mmseg'].save_predictions(segmentation(), 'out.pkl')


def test_pictures_of_every_image(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = detection()
    use_visualization(cfg, False, 'shown', 2)
    hook = cfg.default_hooks.visualization
    assert hook.draw and hook.test_out_dir == str(tmp_path / 'shown')
    cfg = segmentation()
    use_visualization(cfg, False, 'shown', 2)
    hook = cfg.default_hooks.visualization
    assert hook.draw and hook.interval == 1
    assert cfg.visualizer.save_dir == 'shown'


def test_windows_need_a_display(monkeypatch):
    monkeypatch.setattr(matplotlib, 'get_backend', lambda: 'agg')
    with pytest.raises(ConfigError, match='--show: found no display'):
        use_visualization(detection(), True, None, 2)
    monkeypatch.setattr(matplotlib, 'get_backend', lambda: 'TkAgg')
    cfg = detection()
    use_visualization(cfg, True, None, 0.5)
    assert cfg.default_hooks.visualization.wait_time == 0.5
    with pytest.raises(ConfigError, match='mmseg does not save'):
        use_visualization(segmentation(), True, 'shown', 2)


def test_a_config_that_can_not_draw():
    with pytest.raises(ConfigError, match=r'need default_hooks\.visualization'):
        use_visualization(detection(default_hooks={}), False, 'shown', 2)
    with pytest.raises(ConfigError, match='no visualizer'):
        use_visualization(segmentation(visualizer=None), False, 'shown', 2)
