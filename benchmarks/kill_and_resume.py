"""Kill a training at random moments, resume it, and compare it with an undisturbed one.

    python benchmarks/kill_and_resume.py --kills 20

A small UperNet with ConvNeXt-dcls is trained on drawn scenes, with workers, averaged
weights and drop path. Every other SIGKILL comes at a random time after the start, the
others while a checkpoint is being written. The exit status is 1 if the losses or
weights of the resumed training differ from those of the undisturbed one.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # dcls_mm, uninstalled
import mmseg.datasets  # noqa: E402
import mmseg.engine  # noqa: E402
import mmseg.evaluation  # noqa: E402
import mmseg.models  # noqa: E402
import mmseg.visualization  # noqa: E402, F401
from mmengine.config import Config  # noqa: E402

from dcls_mm.apis import train  # noqa: E402
from dcls_mm.checkpoint import read_checkpoint  # noqa: E402
from dcls_mm.checkpoint.resumable import find_resumable  # noqa: E402
from dcls_mm.datasets import write_scenes  # noqa: E402
from dcls_mm.visualization import read_curves  # noqa: E402

DEMO = ROOT / 'configs' / 'demo' / 'upernet_convnext-dcls-demo_shapes.py'
SIZE = 64
LONGEST_LIFE = 6.0  # seconds, at most, until a training is killed


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--kills', type=int, default=20)
    parser.add_argument('--epochs', type=int, default=60)
    parser.add_argument('--seed', type=int, default=0, help='of the random moments')
    return parser.parse_args()


def write_config(folder, epochs):
    list(write_scenes(str(folder), split='train', count=16, seed=0, size=SIZE))
    cfg = Config.fromfile(DEMO)
    model = cfg.model
    model.data_preprocessor.size = (SIZE, SIZE)
    dims = [8, 16, 24, 32]
    model.backbone.update(arch=dict(depths=[1, 1, 2, 1], dims=dims), drop_path_rate=0.2)
    model.decode_head.update(in_channels=dims, channels=16)
    model.auxiliary_head.update(in_channels=dims[2], channels=16)
    cfg.train_dataloader.update(batch_size=4, persistent_workers=False)
    cfg.train_dataloader.dataset.data_root = str(folder)
    cfg.train_cfg = dict(by_epoch=True, max_epochs=epochs)
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.param_scheduler[1].update(T_max=epochs, end=epochs)
    cfg.default_hooks.checkpoint.update(interval=1, max_keep_ckpts=2, by_epoch=True)
    cfg.default_hooks.logger.interval = 1
    cfg.log_processor.window_size = 1
    cfg.custom_hooks = [
        dict(type='EpochSeedHook'),
        dict(type='ClampPositionsHook'),
        dict(type='EMAHook'),
    ]
    path = folder / 'config.py'
    cfg.dump(path)
    return str(path)


def start(config, work_dir):
    """Start a training in its own process group; forking saves the slow imports."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setsid()
            work_dir.mkdir(exist_ok=True)
            output = os.open(
                work_dir / 'output.log', os.O_WRONLY | os.O_CREAT | os.O_APPEND
            )
            os.dup2(output, 1)
            os.dup2(output, 2)
            train.train(config=config, work_dir=str(work_dir), resume='auto')
            status = 0
        finally:
            os._exit(status)
    return child


def has_ended(child):
    return os.waitpid(child, os.WNOHANG)[0] == child


def kill(child, work_dir, life, while_writing):
    """Kill the group after ``life`` seconds, or later, when a file is unfinished.

    Return the moment, or None if the training ended first.
    """
    begun = time.monotonic()
    while True:
        if has_ended(child):
            return None
        lived = time.monotonic() - begun
        partial = any(work_dir.glob('.dcls_mm-*.unfinished'))
        if lived > life and (partial or not while_writing):
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return f'{lived:.1f} s' + (', writing a checkpoint' if partial else '')
        time.sleep(0.0005)


def run_killed(config, work_dir, kills, generator):
    """Kill and resume, printing one row per kill; exit if a checkpoint is damaged."""
    print('| kill | after | files left | resumes from |')
    print('| ---: | --- | --- | --- |')
    for number in range(1, kills + 1):
        child = start(config, work_dir)
        moment = kill(
            child, work_dir, generator.uniform(0, LONGEST_LIFE), number % 2 == 0
        )
        if moment is None:  # finished: train again from the start
            print(f'| {number} | had ended | | the start |')
            for path in work_dir.glob('*.pth'):
                path.unlink()
            continue
        files = ', '.join(sorted(path.name for path in work_dir.glob('*.pth')))
        found, skipped = find_resumable(str(work_dir))
        name = Path(found).name if found else 'the start'
        print(f'| {number} | {moment} | {files} | {name} |', flush=True)
        if skipped:
            sys.exit(f'error: a checkpoint was not whole: {skipped}')
    finish(config, work_dir)


def finish(config, work_dir):
    child = start(config, work_dir)
    _, status = os.waitpid(child, 0)
    if status:
        sys.exit(f'error: the training failed, see {work_dir}/output.log')


def largest_differences(alone, killed, epochs):
    losses = [dict(read_curves(folder, ['loss'])['loss']) for folder in (alone, killed)]
    if losses[0].keys() != losses[1].keys():
        sys.exit('error: the two trainings logged different iterations')
    loss = max(abs(losses[0][step] - losses[1][step]) for step in losses[0])
    last = [
        read_checkpoint(str(folder / f'epoch_{epochs}.pth'))
        for folder in (alone, killed)
    ]
    weights = max(
        (last[0][part][key].double() - last[1][part][key].double()).abs().max().item()
        for part in ('state_dict', 'ema_state_dict')
        for key in last[0][part]
    )
    return len(losses[0]), loss, weights


def main():
    args = parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = write_config(folder, args.epochs)
        finish(config, folder / 'alone')
        run_killed(config, folder / 'killed', args.kills, random.Random(args.seed))
        steps, loss, weights = largest_differences(
            folder / 'alone', folder / 'killed', args.epochs
        )
    print(f'\nlargest difference of {steps} losses: {loss:.3g}')
    print(f'largest difference of a weight, averaged ones included: {weights:.3g}')
    sys.exit(loss > 1e-5 or weights > 1e-5)


if __name__ == '__main__':
    main()
