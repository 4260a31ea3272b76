"""Checkpoints are written whole, kept until replaced, and must fit the model."""

import errno
import itertools
import json
import os
import stat
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.fileio import get_file_backend
from mmengine.model import BaseTTAModel
from mmengine.runner import Runner
from processes import child
from toy import ToyModel, toy_config

from dcls_mm.checkpoint import CheckpointError, read_checkpoint
from dcls_mm.checkpoint.resumable import find_resumable
from dcls_mm.checks.errors import ConfigError
from dcls_mm.engine.folder_lock import FolderLock
from dcls_mm.engine.hooks.checkpoint_match_hook import CheckpointMatchHook
from dcls_mm.engine.hooks.resume_match_hook import ResumeMatchHook

HERE = Path(__file__).parent
BEST = {'save_best': 'score', 'rule': 'greater'}
FIRST_TWO = ['best_score_epoch_1.pth', 'epoch_1.pth']


def train(work_dir, hook, another=None, **changes):
    config = toy_config(default_scope='mmengine', custom_imports=None, **changes)
    config['default_hooks'] = {'checkpoint': {'type': 'AtomicCheckpointHook', **hook}}
    runner = Runner.from_cfg(Config({**config, 'work_dir': str(work_dir)}))
    if another:
        runner.register_hook(another)
    runner.train()
    return runner


def names(folder):
    return sorted(path.name for path in folder.glob('*.pth*'))


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    backend = get_file_backend(str(tmp_path), backend_args={'backend': 'atomic'})
    path = tmp_path / 'folder' / 'x.pth'
    backend.put(b'old', str(path))

    def full(descriptor):
        raise OSError(errno.ENOSPC, 'No space left on device')

    with monkeypatch.context() as patch:
        patch.setattr(os, 'fsync', full)
        with pytest.raises(CheckpointError, match=r'x\.pth could not .* \(No space'):
            backend.put(b'new, and longer', str(path))
    assert path.read_bytes() == b'old'
    assert os.listdir(path.parent) == ['x.pth']
    backend.put(b'new', str(path))
    assert path.read_bytes() == b'new'


def test_the_hook_keeps_what_mmengines_would(tmp_path):
    hook = {'max_keep_ckpts': 2, 'save_best': 'score', 'rule': 'greater'}
    train(tmp_path / 'a', hook)
    train(tmp_path / 'b', {**hook, 'type': 'CheckpointHook'})
    assert names(tmp_path / 'a') == names(tmp_path / 'b')
    assert 'epoch_3.pth' in names(tmp_path / 'a')
    assert 'epoch_1.pth' not in names(tmp_path / 'a')
    note = (tmp_path / 'a' / 'last_checkpoint').read_text()
    assert note == str(tmp_path / 'a' / 'epoch_3.pth')


def test_the_hook_removes_what_a_killed_training_left_unfinished(tmp_path):
    (tmp_path / '.dcls_mm-0123456789abcdef.unfinished').write_bytes(b'half')
    train(tmp_path, {'interval': 3})
    assert names(tmp_path) == ['epoch_3.pth']
    assert not list(tmp_path.glob('.*unfinished*'))


def test_a_backend_that_is_given_stays(tmp_path):
    runner = train(tmp_path, {'backend_args': {'backend': 'local'}})
    hook = next(hook for hook in runner.hooks if hasattr(hook, 'backend_args'))
    assert hook.backend_args == {'backend': 'local'}


def test_a_backend_by_its_former_name_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r'file_client_args must.*use backend_args'):
        train(tmp_path, {'file_client_args': {'backend': 'disk'}})


def run_script(name, *arguments):
    """Run a script of this folder; unlike pytest's process, it may fork."""
    done = subprocess.run(
        [sys.executable, HERE / name, *arguments],
        env={
            **os.environ,
            'OMP_NUM_THREADS': '1',
            'PYTHONPATH': os.pathsep.join(
                map(str, [HERE.parents[1], HERE.parent, HERE])
            ),
        },
        stderr=subprocess.PIPE,
        text=True,
        timeout=600,
    )
    assert not done.returncode, done.stderr


def test_killed_at_any_moment_training_goes_on_from_the_last_checkpoint(tmp_path):
    run_script('killed_training.py', tmp_path)
    results = json.loads((tmp_path / 'results.json').read_text())
    assert len(results) > 4
    for result in results:
        whole = [name for name in result['held'] if name.startswith('epoch')]
        assert result['resumed'] == (max(whole) if whole else None), result
        assert result['status'] == 0, result
        assert result['same'], result
    resumed = [result['resumed'] or '' for result in results]
    assert resumed == sorted(resumed), 'a later kill lost an earlier checkpoint'
    assert resumed[-1] == 'epoch_2.pth'


def test_whatever_happens_to_a_work_directory_no_whole_checkpoint_is_lost():
    run_script('work_dir_machine.py')


def fail_from(monkeypatch, number):
    """Simulate a disk that is full from the number-th file on."""
    synced = itertools.count(1)
    sync = os.fsync

    def full(handle):
        if stat.S_ISREG(os.fstat(handle).st_mode) and next(synced) >= number:
            raise OSError(errno.ENOSPC, 'No space left on device')
        sync(handle)

    monkeypatch.setattr(os, 'fsync', full)


@pytest.mark.parametrize(
    ('number', 'file', 'held'),
    [
        (1, 'epoch_1.pth', []),
        (2, 'last_checkpoint', ['epoch_1.pth']),
        (3, 'best_score_epoch_1.pth', ['epoch_1.pth']),
        (6, 'epoch_2.pth', FIRST_TWO),
        (
            7,
            'last_checkpoint',
            ['best_score_epoch_1.pth', 'epoch_1.pth', 'epoch_2.pth'],
        ),
    ],
)
def test_a_full_disk_loses_nothing(tmp_path, monkeypatch, number, file, held):
    hook = {'interval': 1, **BEST, 'max_keep_ckpts': 1}
    with monkeypatch.context() as patch:
        fail_from(patch, number)
        message = rf'{file} could not be written \(No space left.*--resume'
        with pytest.raises(CheckpointError, match=message):
            train(tmp_path, hook)
    assert names(tmp_path) == held
    assert not list(tmp_path.glob('.dcls_mm-*'))
    noted = tmp_path / 'last_checkpoint'
    assert noted.exists() == (number > 2)
    if noted.exists():
        assert noted.read_text() == str(tmp_path / 'epoch_1.pth')
    found, _ = find_resumable(str(tmp_path))
    assert found == (str(tmp_path / held[-1]) if held else None)


def test_the_note_is_never_there_in_part(tmp_path, monkeypatch):
    write = open

    def watched(file, mode='r', *arguments, **options):
        assert not (str(file).endswith('last_checkpoint') and 'w' in mode)
        return write(file, mode, *arguments, **options)

    monkeypatch.setattr('builtins.open', watched)
    train(tmp_path, {})
    assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'epoch_3.pth')


@pytest.mark.parametrize('hook', [{}, {'backend_args': {'backend': 'local'}}])
def test_the_hook_keeps_a_second_training_out(tmp_path, hook):
    """This includes trainings by mmengine's own scripts."""
    with child(lambda: FolderLock(tmp_path).acquire()) as other:
        refused = pytest.raises(ConfigError, match=f'another training.*{other.pid}')
        with refused:
            train(tmp_path, hook)
    assert names(tmp_path) == []
    train(tmp_path, hook)
    with child(lambda: FolderLock(tmp_path).acquire()):
        pass  # released at the end


def test_the_folder_that_checkpoints_go_to_is_locked(tmp_path):
    """With out_dir, two work directories of the same name share a folder."""
    refused = pytest.raises(ConfigError, match='out/x: another training')
    with child(lambda: FolderLock(tmp_path / 'out' / 'x').acquire()), refused:
        train(tmp_path / 'a' / 'x', {'out_dir': str(tmp_path / 'out')})
    train(tmp_path / 'a' / 'x', {'out_dir': str(tmp_path / 'out')})
    assert names(tmp_path / 'out' / 'x')


@pytest.mark.parametrize('kind', ['AtomicCheckpointHook', 'CheckpointHook'])
def test_no_files_of_others_are_removed(tmp_path, kind):
    """A copied or forged checkpoint may name other files as outdated."""
    plain = {'type': kind, 'interval': 1, 'filename_tmpl': '{}.pth'}
    hook = {**plain, **BEST, 'max_keep_ckpts': 2}
    train(tmp_path / 'a', plain)
    path = str(tmp_path / 'a' / '1.pth')
    checkpoint = read_checkpoint(path)
    told = checkpoint['message_hub']['runtime_info']
    work_dir = tmp_path / 'home' / 'b'
    precious = [
        tmp_path / 'precious.pth',
        tmp_path / 'folder' / 'file',
        tmp_path / 'home' / 'file',
        work_dir / 'file',
        work_dir / 'best' / 'file',
    ]
    outdated = work_dir / 'best_score_0.pth'  # the training's own file
    for best in (
        *(precious[0], precious[1].parent, f'{work_dir}/..', f'{work_dir}/best/'),
        *(work_dir, precious[3], precious[4].parent, None, [1], outdated),
    ):
        for file in (*precious, outdated):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b'1')
        told['best_ckpt'] = best if best in (None, [1]) else str(best)
        told['best_score'] = -1e9
        told['keep_ckpt_ids'] = ['../precious', '../../folder', None]
        torch.save(checkpoint, path)
        resume = ResumeMatchHook(path) if kind == 'CheckpointHook' else None
        train(work_dir, hook, resume, load_from=path, resume=True)
        assert [file for file in precious if not file.exists()] == []
    assert not outdated.exists()


class Loaded:
    """The part of a runner that the hook uses."""

    def __init__(self, model):
        self.model = model


class ToyTTA(BaseTTAModel):
    def merge_preds(self, data_samples_list):
        return data_samples_list


def check(model, state_dict):
    CheckpointMatchHook('x.pth').after_load_checkpoint(
        Loaded(model), {'state_dict': state_dict}
    )


@pytest.mark.parametrize('wrap', [lambda model: model, lambda model: ToyTTA(model)])
def test_a_checkpoint_of_the_model_passes(wrap):
    weights = ToyModel().state_dict()
    check(wrap(ToyModel()), weights)
    parallel = OrderedDict((f'module.{key}', value) for key, value in weights.items())
    check(wrap(ToyModel()), parallel)
    del weights['net.1.num_batches_tracked']
    check(wrap(ToyModel()), {**weights, 'ema.extra': torch.zeros(1)})


def test_a_checkpoint_of_another_width_is_an_error():
    message = r"another.*7 of 8 values don't fit \(net\.0\.weight \[9, 4\] instead of"
    with pytest.raises(CheckpointError, match=message):
        check(ToyModel(8), ToyModel(9).state_dict())


def test_a_checkpoint_with_other_keys_is_an_error():
    with pytest.raises(CheckpointError, match=r'8 of 8 values are missing \(net\.0'):
        check(ToyModel(), {'backbone.weight': torch.zeros(1)})
    message = 'holds no weights, only state_dict with model'
    with pytest.raises(CheckpointError, match=message):
        check(ToyModel(), {'model': ToyModel().state_dict()})


def test_the_hook_runs_when_a_runner_loads(tmp_path):
    runner = train(tmp_path, {'interval': 3})
    path = str(tmp_path / 'epoch_3.pth')
    assert 'net.0.weight' in read_checkpoint(path)['state_dict']
    runner.register_hook(CheckpointMatchHook(path))
    runner.load_checkpoint(path)
    runner.model = ToyModel(9)
    with pytest.raises(CheckpointError, match='another model'):
        runner.load_checkpoint(path)
