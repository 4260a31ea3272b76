"""Train and evaluate a small detector or segmentor on drawn scenes."""

import argparse
import functools
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # dcls_mm, uninstalled
import mmcv  # noqa: E402
from mmengine.config import Config  # noqa: E402

from dcls_mm.apis.outputs import write_picture  # noqa: E402
from dcls_mm.checkpoint import CheckpointError  # noqa: E402
from dcls_mm.checkpoint.resumable import find_resumable  # noqa: E402
from dcls_mm.visualization import (  # noqa: E402
    draw_contact_sheet,
    draw_curves,
    read_curves,
)

SCENES = [
    dict(split='train', count=800, seed=0),
    dict(split='val', count=100, seed=2),
    # To look at: scenes like the first of 'val', with more pixels.
    dict(split='shown', count=8, seed=2, size=640),
]
LEAST_SCORE = 0.5  # of the detections that are drawn


class Demo(NamedTuple):
    """What differs between the demos.

    metrics: key in the log -> name; shown: what to override in the config to draw the
    scenes to look at; prediction: the heading of a prediction.
    """

    title: str
    config: str
    work_dir: Path
    metrics: dict
    unit: str
    shown: dict
    prediction: str


DEMOS = {
    'det': Demo(
        'Cascade Mask R-CNN with ConvNeXt-dcls',
        'configs/demo/cascade-mask-rcnn_convnext-dcls-demo_fpn_shapes.py',
        Path('work_dirs/demo'),
        {
            'coco/bbox_mAP_50': 'box AP50',
            'coco/segm_mAP_50': 'mask AP50',
            'coco/bbox_mAP': 'box AP',
            'coco/segm_mAP': 'mask AP',
        },
        'average precision, 0 to 1',
        {
            'test_dataloader.dataset.ann_file': 'annotations/shown.json',
            'test_dataloader.dataset.data_prefix.img': 'images/shown/',
            'visualizer.line_width': 2,
        },
        f'predicted, scores from {LEAST_SCORE:.0%}',
    ),
    'seg': Demo(
        'UperNet with ConvNeXt-dcls',
        'configs/demo/upernet_convnext-dcls-demo_shapes.py',
        Path('work_dirs/demo-seg'),
        {'mIoU': 'mIoU', 'mAcc': 'mAcc', 'aAcc': 'aAcc'},
        'percent',
        {
            'test_dataloader.dataset.data_prefix.img_path': 'images/shown',
            'test_dataloader.dataset.data_prefix.seg_map_path': 'labels/shown',
        },
        'predicted',
    ),
}


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('demo', choices=list(DEMOS), help='detector or segmentor')
    parser.add_argument(
        '--fresh', action='store_true', help='first remove what an earlier run left'
    )
    return parser.parse_args()


def run_tool(name, *arguments):
    """Run a script of tools/ as a user would, and exit if it fails."""
    command = [sys.executable, f'tools/{name}', *map(str, arguments)]
    print('$ python', *command[1:], flush=True)
    status = subprocess.run(command, cwd=ROOT).returncode
    if status:
        sys.exit(f'demo: tools/{name} ended with status {status}; see above')


def draw_scenes(demo):
    root = Config.fromfile(ROOT / demo.config).data_root
    for part in SCENES:
        options = [f'--{key}={value}' for key, value in part.items()]
        run_tool('dataset_converters/draw_shapes.py', root, *options)


def train(demo):
    config = Config.fromfile(ROOT / demo.config)
    done, _ = find_resumable(str(ROOT / demo.work_dir))
    if done and Path(done).name == f'epoch_{config.train_cfg.max_epochs}.pth':
        print(f'already trained: {done} (start over with --fresh)')
        return
    run_tool('train.py', demo.config, '--work-dir', demo.work_dir, '--resume')


def evaluate(demo):
    shutil.rmtree(ROOT / demo.work_dir / 'test', ignore_errors=True)
    folder = demo.work_dir / 'test'
    run_tool('test.py', demo.config, last_checkpoint(demo), '--work-dir', folder)


def last_checkpoint(demo):
    return find_resumable(str(ROOT / demo.work_dir))[0]


def draw_results(demo):
    folder = ROOT / demo.work_dir
    shutil.rmtree(folder / 'predictions', ignore_errors=True)
    model = (demo.config, last_checkpoint(demo), '--out')
    draw = functools.partial(run_tool, 'analysis_tools/visualize.py')
    draw('kernels', *model, demo.work_dir / 'kernels.png', '--columns', 16)
    options = [f'{key}={value}' for key, value in demo.shown.items()]
    limits = ['--names', demo.prediction, '--score-threshold', LEAST_SCORE]
    predictions = [*model, demo.work_dir / 'predictions', *limits]
    draw('predictions', *predictions, '--cfg-options', *options)
    curves = read_curves(folder, list(demo.metrics))
    named = {demo.metrics[key]: curve for key, curve in curves.items()}
    curve = draw_curves(named, f'{demo.title}, validation', y_label=demo.unit)
    write_picture(folder / 'metrics.png', curve)
    files = sorted((folder / 'predictions').iterdir())
    first, second, third = (read(file) for file in files[:3])
    kernels = read(folder / 'kernels.png')
    sheet = draw_contact_sheet([[first, second], [third, curve], [kernels]])
    write_picture(folder / 'overview.png', sheet)


def read(picture):
    return mmcv.imread(str(picture), channel_order='rgb')


STAGES = {
    'scenes': draw_scenes,
    'training': train,
    'evaluation on unseen scenes': evaluate,
    'pictures': draw_results,
}


def report(demo):
    (log,) = (ROOT / demo.work_dir / 'test').glob('*/*.json')
    values = json.loads(log.read_text())
    print(f'\n{demo.title}, on {SCENES[1]["count"]} unseen scenes:')
    for key, name in demo.metrics.items():
        print(f'  {name:<10} {values[key]:7.3f}')
    print(f'({demo.unit})\n')
    for what, where in {
        'predictions': 'predictions',
        'metric curve': 'metrics.png',
        'learned kernels': 'kernels.png',
        'checkpoints, logs': '',
    }.items():
        print(f'  {what:<18} {demo.work_dir / where}')
    print(f'\nThe picture to open: {demo.work_dir / "overview.png"}')


def main():
    args = parse_args()
    demo = DEMOS[args.demo]
    if args.fresh:
        shutil.rmtree(ROOT / demo.work_dir, ignore_errors=True)
    print(f'{demo.title}: 5 to 10 minutes on two CPU cores; stop and resume at will.')
    try:
        for number, (name, stage) in enumerate(STAGES.items(), 1):
            print(f'\n[{number}/{len(STAGES)}] {name}', flush=True)
            start = time.monotonic()
            stage(demo)
            print(f'[{number}/{len(STAGES)}] {time.monotonic() - start:.0f} s')
    except KeyboardInterrupt:
        sys.exit('\ndemo: interrupted; run the same command again to continue')
    except CheckpointError as error:
        sys.exit(f'demo: {error}; or start over with --fresh')
    report(demo)


if __name__ == '__main__':
    main()
