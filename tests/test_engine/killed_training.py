"""Trains ToyModel again and again, killed before one of its file operations.

Each training runs in a forked process, so that a kill is a real one and the
libraries are imported once. Writes results.json into the folder given: for
every kill, what it left, how resuming ended, and whether the weights are then
those of the training that nobody killed.
"""

import json
import os
import re
import shutil
import signal
import sys
from pathlib import Path

import mmdet.datasets
import mmdet.engine
import mmdet.evaluation
import mmdet.models
import mmdet.visualization  # noqa: F401
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from toy import write_config

from dcls_mm.apis import train as training
from dcls_mm.checkpoint import read_checkpoint

EVERY = 4  # of the operations, to save time; 1 passes too
EPOCHS = 2
NAMES = r'\.pth|last_checkpoint|\.unfinished'


def in_child(function, *arguments):
    """Calls a function in a process of its own; returns how that ended."""
    child = os.fork()
    if child == 0:
        try:
            function(*arguments)
        except BaseException as error:
            sys.stderr.write(f'{error!r}\n')
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


def train(config, work_dir, kill_at=None, resume=None):
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    if kill_at is not None:
        kill_before_operation(kill_at)
    training.train(config=config, work_dir=str(work_dir), resume=resume)


def kill_before_operation(number):
    """Kills this process before its number-th change to a checkpoint's file."""
    seen = 0

    def watch(event, arguments):
        nonlocal seen
        writes = event == 'open' and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        changes = writes or event in ('os.rename', 'os.remove')
        if changes and re.search(NAMES, str(arguments[0])):
            seen += 1
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def weights(work_dir, name):
    return read_checkpoint(str(work_dir / name))['state_dict']


def main(folder):
    hook = {
        'type': 'AtomicCheckpointHook',
        'interval': 1,
        'max_keep_ckpts': 1,
        'save_best': 'score',
        'rule': 'greater',
    }
    config = write_config(
        folder / 'toy.py',
        default_hooks={'checkpoint': hook},
        train_cfg={'by_epoch': True, 'max_epochs': EPOCHS},
    )
    assert in_child(train, config, folder / 'whole') == 0
    expected = weights(folder / 'whole', f'epoch_{EPOCHS}.pth')
    results = []
    work_dir = folder / 'killed'
    for kill_at in range(1, 100, EVERY):
        if in_child(train, config, work_dir, kill_at) != signal.SIGKILL:
            break
        held = sorted(path.name for path in work_dir.glob('*.pth'))
        cfg, _ = training.prepare_train(config, str(work_dir))
        training.settle_resume(cfg, 'auto')
        status = in_child(train, config, work_dir, None, 'auto')
        actual = weights(work_dir, f'epoch_{EPOCHS}.pth')
        results.append(
            {
                'held': held,
                'resumed': Path(cfg.load_from).name if cfg.resume else None,
                'status': status,
                'same': all(
                    torch.equal(actual[key], expected[key]) for key in expected
                ),
            }
        )
        shutil.rmtree(work_dir)
    (folder / 'results.json').write_text(json.dumps(results))


def be_quick():
    """Leaves out what takes the time here, and has nothing to do with it."""
    Runner._log_env = lambda *_: None
    Runner.dump_config = lambda *_: None
    Config.pretty_text = ''


if __name__ == '__main__':
    be_quick()
    main(Path(sys.argv[1]))
