"""The demo's own steps; train.py and test.py are tested elsewhere."""

import importlib.util
import json
from pathlib import Path

import mmcv
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, VISUALIZERS, DefaultScope

import dcls_mm  # noqa: F401
from dcls_mm.datasets import draw_scene, write_scenes

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def demo(tmp_path, monkeypatch):
    """Load the script as a module that uses an empty folder and starts no process."""
    spec = importlib.util.spec_from_file_location('demo', ROOT / 'tools' / 'demo.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / 'configs').symlink_to(ROOT / 'configs')
    module.calls = []
    monkeypatch.setattr(module, 'ROOT', tmp_path)
    monkeypatch.setattr(
        module, 'run_tool', lambda *args: module.calls.append([str(a) for a in args])
    )
    return module


def leave_checkpoint(work_dir, epoch):
    work_dir.mkdir(parents=True, exist_ok=True)
    content = dict(
        meta=dict(epoch=epoch, iter=4 * epoch),
        message_hub=dict(log_scalars={}, runtime_info={}, resumed_keys={}),
        optimizer={},
        state_dict=dict(weight=torch.ones(1)),
    )
    torch.save(content, work_dir / f'epoch_{epoch}.pth')


def last_epoch(demo, task):
    return Config.fromfile(ROOT / demo.DEMOS[task].config).train_cfg.max_epochs


@pytest.mark.parametrize('task', ['det', 'seg'])
def test_training_goes_on_until_it_is_done(demo, task, tmp_path, capsys):
    setting = demo.DEMOS[task]
    resumed = ['train.py', setting.config, '--work-dir', str(setting.work_dir)]
    resumed.append('--resume')
    demo.train(setting)
    leave_checkpoint(tmp_path / setting.work_dir, 1)
    demo.train(setting)
    assert demo.calls == [resumed, resumed]

    leave_checkpoint(tmp_path / setting.work_dir, last_epoch(demo, task))
    demo.train(setting)
    assert len(demo.calls) == 2, 'a finished training must not run again'
    assert 'already trained' in capsys.readouterr().out


def test_the_last_checkpoint_is_evaluated(demo, tmp_path):
    setting = demo.DEMOS['det']
    leave_checkpoint(tmp_path / setting.work_dir, 1)
    leave_checkpoint(tmp_path / setting.work_dir, 2)
    demo.evaluate(setting)
    ((tool, config, checkpoint, *_),) = demo.calls
    assert (tool, config) == ('test.py', setting.config)
    assert checkpoint == str(tmp_path / setting.work_dir / 'epoch_2.pth')


@pytest.mark.parametrize('task', ['det', 'seg'])
def test_one_picture_shows_predictions_curve_and_kernels(
    task, demo, monkeypatch, tmp_path
):
    setting = demo.DEMOS[task]
    work_dir = tmp_path / setting.work_dir
    leave_checkpoint(work_dir, 1)
    log = work_dir / '20260101_000000' / 'vis_data' / 'scalars.json'
    log.parent.mkdir(parents=True)
    log.write_text(json.dumps({**dict.fromkeys(setting.metrics, 0.5), 'step': 1}))
    grey = np.full((100, 200, 3), 77, np.uint8)

    def draw(tool, command, config, checkpoint, option, out, *options):
        assert (tool, option) == ('analysis_tools/visualize.py', '--out')
        demo.calls.append((command, options))
        if command == 'kernels':
            mmcv.imwrite(grey, str(tmp_path / out))
        else:
            for index in range(3):
                mmcv.imwrite(grey, str(tmp_path / out / f'{index}.png'))

    monkeypatch.setattr(demo, 'run_tool', draw)
    demo.draw_results(setting)
    (_, _), (command, options) = demo.calls
    assert command == 'predictions'
    assert [f'{k}={v}' for k, v in setting.shown.items()] == [
        *options[options.index('--cfg-options') + 1 :]
    ]
    sheet = mmcv.imread(str(work_dir / 'overview.png'))
    assert (sheet[0, 0] == 77).all() and (sheet[-1, -1] == 77).all()
    assert (work_dir / 'metrics.png').is_file()


def test_report_shows_what_the_evaluation_wrote(demo, tmp_path, capsys):
    setting = demo.DEMOS['det']
    folder = tmp_path / setting.work_dir / 'test' / '20260101_000000'
    folder.mkdir(parents=True)
    values = {key: 0.1 * i for i, key in enumerate(setting.metrics)}
    (folder / '20260101_000000.json').write_text(json.dumps(values))
    demo.report(setting)
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split() == ['mask', 'AP50', '0.100'] for line in lines)
    assert lines[-1].endswith(str(setting.work_dir / 'overview.png'))


def test_failing_tool_ends_the_demo(demo, monkeypatch):
    monkeypatch.undo()
    with pytest.raises(SystemExit, match='tools/train.py ended with status 1'):
        demo.run_tool('train.py', 'configs/demo/missing.py')


@pytest.mark.parametrize(('task', 'scope'), [('det', 'mmdet'), ('seg', 'mmseg')])
def test_the_scenes_to_look_at_are_read(task, scope, demo, tmp_path):
    list(write_scenes(str(tmp_path), 'shown', count=1, seed=1, size=200))
    cfg = Config.fromfile(ROOT / demo.DEMOS[task].config)
    cfg.merge_from_dict({**demo.DEMOS[task].shown, 'visualizer.name': f'look-{task}'})
    cfg.test_dataloader.dataset.data_root = str(tmp_path)
    with DefaultScope.overwrite_default_scope(scope):
        VISUALIZERS.build(cfg.visualizer)
        (sample,) = DATASETS.build(cfg.test_dataloader.dataset)
    assert sample['inputs'].shape == (3, 160, 160)
    assert sample['data_samples'].ori_shape == (200, 200)


def test_configs_read_the_drawn_scenes(demo, tmp_path):
    list(write_scenes(str(tmp_path), 'val', count=2, seed=1))
    scene = draw_scene(np.random.default_rng([1, 0]))
    for task, scope in (('det', 'mmdet'), ('seg', 'mmseg')):
        dataset = Config.fromfile(ROOT / demo.DEMOS[task].config).val_dataloader.dataset
        dataset.data_root = str(tmp_path)
        with DefaultScope.overwrite_default_scope(scope):
            sample = DATASETS.build(dataset)[0]['data_samples']
        if task == 'det':
            assert sample.gt_instances.labels.tolist() == scene.labels.tolist()
            np.testing.assert_array_equal(
                sample.gt_instances.masks.to_ndarray(), scene.masks
            )
        else:
            np.testing.assert_array_equal(
                sample.gt_sem_seg.data[0].numpy(), scene.label_map()
            )
