"""Train configs with several seeds each, and compare the curves of their metrics.

    python benchmarks/compare_configs.py CONFIG CONFIG ... --metrics mIoU

All configs get the same seeds and overrides. The trainings run one after the other,
seed by seed; an interrupted comparison continues when the command is run again. Data
paths are relative to the current folder, as for tools/train.py. Tables go to stdout,
plots of the curves to the work directory.
"""

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

from common import number, progress
from matplotlib.figure import Figure

# Okabe and Ito's palette, which is safe for colour-blind readers.
COLOURS = ['#0072B2', '#E69F00', '#009E73', '#D55E00', '#CC79A7', '#56B4E9', '#000000']

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # dcls_mm, uninstalled
from dcls_mm.visualization import read_curves  # noqa: E402


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('configs', nargs='+', metavar='CONFIG', help='config files')
    parser.add_argument(
        '--metrics',
        nargs='+',
        required=True,
        metavar='KEY',
        help='as logged, such as mIoU or coco/bbox_mAP_50',
    )
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2])
    parser.add_argument(
        '--work-dir',
        type=Path,
        default=Path('work_dirs/compare'),
        help='folder that gets CONFIG/seed-N for each training (%(default)s)',
    )
    parser.add_argument(
        '--cfg-options', nargs='+', default=[], metavar='KEY=VALUE', help='for all'
    )
    args = parser.parse_args()
    if len(args.configs) > len(COLOURS):
        parser.error(f'at most {len(COLOURS)} configs, got {len(args.configs)}')
    names = [Path(config).stem for config in args.configs]
    if len(set(names)) < len(names):
        parser.error(f'configs need different names, got {", ".join(names)}')
    return args


def train(config, seed, work_dir, overrides):
    """Run tools/train.py, which resumes a training that was started before."""
    command = [sys.executable, str(ROOT / 'tools' / 'train.py'), config]
    command += ['--work-dir', str(work_dir), '--resume']
    command += ['--cfg-options', f'randomness.seed={seed}', *overrides]
    work_dir.mkdir(parents=True, exist_ok=True)
    log = work_dir / 'output.log'
    progress(f'{Path(config).stem}, seed {seed}: {log}')
    with log.open('a') as output:
        status = subprocess.run(command, stdout=output, stderr=output).returncode
    if status:
        sys.exit(f'error: tools/train.py ended with status {status}, see {log}')


def main():
    args = parse_args()
    names = [Path(config).stem for config in args.configs]
    folders = {
        (name, seed): args.work_dir / name / f'seed-{seed}'
        for name in names
        for seed in args.seeds
    }
    for seed in args.seeds:
        for name, config in zip(names, args.configs):
            train(config, seed, folders[name, seed], args.cfg_options)
    curves = {key: read_curves(path, args.metrics) for key, path in folders.items()}
    for metric in args.metrics:
        table = {
            name: [dict(curves[name, seed][metric]) for seed in args.seeds]
            for name in names
        }
        print_metric(metric, args.seeds, table)
        draw_metric(metric, table, args.work_dir / f'{metric.replace("/", "_")}.png')


def print_metric(metric, seeds, curves):
    """Print a table: one row per validation, then the last one seed by seed.

    Args:
        metric: heading of the table.
        seeds: in the order of the curves.
        curves: config name -> for each seed, step -> value.
    """
    first, *others = curves
    steps = sorted(curves[first][0])
    header = ['step', *curves]
    rows = [
        [step, *(spread([run[step] for run in curves[name]]) for name in curves)]
        for step in steps
    ]
    last = {name: [run[steps[-1]] for run in curves[name]] for name in curves}
    rows += [
        [f'{steps[-1]}, seed {seed}', *(number(last[name][i]) for name in curves)]
        for i, seed in enumerate(seeds)
    ]
    print(f'\n### {metric}, mean (lowest to highest) of {len(seeds)} seeds\n')
    for cells in (header, ['---', *['---:'] * len(curves)], *rows):
        print('|', ' | '.join(map(str, cells)), '|')
    for name in others:
        differences = [a - b for a, b in zip(last[first], last[name])]
        print(f'\n{first} minus {name}, seed by seed: {spread(differences)}')


def draw_metric(metric, curves, path):
    """Draw the mean of each config's curves, with the range of its seeds as a band."""
    figure = Figure(figsize=(6.4, 4.2), dpi=110, layout='constrained')
    axis = figure.subplots()
    for (name, runs), colour in zip(curves.items(), COLOURS):
        steps = sorted(runs[0])
        values = [[run[step] for run in runs] for step in steps]
        axis.plot(steps, list(map(statistics.mean, values)), color=colour, label=name)
        low, high = list(map(min, values)), list(map(max, values))
        axis.fill_between(steps, low, high, color=colour, alpha=0.2, linewidth=0)
    axis.set(xlabel='step of the training', ylabel=metric)
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3)
    axis.legend(title=f'mean and range of {len(runs)} seeds', fontsize=7)
    figure.savefig(path)


def spread(values):
    low, high = number(min(values)), number(max(values))
    return f'{number(statistics.mean(values))} ({low} to {high})'


if __name__ == '__main__':
    main()
