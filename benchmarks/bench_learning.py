"""What the arms of learning_trials.py cost beside the plain network, alone.

    python benchmarks/bench_learning.py --data-root data

A row is a step of the training (forward, backward, optimizer) and a prediction in
evaluation with the kernels folded, of the whole detector or segmentor on the first
batches of the task; positions are where they start. Run nothing else meanwhile.
"""

import contextlib
import copy
import logging
import sys
import tempfile
from pathlib import Path

import torch
from common import Report, argument_parser, interleave, progress
from trials.tasks import ARMS, DATA
from trials.train import prepare

from dcls_mm import switch_to_deploy
from dcls_mm.layers.base import ConstructedConvNd

PEER = 'plain'


def build(data, network, arm, data_root, work_dir):
    """Return functions for a step of the training and for a folded prediction."""
    progress(f'{data}, {network}, {arm}')
    runner = prepare(data, network, arm, 0, 1, data_root, work_dir)
    cfg, model = runner.cfg, runner.model
    model.init_weights()
    wrapper = runner.build_optim_wrapper(cfg.optim_wrapper)
    batch, images = (
        next(iter(runner.build_dataloader(cfg[f'{part}_dataloader'], seed=0)))
        for part in ('train', 'val')
    )
    folded = copy.deepcopy(model).eval()
    if any(isinstance(module, ConstructedConvNd) for module in folded.modules()):
        switch_to_deploy(folded)
    model.train()

    @torch.no_grad()
    def predict():
        return folded.test_step(copy.deepcopy(images))

    return lambda: model.train_step(copy.deepcopy(batch), wrapper), predict


def measure(data, network, args):
    """Yield one row per arm."""
    known = [arm for arm in ARMS[network] if arm in args.arms or arm == PEER]
    with (
        tempfile.TemporaryDirectory() as work_dir,
        contextlib.redirect_stdout(sys.stderr),
    ):
        case = args.data_root, work_dir
        built = {arm: build(data, network, arm, *case) for arm in known}
    times = [
        interleave({arm: both[task] for arm, both in built.items()}, args.seconds)
        for task in (0, 1)
    ]
    for arm in known:
        cells = {'arm': arm}
        for name, found in zip(('training step', 'folded prediction'), times):
            cells[f'{name}, ms'] = found[arm]
            cells[f'{name}, ratio'] = found[arm].median / found[PEER].median
        yield cells


def main():
    parser = argument_parser(__doc__, seconds=20.0)
    parser.add_argument('--data', nargs='+', choices=DATA, default=list(DATA))
    parser.add_argument('--networks', nargs='+', choices=ARMS, default=['atto'])
    known = list(dict.fromkeys(arm for arms in ARMS.values() for arm in arms))
    parser.add_argument('--arms', nargs='+', choices=known, default=known)
    parser.add_argument(
        '--data-root',
        type=Path,
        default=Path('data'),
        help='folder with camvid/ and nuclei/ (%(default)s)',
    )
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    if args.quick:
        args.seconds = 0.01
    with Report('The trials', args, memory=False) as report:
        for data in args.data:
            for network in args.networks:
                report.table(f'{data}, {network}')
                for cells in measure(data, network, args):
                    report.row(cells)


if __name__ == '__main__':
    main()
