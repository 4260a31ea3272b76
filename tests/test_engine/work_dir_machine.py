"""Anything may happen to a work directory between two trainings in it.

    python tests/test_engine/work_dir_machine.py --examples 200

A hypothesis state machine trains ToyModel with ``--resume`` in one folder: killed
before a file operation, on a full disk, or with another config. Between trainings it
damages checkpoints and the note of the last one. After every training, all intact
checkpoints must still exist. The training must either have continued from the newest of
them (ending, if at all, with the weights of an undisturbed training) or have said in
one sentence why not.

The sequence of events is drawn, but the same in every run.
"""

import argparse
import errno
import hashlib
import json
import os
import shutil
import signal
import stat
import sys
import tempfile
import zipfile
from collections import Counter
from pathlib import Path

import torch
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

sys.path.append(str(Path(__file__).resolve().parents[1]))  # toy
from killed_training import (
    be_quick,
    in_child,
    kill_before_operation,
    train,
    weights,
)
from mmengine.hooks import Hook
from toy import write_config

from dcls_mm import _files
from dcls_mm.apis import train as training

LONGEST = 6  # epochs
OPTIMIZERS = {
    'AdamW': {'type': 'AdamW', 'lr': 0.01},
    'SGD': {'type': 'SGD', 'lr': 0.01, 'momentum': 0.9},
}
# By default they end with max_epochs, and stay ended if that is raised later.
SCHEDULERS = [
    {'type': 'LinearLR', 'start_factor': 0.1, 'by_epoch': False, 'end': 6},
    {'type': 'MultiStepLR', 'milestones': [2, 3], 'end': LONGEST},
]
KINDS = [(width, name) for width in (8, 9) for name in OPTIMIZERS]
FOLDER = Path()  # for all examples; set by `main`
EXPECTED = {}  # kind of training -> epoch -> weights
HAPPENED = Counter()


def config_of(kind, epochs, keep=-1):
    width, optimizer = kind
    path = FOLDER / f'{width}_{optimizer}_{epochs}_{keep}.py'
    if not path.exists():
        write_config(
            path,
            model={'type': 'ToyModel', 'width': width},
            optim_wrapper={'optimizer': OPTIMIZERS[optimizer]},
            train_cfg={'by_epoch': True, 'max_epochs': epochs},
            param_scheduler=SCHEDULERS,
            default_hooks={
                'checkpoint': {
                    'type': 'AtomicCheckpointHook',
                    'interval': 1,
                    'max_keep_ckpts': keep,
                    'save_best': 'score',
                    'rule': 'greater',
                }
            },
        )
    return str(path)


def expected(kind, epoch):
    """Return the weights of an undisturbed training."""
    if kind not in EXPECTED:
        work_dir = FOLDER / f'undisturbed_{"_".join(map(str, kind))}'
        assert in_child(train, config_of(kind, LONGEST), work_dir) == 0
        EXPECTED[kind] = {
            number: weights(work_dir, f'epoch_{number}.pth')
            for number in range(1, LONGEST + 1)
        }
    return EXPECTED[kind][epoch]


def truncate(path, number):
    os.truncate(path, path.stat().st_size * number // 100)


def flip_bit(path, number):
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        record = max(archive.infolist(), key=lambda info: info.file_size)
    start = record.header_offset + len(record.FileHeader())
    content[start + number * record.file_size // 101] ^= 1 << number % 8
    path.write_bytes(content)


def zero(path, number):
    path.write_bytes(bytes(path.stat().st_size * number // 100))


def replace_by(make):
    def replace(path, number):
        path.unlink()
        make(path)

    return replace


DAMAGES = {
    'truncated': truncate,
    'a bit flipped': flip_bit,
    'zeros': zero,
    'a dangling link': replace_by(lambda path: path.symlink_to('nowhere')),
    'a looping link': replace_by(lambda path: path.symlink_to(path)),
    'a pipe': replace_by(lambda path: os.mkfifo(path)),
    'a folder': replace_by(lambda path: path.mkdir()),
}
# It may be intact, so no checkpoint may be written in its place.
BLOCKS = {'a folder'}

NOTES = {
    'zeros': bytes(50),
    'nothing': b'',
    'not UTF-8': b'\xff\xfe/epoch_1.pth',
    'too long': b'/x' * 100_000,
    'braces': b'/nowhere/epoch_{.pth',
    'a device': b'/dev/zero',
    'a folder': b'/',
}
LINKS = {'a looping link': 'last_checkpoint', 'a dangling link': 'nowhere'}


class WorkDir(RuleBasedStateMachine):
    """One folder, and what is known about its files."""

    def __init__(self):
        super().__init__()
        self.work_dir = Path(tempfile.mkdtemp(dir=FOLDER)) / 'work dir'
        self.work_dir.mkdir()
        self.result = self.work_dir.with_name('result.json')
        self.kind = self.trained = KINDS[0]
        self.epochs, self.keep = 1, -1
        self.damaged = {}  # name -> damage

    def teardown(self):
        shutil.rmtree(self.work_dir.parent)

    def files(self):
        """Return {name: (whether it is a file, digest of its content)}."""
        found = {}
        for path in sorted(self.work_dir.glob('*.pth')):
            is_file = path.is_file()
            content = path.read_bytes() if is_file else b''
            found[path.name] = (is_file, hashlib.sha256(content).hexdigest())
        return found

    def whole(self):
        """Return the epochs with an intact checkpoint."""
        return [
            int(name[len('epoch_') : -len('.pth')])
            for name in self.files()
            if name.startswith('epoch_') and name not in self.damaged
        ]

    def run(self, prepare):
        """Train in a child process; check what it left and reported.

        Return its status and the error that ended it, if any.
        """
        before, whole = self.files(), self.whole()
        newest = max(whole, default=0)
        blocks = [
            int(name[len('epoch_') : -len('.pth')])
            for name, how in self.damaged.items()
            if how in BLOCKS
        ]
        self.result.unlink(missing_ok=True)
        config = config_of(self.kind, self.epochs, self.keep)
        status = in_child(train_and_tell, config, self.work_dir, self.result, prepare)
        told = json.loads(self.result.read_text()) if self.result.exists() else {}
        after = self.files()

        if 'resumed' in told:  # the training began
            name = f'epoch_{newest}.pth' if newest else None
            assert told['resumed'] == name, (told, name)
            assert newest or not before, f'started anew over {list(before)}'
            assert max(blocks, default=0) < newest or not blocks, blocks
        else:
            assert after == before
        for name, state in after.items():
            if before.get(name) != state:
                self.damaged.pop(name, None)
        self.advanced = max(self.whole(), default=0) > newest
        assert max(self.whole(), default=0) >= newest, 'lost the newest'
        for epoch in self.whole():
            path = self.work_dir / f'epoch_{epoch}.pth'
            with zipfile.ZipFile(path) as archive:
                assert archive.testzip() is None, f'{path} is not whole'
        if told.get('resumed', 'none') is None and not before:
            self.trained = self.kind
        error = told.get('error', '')
        HAPPENED['killed' if status == signal.SIGKILL else _end_of(status, error)] += 1
        return status, error

    def check_trained(self):
        newest = max(self.whole())
        assert newest >= self.epochs
        actual = weights(self.work_dir, f'epoch_{newest}.pth')
        for key, value in expected(self.trained, newest).items():
            assert torch.equal(actual[key], value), key
        assert not list(self.work_dir.glob('.dcls_mm-*')), 'something unfinished'
        if self.advanced:
            note = (self.work_dir / 'last_checkpoint').read_text()
            assert note == f'{self.work_dir}/epoch_{newest}.pth'

    @initialize()
    def train_first(self):
        self.train_to_the_end(None)

    @rule(
        how=st.sampled_from(['killed', 'to the end', 'on a full disk']),
        operation=st.integers(1, 14),
        more=st.integers(0, 2),
    )
    def train(self, how, operation, more):
        newest = max(self.whole(), default=0)
        self.epochs = min(max(newest + more, 1), LONGEST)
        getattr(self, f'train_{how.replace(" ", "_")}')(operation)

    def train_to_the_end(self, _):
        newest = max(self.whole(), default=0)
        there = bool(self.files())
        status, error = self.run(None)
        if status == 0:
            self.check_trained()
        elif newest and self.kind != self.trained:
            assert 'belongs to another model' in error or 'does not describe' in error
        else:
            assert there, error
            assert 'CheckpointError: no checkpoint in' in error, error

    def train_killed(self, operation):
        status, _ = self.run(lambda: kill_before_operation(operation))
        if status == 0:
            self.check_trained()

    def train_on_a_full_disk(self, write):
        status, error = self.run(lambda: fill_disk(write // 3))
        if status == 0:
            self.check_trained()
        elif 'No space left' in error:
            assert 'CheckpointError' in error, error
            assert not list(self.work_dir.glob('.dcls_mm-*'))

    @precondition(lambda self: self.whole())
    @rule(how=st.sampled_from(list(DAMAGES)), number=st.integers(0, 99))
    def damage_the_last(self, how, number):
        self.damage(max(self.whole()), how, number)

    @precondition(lambda self: self.whole())
    @rule(how=st.sampled_from(list(DAMAGES)), number=st.integers(0, 99))
    def damage_the_first(self, how, number):
        self.damage(min(self.whole()), how, number)

    def damage(self, epoch, how, number):
        name = f'epoch_{epoch}.pth'
        DAMAGES[how](self.work_dir / name, number)
        self.damaged[name] = how
        HAPPENED[f'then {how}'] += 1

    @rule(what=st.sampled_from([*NOTES, *LINKS]))
    def spoil_note(self, what):
        path = self.work_dir / 'last_checkpoint'
        path.unlink(missing_ok=True)
        if what in LINKS:
            path.symlink_to(LINKS[what])
        else:
            path.write_bytes(NOTES[what])

    @precondition(lambda self: self.damaged)
    @rule()
    def move_the_damaged_away(self):
        for name in self.damaged:
            path = self.work_dir / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        self.damaged = {}

    @rule(keep=st.sampled_from([-1, 1, 2]), kind=st.sampled_from([None, *KINDS]))
    def change_the_config(self, keep, kind):
        self.keep = keep
        self.kind = kind or self.trained


def _end_of(status, error):
    """Describe the end of a training in a few words."""
    words = ('No space', 'another model', 'not describe')
    return 'trained' if not status else next(filter(error.__contains__, words), 'none')


class TellHook(Hook):
    """A record of the checkpoint from which a training continues."""

    priority = 'VERY_HIGH'

    def __init__(self, result):
        self.result = result

    def before_train(self, runner):
        name = Path(runner.cfg.load_from).name if runner.cfg.resume else None
        self.result.write_text(json.dumps({'resumed': name}))


def train_and_tell(config, work_dir, result, prepare):
    """Train, recording what TellHook reports and the error that ended it."""
    build = training.build_runner

    def build_and_tell(*arguments):
        runner = build(*arguments)
        runner.register_hook(TellHook(result))
        return runner

    training.build_runner = build_and_tell
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    if prepare is not None:
        prepare()
    try:
        train(config, work_dir, resume='auto')
    except Exception as error:
        told = json.loads(result.read_text()) if result.exists() else {}
        told['error'] = f'{type(error).__name__}: {error}'
        result.write_text(json.dumps(told))
        raise


def fill_disk(number):
    """Make the disk full from the number-th file on."""
    synced = 0

    def sync(handle):
        nonlocal synced
        synced += stat.S_ISREG(os.fstat(handle).st_mode)
        if synced >= number:
            raise OSError(errno.ENOSPC, 'No space left on device')

    _files.os.fsync = sync


def main():
    global FOLDER
    parser = argparse.ArgumentParser()
    parser.add_argument('--examples', type=int, default=12)
    parser.add_argument('--steps', type=int, default=12, help='of an example, at most')
    args = parser.parse_args()
    be_quick()
    with tempfile.TemporaryDirectory() as folder:
        FOLDER = Path(folder).resolve()
        run_state_machine_as_test(
            WorkDir,
            settings=settings(
                derandomize=True,
                database=None,
                deadline=None,
                max_examples=args.examples,
                stateful_step_count=args.steps,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            ),
        )
    for what, count in sorted(HAPPENED.items()):
        sys.stdout.write(f'{count:5d} {what}\n')


if __name__ == '__main__':
    main()
