"""One training of the trials, in a process of its own: see ``learning_trials.py``."""

import argparse
import json
import platform
import tempfile
from pathlib import Path

import torch
import trials.hooks  # noqa: F401, registers them
from common import processor
from mmcv.cnn.rfsearch import RFSearchHook
from trials.tasks import ARMS, CONFIGS, DATA, settings

from dcls_mm.apis.runner import build_runner
from dcls_mm.apis.train import prepare_train


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('data', choices=DATA)
    parser.add_argument('network', choices=ARMS)
    parser.add_argument('arm')
    parser.add_argument('seed', type=int)
    parser.add_argument('part', type=int)
    parser.add_argument('out', type=Path)
    parser.add_argument('--data-root', type=Path, required=True)
    return parser.parse_args()


def prepare(data, network, arm, seed, part, data_root, work_dir, hooks=()):
    """Return the runner of a training, whose model has its start.

    Args:
        data, network: keys of ``DATA`` and ``ARMS``.
        arm: key of ``ARMS[network]``.
        seed, part: see :func:`trials.tasks.settings`.
        data_root: folder with camvid/ and nuclei/.
        work_dir: folder for what the runner writes.
        hooks: configs of hooks besides the arm's.
    """
    keys = settings(data, network, ARMS[network][arm], seed, part)
    keys['custom_hooks'] = [*keys['custom_hooks'], *hooks]
    root = data_root / data
    for loader in ('train', 'val', 'test'):
        keys[f'{loader}_dataloader.dataset.data_root'] = f'{root}/'
    if data == 'nuclei':
        for evaluator in ('val', 'test'):
            keys[f'{evaluator}_evaluator.ann_file'] = str(root / 'annotations/val.json')
    cfg, notices = prepare_train(
        str(CONFIGS / DATA[data].config), work_dir, cfg_options=keys
    )
    runner = build_runner(cfg, notices, ['train', 'val'])
    searches = [hook for hook in runner.hooks if isinstance(hook, RFSearchHook)]
    if searches:
        runner.model.init_weights()
    for hook in searches:
        hook.init_model(runner.model)
    return runner


def main():
    args = parse_args()
    arm = ARMS[args.network][args.arm]
    about = dict(
        data=args.data,
        network=args.network,
        arm=args.arm,
        layer=arm.layer,
        position_rate=arm.position_rate,
        seed=args.seed,
        part=args.part,
        processor=processor(),
        instructions=torch.backends.cpu.get_cpu_capability(),
        torch=torch.__version__,
        python=platform.python_version(),
        threads=torch.get_num_threads(),
    )
    record = dict(
        type='RecordHook', path=str(args.out), about=json.loads(json.dumps(about))
    )
    task = args.data, args.network, args.arm, args.seed, args.part
    with tempfile.TemporaryDirectory() as work_dir:
        prepare(*task, args.data_root, work_dir, [record]).train()


if __name__ == '__main__':
    main()
