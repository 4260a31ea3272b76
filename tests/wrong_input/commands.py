"""Wrong options of the commands in tools/."""

import torch
from small_data import detector, segmentor, write, write_coco, write_labels

from . import command, wrong


def train(*arguments, **changes):
    """Run tools/train.py on a detector's config."""
    write_coco(images=1)
    command('tools/train.py', write(detector(**changes)), *arguments)


def test(*arguments, make=detector, **changes):
    """Run tools/test.py on a config."""
    write_coco(images=1)
    write_labels(images=1)
    torch.save({}, 'x.pth')
    command('tools/test.py', write(make(**changes)), 'x.pth', *arguments)


ROWS = [
    wrong(
        lambda: command('tools/test.py', 'absent.py', 'absent.pth'),
        SystemExit,
        'error: checkpoint absent.pth does not exist',
    ),
    wrong(
        lambda: command('tools/test.py', 'absent.py', 'a.pth', '--cfg-options', 'foo'),
        SystemExit,
        "expected KEY=VALUE, got 'foo'",
    ),
    wrong(
        lambda: command('tools/train.py'),
        SystemExit,
        'status 2',
        'the following arguments are required: config',
    ),
    wrong(
        lambda: command('tools/train.py', 'absent.py'),
        SystemExit,
        'error: config absent.py does not exist',
    ),
    wrong(
        lambda: command('tools/train.py', '.'),
        SystemExit,
        'error: config . does not exist',
    ),
    wrong(
        lambda: train('--launcher', 'torchrun'),
        SystemExit,
        "invalid choice: 'torchrun'",
        'pytorch',
    ),
    wrong(
        lambda: train('--launcher', 'pytorch'),
        SystemExit,
        'error: --launcher pytorch: the environment has no RANK, WORLD_SIZE',
        'start the processes by torchrun',
    ),
    wrong(
        lambda: train('--launcher', 'slurm'),
        SystemExit,
        'error: --launcher slurm: needs a GPU',
    ),
    wrong(
        lambda: train('--amp'),
        SystemExit,
        'error: --amp: mixed precision needs a GPU',
    ),
    wrong(
        lambda: train('--auto-scale-lr'),
        SystemExit,
        'error: --auto-scale-lr: the config has no auto_scale_lr.base_batch_size',
    ),
    wrong(
        lambda: train('--cfg-options', 'custom_hooks.0.type=X'),
        SystemExit,
        'error: --cfg-options custom_hooks.0.type: the config has no custom_hooks',
    ),
    wrong(
        lambda: train('--cfg-options', 'model.bbox_head.num_classes=80'),
        SystemExit,
        'error: model.bbox_head.num_classes is 80, but',
    ),
    wrong(
        lambda: train(
            '--cfg-options', 'train_dataloader.dataset.metainfo.classes=disc'
        ),
        SystemExit,
        "metainfo.classes must be a tuple of names, got the string 'disc'",
    ),
    wrong(
        lambda: train(
            '--cfg-options', 'train_dataloader.dataset.metainfo.classes=disc,rang,box'
        ),
        SystemExit,
        "data/ann.json has no 'rang' (did you mean 'ring'?)",
    ),
    wrong(
        lambda: train('--cfg-options', 'train_dataloader.dataset.data_root=else'),
        SystemExit,
        "error: train_dataloader.dataset.data_root: 'else' does not exist",
    ),
    wrong(
        lambda: train('--cfg-options', 'train_dataloader.num_workers=-1'),
        SystemExit,
        'error: train_dataloader.num_workers must be an integer of at least 0, got -1',
    ),
    wrong(
        lambda: train('--cfg-options', 'optim_wrapper=None'),
        SystemExit,
        'error: the config has no optim_wrapper, so it is not for training',
    ),
    wrong(
        lambda: test('--cfg-options', 'test_evaluator=None'),
        SystemExit,
        'error: the config has no test_evaluator, so it is not for testing',
    ),
    wrong(
        lambda: test('--out', 'folder'),
        SystemExit,
        'error: --out folder: detections go into one file, whose name must end in .pkl',
    ),
    wrong(
        lambda: test('--out', 'maps.pkl', make=segmentor),
        SystemExit,
        'error: --out maps.pkl: must be the name of a folder',
    ),
    wrong(
        lambda: test('--show-dir', 'shown'),
        SystemExit,
        'error: --show and --show-dir need default_hooks.visualization',
    ),
    wrong(
        lambda: test('--tta', make=segmentor),
        SystemExit,
        'error: --tta: the config has no tta_model and no tta_pipeline',
    ),
    wrong(
        lambda: test('--wait-time', 'long'),
        SystemExit,
        "argument --wait-time: invalid float value: 'long'",
    ),
    wrong(
        lambda: test(make=segmentor, count=5),
        SystemExit,
        'error: model.decode_head.num_classes is 5, but test_dataloader.dataset.',
    ),
]
