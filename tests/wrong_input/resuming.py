"""Work directories and checkpoints that no training can continue from."""

import os
import socket
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace

import torch
from mmengine.optim import MultiStepLR, OptimWrapper, OptimWrapperDict
from processes import child
from toy import write_config  # noqa: E402

from dcls_mm.apis.outputs import write_file
from dcls_mm.checkpoint import (
    CheckpointError,
    DamagedCheckpointError,
    MissingCheckpointError,
)
from dcls_mm.checkpoint.errors import ContentError
from dcls_mm.checkpoint.resumable import check_resumable, find_resumable
from dcls_mm.checks.errors import ConfigError
from dcls_mm.engine.folder_lock import LOCK, FolderLock
from dcls_mm.engine.hooks.atomic_checkpoint_hook import AtomicLocalBackend
from dcls_mm.engine.hooks.resume_match_hook import ResumeMatchHook

from . import command, wrong


def checkpoint(**changes):
    """Return the minimum that resuming needs; 'out' removes an entry."""
    held = {
        'meta': {'epoch': 1, 'iter': 4},
        'message_hub': {'log_scalars': {}, 'runtime_info': {}, 'resumed_keys': {}},
        'optimizer': {},
        'state_dict': {'weight': torch.ones(1)},
    }
    return {key: value for key, value in {**held, **changes}.items() if value != 'out'}


def save(name='epoch_1.pth', content=None, **changes):
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(checkpoint(**changes) if content is None else content, path)
    return path


def cut(name, size=-50):
    path = save(name)
    path.write_bytes(path.read_bytes()[:size])


def found(*makes, templates=None, out_dir=None):
    """Return what is found in a folder after making some files."""
    for make in makes:
        make()
    options = {} if templates is None else {'templates': templates}
    return find_resumable(os.getcwd(), out_dir=out_dir, **options)


def no_resuming(make, *says, **options):
    """Make a row in which nothing is resumed from what ``make`` leaves."""
    return wrong(lambda: found(make, **options), CheckpointError, *says)


def note(text):
    Path('last_checkpoint').write_text(text)


def link(target, name='epoch_1.pth'):
    Path(name).symlink_to(target)


def listen(name):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(name)


class Foreign:
    """A type that mmengine does not write."""


WEIGHTS = {'state_dict': {'weight': torch.ones(1)}}
NOT_ANEW = 'Starting from scratch might overwrite them'

FOLDERS = [
    no_resuming(lambda: cut('epoch_1.pth'), 'epoch_1.pth', 'damaged', NOT_ANEW),
    no_resuming(lambda: cut('epoch_1.pth', 0), 'epoch_1.pth', 'damaged'),
    no_resuming(
        lambda: cut('iter_500.pth'), 'iter_500.pth', 'damaged', '--resume FILE'
    ),
    no_resuming(
        lambda: (cut('epoch_1.pth'), cut('epoch_2.pth')), 'epoch_1.pth', 'epoch_2.pth'
    ),
    no_resuming(
        lambda: Path('epoch_1.pth').write_bytes(bytes(500)), 'epoch_1.pth', 'damaged'
    ),
    no_resuming(
        lambda: Path('epoch_1.pth').write_text('<html>'), 'epoch_1.pth', 'damaged'
    ),
    no_resuming(lambda: link('nowhere'), 'a link to nowhere, which does not exist'),
    no_resuming(lambda: link('epoch_1.pth'), 'is a broken link', 'Too many levels'),
    no_resuming(lambda: os.mkfifo('epoch_1.pth'), 'epoch_1.pth is a pipe'),
    no_resuming(lambda: listen('epoch_1.pth'), 'epoch_1.pth is a socket'),
    no_resuming(lambda: link('/dev/zero'), 'epoch_1.pth is a device'),
    no_resuming(lambda: os.mkdir('epoch_1.pth'), 'epoch_1.pth is a folder'),
    no_resuming(lambda: link('.'), 'epoch_1.pth is a folder'),
    no_resuming(
        lambda: (save('epoch_1.pth'), os.mkdir('epoch_2.pth')),
        'epoch_2.pth is a folder',
    ),
    no_resuming(
        lambda: (save('epoch_1.pth'), save('epoch_2.pth', WEIGHTS)),
        'epoch_2.pth holds no meta, message_hub, optimizer',
    ),
    no_resuming(lambda: save(content=[]), 'epoch_1.pth'),
    no_resuming(lambda: save(content=torch.zeros(2)), 'epoch_1.pth'),
    no_resuming(lambda: save(content=None, optimizer='out'), 'holds no optimizer'),
    no_resuming(lambda: save(message_hub='out'), 'holds no message_hub'),
    no_resuming(lambda: save(message_hub=[1]), 'message_hub must be a dict'),
    no_resuming(lambda: save(state_dict='out'), 'epoch_1.pth', 'state_dict'),
    no_resuming(lambda: save(optimizer=torch.zeros(1)), 'optimizer must be a dict'),
    no_resuming(lambda: save(meta={'iter': 3}), 'meta epoch must be a count'),
    no_resuming(lambda: save(meta={'epoch': 3}), 'meta iter must be a count'),
    no_resuming(
        lambda: save(meta={'epoch': '3', 'iter': None}),
        'meta epoch must be a count',
        "'3'",
    ),
    no_resuming(lambda: save(meta={3: 4}), 'the keys of its meta'),
    no_resuming(lambda: save(optimizer=Foreign()), 'epoch_1.pth', 'Foreign'),
    no_resuming(
        lambda: save('best_score_epoch_3.pth'), 'best_score_epoch_3.pth', NOT_ANEW
    ),
    no_resuming(
        lambda: save('epoch_1.pth'),
        'epoch_1.pth is not named like model_{}.pth',
        templates=['model_{}.pth'],
    ),
    no_resuming(
        lambda: save('best_score_model_3.pt'), 'best_score', templates=['model_{}.pt']
    ),
    no_resuming(
        lambda: cut('epoch_007.pth'), 'epoch_007.pth', templates=['epoch_{:03d}.pth']
    ),
    no_resuming(
        lambda: cut('in/here_1.pth'), 'in/here_1.pth', templates=['in/here_{}.pth']
    ),
    no_resuming(lambda: cut('{1}.pth'), '{1}.pth', templates=['{{{}}}.pth']),
    no_resuming(
        lambda: cut(f'out/{Path.cwd().name}/epoch_1.pth'), 'epoch_1.pth', out_dir='out'
    ),
    no_resuming(
        lambda: (cut('elsewhere/epoch_1.pth'), note(f'{Path.cwd()}/elsewhere/x.pth')),
        'elsewhere/epoch_1.pth',
    ),
    no_resuming(
        lambda: (save('other.pth'), note(f'{Path.cwd()}/other.pth')),
        'other.pth is not named like epoch_{}.pth',
    ),
    no_resuming(
        lambda: note('/x/epoch_1.pth'),
        'last_checkpoint does not name a checkpoint in s3://bucket',
        out_dir='s3://bucket',
    ),
]

FILES = [
    wrong(
        lambda: check_resumable('absent.pth'),
        MissingCheckpointError,
        'absent.pth does not exist',
    ),
    wrong(
        lambda: check_resumable('.'), CheckpointError, '. is a folder, expected a file'
    ),
    wrong(lambda: check_resumable('/dev/zero'), DamagedCheckpointError, 'is a device'),
    wrong(lambda: check_resumable('a\0b'), CheckpointError, "can't be read", 'null'),
    wrong(lambda: check_resumable('a' * 999), CheckpointError, 'File name too long'),
    wrong(
        lambda: (cut('x'), check_resumable('x/y.pth')),
        CheckpointError,
        'Not a directory',
    ),
    wrong(
        lambda: (save('w.pth', WEIGHTS), check_resumable('w.pth')),
        ContentError,
        'leave out --resume and pass --cfg-options load_from=w.pth',
    ),
]


def train(*arguments, **changes):
    """Run tools/train.py on a toy; it ends before anything is built."""
    config = write_config(Path('toy.py'), **changes)
    command('tools/train.py', config, '--work-dir', 'w', *arguments)


def train_with_template(template):
    hook = {'type': 'CheckpointHook', 'filename_tmpl': template}
    train('--resume', default_hooks={'checkpoint': hook})


def train_beside(work_dir):
    with child(lambda: FolderLock(work_dir).acquire()):
        train()


COMMANDS = [
    wrong(
        lambda: train('--resume', 'absent.pth'), SystemExit, 'absent.pth does not exist'
    ),
    wrong(lambda: (os.mkdir('w'), train('--resume', 'w')), SystemExit, 'w is a folder'),
    wrong(
        lambda: (cut('w/epoch_1.pth'), train('--resume')),
        SystemExit,
        'error: no checkpoint in w to resume from',
        'w/epoch_1.pth',
    ),
    wrong(
        lambda: (cut('w/epoch_1.pth'), train('--cfg-options', 'resume=True')),
        SystemExit,
        'w/epoch_1.pth',
        NOT_ANEW,
    ),
    wrong(
        lambda: (
            cut('x/w/epoch_1.pth'),
            train(
                *('--resume', '--cfg-options', 'default_hooks.checkpoint.out_dir=x'),
            ),
        ),
        SystemExit,
        'x/w/epoch_1.pth',
    ),
    *(
        wrong(
            lambda template=template: train_with_template(template),
            SystemExit,
            'default_hooks.checkpoint.filename_tmpl: must be a string with one {}',
            f'got {template!r}',
        )
        for template in ('epoch.pth', 'epoch_{', '{}_{}.pth', 3)
    ),
    wrong(
        lambda: train_beside('w'), SystemExit, 'work_dir', 'another training', 'host'
    ),
    wrong(lambda: (cut('w'), train()), SystemExit, 'work_dir', 'File exists', '/w'),
    wrong(
        lambda: (os.mkdir('w'), os.mkfifo(f'w/{LOCK}'), train()),
        SystemExit,
        f'{LOCK} is not a regular file; remove it',
    ),
    wrong(
        lambda: (os.mkdir('w'), link('../precious', f'w/{LOCK}'), train()),
        SystemExit,
        f'w/{LOCK}',
        "can't be written to",
    ),
]


def match(held, optimizer=torch.optim.AdamW, schedulers=None, names=None):
    """Compare a checkpoint with a small model, its optimizer and its schedulers."""
    model = torch.nn.Linear(3, 2)
    wrapper = OptimWrapper(optimizer(model.parameters(), lr=0.1))
    runner = SimpleNamespace(
        model=model,
        hooks=[],
        optim_wrapper=OptimWrapperDict(**{name: wrapper for name in names})
        if names
        else wrapper,
        param_schedulers=[make(wrapper) for make in schedulers or []],
    )
    held = {
        'state_dict': model.state_dict(),
        'optimizer': wrapper.state_dict(),
        'param_schedulers': [],
        **held,
    }
    ResumeMatchHook('x.pth').after_load_checkpoint(runner, held)


def state(*sizes, **values):
    """Return the state of an optimizer with parameter groups of these sizes."""
    return {
        'state': {},
        'param_groups': [{'params': list(range(n)), **values} for n in sizes],
    }


SGD = dict(momentum=0.9, dampening=0, weight_decay=0)
ADAM = dict(betas=(0.9, 0.99), eps=1e-8, weight_decay=0)
STEPS = [lambda wrapper: MultiStepLR(wrapper.optimizer, [2])]

CONFIGS = [
    wrong(
        lambda: match({'optimizer': state(2, lr=1.0, **SGD)}),
        CheckpointError,
        'x.pth is from a training that the config does not describe',
        'of another type than AdamW: no betas, eps',
    ),
    wrong(
        lambda: match({'optimizer': state(2, lr=1.0, **ADAM)}, torch.optim.SGD),
        CheckpointError,
        'of another type than SGD: no momentum, dampening',
    ),
    *(
        wrong(
            lambda values=values: match(
                {'optimizer': state(2, **{'lr': 1.0, **ADAM, **values})}
            ),
            CheckpointError,
            *('x.pth is from a training that the config does not describe', said),
        )
        for values, said in (
            (
                {'lr': 'x' * 999},
                'lr=' + repr('x' * 999)[:40] + ', expected a value like 0.1',
            ),
            ({'lr': torch.ones(3)}, 'lr=a Tensor, expected a value like 0.1'),
            ({'eps': True}, 'eps=True, expected a value like 1e-08'),
            ({'betas': 0.9}, 'betas=0.9, expected a value like (0.9, 0.999)'),
            ({'betas': (0.9,)}, 'betas=a tuple, expected a value like (0.9, 0.999)'),
        )
    ),
    wrong(
        lambda: match({'optimizer': state(2, lr=1.0, **ADAM)}, torch.optim.RMSprop),
        CheckpointError,
        'of another type than RMSprop: no ',
        'alpha',
    ),
    wrong(
        lambda: match({'optimizer': state(1, 1, lr=1.0, **ADAM)}),
        CheckpointError,
        'had 2 parameters in 2 groups, but by the config has 2 parameters in 1',
    ),
    wrong(
        lambda: match({'optimizer': state(5, lr=1.0, **ADAM)}),
        CheckpointError,
        'had 5 parameters in 1 groups',
        'load_from=x.pth',
    ),
    wrong(
        lambda: match({'optimizer': state()}),
        CheckpointError,
        '0 parameters in 0 groups',
    ),
    wrong(
        lambda: match({'optimizer': {'a': state(2), 'b': state(2)}}),
        CheckpointError,
        'it has several optimizers (a, b), not one',
    ),
    wrong(
        lambda: match({'optimizer': {'a': state(2)}}, names=['a', 'b']),
        CheckpointError,
        'its optimizers are a, the config has a, b',
    ),
    wrong(
        lambda: match({'optimizer': {'a': state(2), 'b': state(3)}}, names=['a', 'b']),
        CheckpointError,
        'optimizer b had 3 parameters',
    ),
    wrong(
        lambda: match(
            {'optimizer': {**state(2, lr=1.0, **ADAM), 'state': {0: dict(exp_avg=3)}}}
        ),
        CheckpointError,
        'has no states of optimizers and schedulers as mmengine writes them',
    ),
    wrong(
        lambda: match({'param_schedulers': [{'last_step': 3}]}, schedulers=STEPS),
        CheckpointError,
        'param_scheduler 0 was of another type than MultiStepLR (its state differs in',
    ),
    wrong(
        lambda: match({'param_schedulers': []}, schedulers=STEPS),
        CheckpointError,
        'it has 0 param_schedulers, but the config has 1',
    ),
    wrong(
        lambda: match({'param_schedulers': {'a': []}}),
        CheckpointError,
        'param_scheduler is for several optimizers in only one of the two',
    ),
    wrong(
        lambda: match({'ema_state_dict': OrderedDict()}),
        CheckpointError,
        'averaged weights (ema_state_dict)',
        'custom_hooks has no EMAHook',
    ),
    wrong(
        lambda: match({'state_dict': {'weight': torch.zeros(2, 3)}}),
        CheckpointError,
        'another model',
        '1 of 2 values are missing (bias)',
    ),
    wrong(
        lambda: match({'state_dict': torch.nn.Linear(3, 4).state_dict()}),
        CheckpointError,
        'weight [4, 3] instead of [2, 3]',
    ),
]

OUTPUTS = [
    wrong(
        lambda: (cut('x'), AtomicLocalBackend().put(b'1', 'x/epoch_1.pth')),
        CheckpointError,
        'x/epoch_1.pth could not be written',
        'continue with --resume',
    ),
    wrong(
        lambda: (os.mkdir('x'), AtomicLocalBackend().put(b'1', 'x')),
        CheckpointError,
        'x could not be written (Is a directory)',
    ),
    wrong(
        lambda: (os.mkdir('x'), write_file('x', b'1')), ConfigError, '--out x: Is a dir'
    ),
    wrong(
        lambda: write_file('a' * 300, b'1'),
        ConfigError,
        '--out aa',
        'File name too long',
    ),
    wrong(
        lambda: (cut('x'), FolderLock('x/y').acquire()),
        ConfigError,
        "can't be written to (Not a directory",
        'choose another by --work-dir',
    ),
]

ROWS = [*FOLDERS, *FILES, *COMMANDS, *CONFIGS, *OUTPUTS]
