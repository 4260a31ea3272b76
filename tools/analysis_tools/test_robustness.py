"""Evaluate a checkpoint on corrupted images and print mPC and rPC.

The corruptions are those of ImageNet-C. mPC is the mean performance under corruption,
and rPC is mPC relative to the performance on clean images (arXiv 1907.07484).
"""

import argparse
import sys
from pathlib import Path
from statistics import mean

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # dcls_mm, uninstalled
from dcls_mm.apis import command, robustness  # noqa: E402


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='file, or URL that mmengine knows')
    parser.add_argument(
        '--corruptions',
        nargs='+',
        default=['common'],
        metavar='NAME',
        help='names such as fog, or a group: '
        + ', '.join(robustness.GROUPS)
        + ' (default: common, the 15 of the benchmark)',
    )
    parser.add_argument(
        '--severities',
        nargs='+',
        type=int,
        default=[1, 2, 3, 4, 5],
        metavar='1...5',
        help='severities of the corruptions (default: all five)',
    )
    parser.add_argument(
        '--metrics',
        nargs='+',
        metavar='KEY',
        help='metrics to print, named as in the log (default: AP of boxes and masks, '
        'or mIoU)',
    )
    parser.add_argument('--out', help='JSON file for all metrics of all evaluations')
    parser.add_argument('--work-dir', help='folder for logs')
    command.add_common_arguments(parser)
    return parser.parse_args()


def show(metrics, **options):
    results = robustness.evaluate_corrupted(metrics=metrics, **options)
    for metric in metrics or robustness.usual_metrics(results):
        summary = robustness.summarize(results, metric)
        levels = [str(level) for level in options['severities']]
        print(f'\n### {metric}\n')
        print('| corruption | ' + ' | '.join(levels) + ' | mean |')
        print('| --- |' + ' ---: |' * (len(levels) + 1))
        for name, row in summary['corrupted'].items():
            values = [*(row[level] for level in levels), mean(row.values())]
            print(f'| {name} | ' + ' | '.join(f'{v:.3f}' for v in values) + ' |')
        ratio = 'undefined' if summary['rPC'] is None else f'{summary["rPC"]:.3f}'
        print(f'\nclean {summary["clean"]:.3f}, mPC {summary["mPC"]:.3f}, rPC {ratio}')


if __name__ == '__main__':
    command.run(show, vars(parse_args()))
