"""tools/train.py and tools/test.py as commands on a toy, interrupted and resumed."""

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from mmengine.visualization import LocalVisBackend
from toy import ToyDataset, write_config

from dcls_mm.apis import train
from dcls_mm.apis.work_dir import sole_training
from dcls_mm.checkpoint import read_checkpoint
from dcls_mm.checks.config_checks import ConfigError
from dcls_mm.engine.folder_lock import FolderLock

ROOT = Path(__file__).resolve().parents[2]
TOY = ROOT / 'tests'


def start(tool, *arguments, file_size=resource.RLIM_INFINITY):
    """Start a tool as from a checkout in which dcls_mm is not installed."""

    def prepare():
        # A background job, as in some CI, makes its children ignore interrupts.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))

    return subprocess.Popen(
        [sys.executable, ROOT / 'tools' / tool, *map(str, arguments)],
        env={**os.environ, 'PYTHONPATH': str(TOY), 'OMP_NUM_THREADS': '1'},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=prepare,
    )


def finish(process):
    out, err = process.communicate(timeout=200)
    return process.returncode, out, err


def wait_for(path, process):
    while not path.exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)


def slow_config(path, hook, workers=2):
    """Write a config whose epochs take almost a second, time enough to interrupt."""
    dataloader = {
        'batch_size': 4,
        'num_workers': workers,
        'dataset': {'type': 'ToyDataset', 'pause': 0.1},
        'sampler': {'type': 'DefaultSampler', 'shuffle': True},
    }
    return write_config(
        path,
        default_hooks={'checkpoint': {'type': hook, 'interval': 1}},
        train_dataloader=dataloader,
    )


@pytest.fixture(scope='module')
def uninterrupted(tmp_path_factory):
    """Return the last checkpoint of an undisturbed training."""
    folder = tmp_path_factory.mktemp('uninterrupted')
    config = slow_config(folder / 'toy.py', 'CheckpointHook')
    # It runs in a process, as another number of threads rounds differently.
    status, _, err = finish(start('train.py', config, '--work-dir', folder))
    assert status == 0, err
    return read_checkpoint(str(folder / 'epoch_3.pth'))


def test_a_killed_training_is_resumed_and_tested(uninterrupted, tmp_path):
    config = slow_config(tmp_path / 'toy.py', 'AtomicCheckpointHook')
    work_dir = tmp_path / 'work dir'
    arguments = (config, '--work-dir', work_dir, '--resume')

    training = start('train.py', *arguments)
    wait_for(work_dir / 'last_checkpoint', training)
    training.send_signal(signal.SIGSTOP)
    refused = f'work dir: another training writes there .process {training.pid}, host'
    with pytest.raises(ConfigError, match=refused):
        train.train(config=config, work_dir=str(work_dir), resume='auto')
    training.kill()
    finish(training)
    assert not (work_dir / 'epoch_3.pth').exists()
    last = max(work_dir.glob('epoch_*.pth'))

    status, out, err = finish(start('train.py', *arguments))
    assert status == 0, err
    assert f'--resume: resumes from {last}' in out + err
    checkpoint = read_checkpoint(str(work_dir / 'epoch_3.pth'))
    for actual, expected in (
        (checkpoint['state_dict'], uninterrupted['state_dict']),
        (checkpoint['optimizer']['state'], uninterrupted['optimizer']['state']),
    ):
        torch.testing.assert_close(actual, expected, rtol=0, atol=0)
    assert checkpoint['param_schedulers'] == uninterrupted['param_schedulers']

    checkpoint = work_dir / 'epoch_3.pth'
    testing = start('test.py', config, checkpoint, '--work-dir', tmp_path / 'test')
    status, out, err = finish(testing)
    assert status == 0, err
    (metrics,) = (tmp_path / 'test').glob('*/*.json')
    validated = work_dir.glob('*/vis_data/scalars.json')
    scores = [
        json.loads(line).get('score')
        for file in sorted(validated)
        for line in file.read_text().splitlines()
    ]
    assert json.loads(metrics.read_text())['score'] == pytest.approx(scores[-1])


def test_an_interrupted_training_says_so_and_is_resumed(tmp_path):
    # mmengine's own hook; and no workers, since Python loses an interrupt that comes
    # while it forks one.
    config = slow_config(tmp_path / 'toy.py', 'CheckpointHook', workers=0)
    training = start('train.py', config, '--work-dir', tmp_path)
    wait_for(tmp_path / 'last_checkpoint', training)
    training.send_signal(signal.SIGINT)
    status, _, err = finish(training)
    assert status == 130
    assert err.strip().endswith('interrupted')
    cfg, _ = train.prepare_train(config, work_dir=tmp_path)
    train.settle_resume(cfg, 'auto')
    # mmengine's own hook may have been interrupted while writing a later one.
    assert cfg.load_from in map(str, tmp_path.glob('epoch_*.pth'))
    assert read_checkpoint(cfg.load_from)['meta']['epoch'] >= 1


def test_a_file_that_finds_no_room_is_told_in_a_sentence(tmp_path):
    """Files may grow to 10 kB, less than a checkpoint needs."""
    config = write_config(tmp_path / 'toy.py')
    training = start('train.py', config, '--work-dir', tmp_path / 'w', file_size=10_000)
    status, _, err = finish(training)
    assert status == 1
    last = err.splitlines()[-1]
    assert last.startswith(f'error: {tmp_path}/w/epoch_1.pth could not be written')
    assert 'File too large' in last
    assert not list((tmp_path / 'w').glob('*.pth'))
    assert not list((tmp_path / 'w').glob('.*unfinished'))


@pytest.mark.parametrize('number', [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_logs_that_find_no_room_are_told_in_a_sentence(tmp_path, monkeypatch, number):
    config = write_config(tmp_path / 'toy.py')

    def fail(self, *arguments, **options):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(LocalVisBackend, 'add_scalars', fail)
    with pytest.raises(ConfigError) as caught:
        train.train(config=config, work_dir=str(tmp_path / 'w'))
    assert os.strerror(number) in str(caught.value)
    assert 'continue with --resume' in str(caught.value)
    monkeypatch.undo()
    train.train(config=config, work_dir=str(tmp_path / 'w'), resume='auto')
    assert (tmp_path / 'w' / 'epoch_3.pth').exists()


def test_another_error_of_a_file_keeps_its_traceback(tmp_path, monkeypatch):
    def fail(self, index):
        raise PermissionError(errno.EACCES, 'of the data')

    monkeypatch.setattr(ToyDataset, '__getitem__', fail)
    with pytest.raises(PermissionError, match='of the data'):
        train.train(
            config=write_config(tmp_path / 'toy.py'), work_dir=str(tmp_path / 'w')
        )


@pytest.mark.parametrize(
    ('launcher', 'variables', 'locks'),
    [
        ('none', {}, True),
        ('none', {'RANK': '1', 'SLURM_PROCID': '1'}, True),  # as in a job's shell
        ('pytorch', {'RANK': '0'}, True),
        ('pytorch', {'RANK': '3'}, False),
        ('slurm', {'SLURM_PROCID': '0'}, True),
        ('slurm', {'SLURM_PROCID': '3'}, False),
        ('mpi', {'OMPI_COMM_WORLD_RANK': '3'}, False),
    ],
)
def test_one_process_locks_for_all(monkeypatch, tmp_path, launcher, variables, locks):
    for name in ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK'):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with sole_training(str(tmp_path), launcher):
        assert (os.path.realpath(tmp_path) in FolderLock._held) == locks


def test_mistakes_are_told_in_a_sentence(tmp_path):
    config = write_config(tmp_path / 'toy.py')
    cases = {
        ('train.py', tmp_path / 'no.py'): (1, 'no.py does not exist'),
        ('train.py', config, '--cfg-options', 'a'): (2, 'expected KEY=VALUE'),
        ('test.py', config, 'no.pth'): (1, 'no.pth does not exist'),
    }
    processes = [(case, start(*case)) for case in cases]
    for case, process in processes:
        status, out, err = finish(process)
        expected, message = cases[case]
        assert status == expected
        assert message in err
        assert 'Traceback' not in err
