"""benchmarks/compare_configs.py prints what the trainings logged."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.config import Config

ROOT = Path(__file__).resolve().parents[1]
TOY = ROOT / 'tests'
sys.path[:0] = [str(TOY), str(ROOT / 'benchmarks')]
from compare_configs import parse_args, print_metric  # noqa: E402
from toy import write_config  # noqa: E402


def compare(*arguments):
    return subprocess.run(
        [sys.executable, ROOT / 'benchmarks' / 'compare_configs.py', *arguments],
        env={**os.environ, 'PYTHONPATH': str(TOY), 'OMP_NUM_THREADS': '1'},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_trains_and_prints_what_was_logged(tmp_path):
    backends = [{'type': 'LocalVisBackend'}]
    config = write_config(tmp_path / 'toy.py', vis_backends=backends)
    options = ['--metrics', 'score', '--seeds', '3', '--work-dir', tmp_path]
    done = compare(config, *options, '--cfg-options', 'train_cfg.max_epochs=2')
    assert not done.returncode, done.stderr
    (log,) = (tmp_path / 'toy' / 'seed-3').glob('*/vis_data/scalars.json')
    records = [json.loads(line) for line in log.read_text().splitlines()]
    scores = {r['step']: r['score'] for r in records if 'score' in r}
    assert list(scores) == [1, 2]
    assert f'| 2, seed 3 | {scores[2]:.3g} |' in done.stdout
    assert (tmp_path / 'score.png').is_file()
    (flat,) = (tmp_path / 'toy' / 'seed-3').glob('toy.py')
    assert Config.fromfile(flat).randomness.seed == 3


def test_spread_and_difference(capsys):
    curves = {
        'a': [{10: 1.0, 20: 2.0}, {10: 3.0, 20: 6.0}],
        'b': [{10: 0.0, 20: 1.5}, {10: 0.5, 20: 7.0}],
    }
    print_metric('mIoU', [0, 1], curves)
    assert capsys.readouterr().out.splitlines() == [
        '',
        '### mIoU, mean (lowest to highest) of 2 seeds',
        '',
        '| step | a | b |',
        '| --- | ---: | ---: |',
        '| 10 | 2 (1 to 3) | 0.25 (0 to 0.5) |',
        '| 20 | 4 (2 to 6) | 4.25 (1.5 to 7) |',
        '| 20, seed 0 | 2 | 1.5 |',
        '| 20, seed 1 | 6 | 7 |',
        '',
        'a minus b, seed by seed: -0.25 (-1 to 0.5)',
    ]


def test_configs_of_one_name_are_refused(monkeypatch, capsys):
    command = ['compare_configs.py', 'x/same.py', 'y/same.py', '--metrics', 'score']
    monkeypatch.setattr(sys, 'argv', command)
    with pytest.raises(SystemExit):
        parse_args()
    assert 'need different names, got same, same' in capsys.readouterr().err
