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
    keys = settings(args.data, args.network, arm, args.seed, args.part)
    record = dict(
        type='RecordHook', path=str(args.out), about=json.loads(json.dumps(about))
    )
    keys['custom_hooks'] = [*keys['custom_hooks'], record]
    root = args.data_root / args.data
    for loader in ('train', 'val', 'test'):
        keys[f'{loader}_dataloader.dataset.data_root'] = f'{root}/'
    if args.data == 'nuclei':
        for evaluator in ('val', 'test'):
            keys[f'{evaluator}_evaluator.ann_file'] = str(root / 'annotations/val.json')
    with tempfile.TemporaryDirectory() as work_dir:
        cfg, notices = prepare_train(
            str(CONFIGS / DATA[args.data].config), work_dir, cfg_options=keys
        )
        runner = build_runner(cfg, notices, ['train', 'val'])
        for hook in runner.hooks:
            if isinstance(hook, RFSearchHook):
                runner.model.init_weights()
                hook.init_model(runner.model)
        runner.train()


if __name__ == '__main__':
    main()
