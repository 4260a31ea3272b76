"""Train ToyModel repeatedly, killed before one of its file operations each time.

Each training runs in a forked process, so the kill is real but libraries are imported
only once. Writes results.json to the given folder: what each kill left behind, how
resuming ended, and whether the final weights equal those of an undisturbed training.
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

EVERY = 4  # every so many operations, to save time; 1 passes too
EPOCHS = 2
NAMES = r'\.pth|last_checkpoint|\.unfinished'


def in_child(function, *arguments):
    """Call a function in a forked process; return its wait status."""
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
    """Kill this process before the number-th change to a checkpoint file."""
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
    """Skip slow steps that don't matter here."""
    Runner._log_env = lambda *_: None
    Runner.dump_config = lambda *_: None
    Config.pretty_text = ''


if __name__ == '__main__':
    be_quick()
    main(Path(sys.argv[1]))
