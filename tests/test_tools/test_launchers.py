"""The shell scripts pass their arguments on, and processes train together."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from processes import free_port
from toy import write_config

from dcls_mm.checkpoint import read_checkpoint

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / 'tools'
TOY = ROOT / 'tests'


def run(script, *arguments, **environment):
    return subprocess.run(
        [TOOLS / script, *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture
def stub(tmp_path):
    """Make a folder for PATH, whose programs print one argument per line."""
    for name in ('python', 'srun'):
        (tmp_path / name).write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
        (tmp_path / name).chmod(0o755)
    return {'PATH': f'{tmp_path}:{os.environ["PATH"]}', 'PYTHON': 'python'}


def test_dist_train(stub):
    given = ('my config.py', '2', '--work-dir', 'a b', '--cfg-options', 'x=(1, 2)')
    done = run('dist_train.sh', *given, **stub, NNODES='3', NODE_RANK='1', PORT='99')
    assert done.stdout.splitlines() == [
        '-m',
        'torch.distributed.run',
        '--nnodes=3',
        '--node-rank=1',
        '--nproc-per-node=2',
        '--master-addr=127.0.0.1',
        '--master-port=99',
        f'{TOOLS}/train.py',
        'my config.py',
        '--launcher',
        'pytorch',
        *given[2:],
    ]


def test_dist_test(stub):
    lines = run('dist_test.sh', 'c.py', 'x y.pth', '4', '--tta', **stub).stdout
    assert lines.splitlines()[4:] == [
        '--nproc-per-node=4',
        '--master-addr=127.0.0.1',
        '--master-port=29500',
        f'{TOOLS}/test.py',
        'c.py',
        'x y.pth',
        '--launcher',
        'pytorch',
        '--tta',
    ]


@pytest.mark.parametrize(
    'script, tail',
    [
        ('slurm_train.sh', ['c.py', '--work-dir', 'd e', '--launcher', 'slurm']),
        ('slurm_test.sh', ['c.py', 'd e', '--launcher', 'slurm']),
    ],
)
def test_slurm(stub, script, tail):
    options = {**stub, 'GPUS': '4', 'GPUS_PER_NODE': '2', 'SRUN_ARGS': '-w n1 --x=1'}
    lines = run(script, 'part', 'a job', 'c.py', 'd e', '--y', 'z z', **options).stdout
    assert lines.splitlines() == [
        '--partition=part',
        '--job-name=a job',
        '--gres=gpu:2',
        '--ntasks=4',
        '--ntasks-per-node=2',
        '--cpus-per-task=5',
        '--kill-on-bad-exit=1',
        '-w',
        'n1',
        '--x=1',
        'python',
        '-u',
        f'{TOOLS}/{script.split("_")[1].replace(".sh", ".py")}',
        *tail,
        '--y',
        'z z',
    ]
    assert '-w' not in run(script, 'p', 'j', 'c', 'd', **stub).stdout.split()


@pytest.mark.parametrize(
    'script', ['dist_train.sh', 'dist_test.sh', 'slurm_train.sh', 'slurm_test.sh']
)
def test_too_few_arguments_show_the_usage(script):
    done = run(script, 'config.py')
    assert done.returncode == 2
    assert f'tools/{script} ' in done.stderr
    assert '[arguments of t' in done.stderr


def test_two_processes_train_without_a_gpu(tmp_path):
    config = write_config(tmp_path / 'toy.py')
    done = run(
        'dist_train.sh',
        config,
        '2',
        '--work-dir',
        tmp_path / 'work',
        PYTHON=sys.executable,
        PYTHONPATH=str(TOY),
        PORT=free_port(),
        OMP_NUM_THREADS='1',
        CUDA_VISIBLE_DEVICES='-1',
    )
    assert done.returncode == 0, done.stderr
    checkpoint = read_checkpoint(str(tmp_path / 'work' / 'epoch_3.pth'))
    assert checkpoint['meta']['iter'] == 3 * 16 // 4 // 2  # each has half the data
