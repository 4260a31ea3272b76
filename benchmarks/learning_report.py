"""Compare the trainings of learning_trials.py, pair by pair of seeds.

    python benchmarks/learning_report.py --figures resources

Tables go to stdout: each arm beside the plain network with the same seed on the same
kind of processor, with a bootstrap interval of the mean difference. Figures show the
metric over steps and over seconds of training.
"""

import argparse
import json
import statistics
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
from trials.tasks import ARMS, DATA  # noqa: E402

RESAMPLES = 10_000


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--results',
        type=Path,
        default=HERE / 'trials' / 'results',
        help='folder of the JSON files (%(default)s)',
    )
    parser.add_argument('--figures', type=Path, help='folder to draw into')
    known = list(dict.fromkeys(arm for arms in ARMS.values() for arm in arms))
    parser.add_argument(
        '--peer',
        choices=known,
        default='plain',
        metavar='ARM',
        help='arm to compare with (%(default)s)',
    )
    return parser.parse_args()


def read_results(folder):
    """Return (data, network, part) -> arm -> (seed, processor) -> result."""
    found = defaultdict(lambda: defaultdict(dict))
    for path in sorted(folder.glob('*.json')):
        result = json.loads(path.read_text())
        key = result['data'], result['network'], result['part']
        pair = result['seed'], result['processor'], result['instructions']
        found[key][result['arm']][pair] = result
    return found


def interval(differences):
    """Return the 95 % bootstrap interval of the mean difference, or None."""
    if len(differences) < 3:
        return None
    random = np.random.default_rng(0)
    drawn = random.choice(differences, (RESAMPLES, len(differences)))
    return np.percentile(drawn.mean(1), [2.5, 97.5])


def last(result, metric):
    return result['validations'][-1][metric]


def signed(value, digits):
    return f'{value:+.{digits}f}'


def print_task(key, arms, peer):
    data, network, part = key
    steps = next(iter(next(iter(arms.values())).values()))['steps']
    print(f'\n## {data}, {network}, {steps} steps\n')
    for metric in DATA[data].metrics:
        digits = 2 if metric == 'mIoU' else 3
        print(f'| arm | seeds | {metric} | minus {peer}, same seeds | step time |')
        print('| --- | ---: | ---: | ---: | ---: |')
        for arm in [name for name in ARMS[network] if name in arms]:
            print_arm(arm, arms[arm], arms.get(peer, {}), metric, digits)
        print()


def print_arm(name, results, peers, metric, digits):
    pairs = [pair for pair in results if pair in peers]
    values = [last(result, metric) for result in results.values()]
    mean = f'{statistics.mean(values):.{digits}f}'
    if len(values) > 1:
        mean += f' ({min(values):.{digits}f} to {max(values):.{digits}f})'
    difference = time = '-'
    if pairs:
        each = [last(results[p], metric) - last(peers[p], metric) for p in pairs]
        difference = signed(statistics.mean(each), digits)
        bounds = interval(each)
        if bounds is not None:
            low, high = (signed(bound, digits) for bound in bounds)
            difference += f' [{low}, {high}]'
        times = [results[p]['step_seconds'] / peers[p]['step_seconds'] for p in pairs]
        time = f'{statistics.median(times):.2f}'
    print(f'| {name} | {len(values)} | {mean} | {difference} | {time} |')


def print_positions(arms):
    """Print where positions ended, per stage or layer, as means over the seeds."""
    print('| arm | layer | extent | count | spread | occupied | travel | crowded |')
    print('| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |')
    for arm, results in arms.items():
        layers = defaultdict(list)
        for result in results.values():
            for layer in result['positions']:
                layers[layer['layer']].append(layer)
        for name, found in layers.items():

            def mean(key, digits=1, found=found):
                values = [one[key] for one in found if one[key] is not None]
                return f'{statistics.mean(values):.{digits}f}' if values else '-'

            extent = 'x'.join(map(str, found[0]['extent']))
            print(
                f'| {arm} | {name} | {extent} | {mean("count", 0)} | '
                f'{mean("spread", 2)} | {mean("held_extent")} | {mean("travel", 2)} | '
                f'{mean("crowded", 2)} |'
            )
    print()


def draw_task(key, arms, path):
    """Draw the first metric over steps and over seconds, with the range of seeds."""
    metric = DATA[key[0]].metrics[0]
    figure = Figure(figsize=(10, 4.2), dpi=110, layout='constrained')
    axes = figure.subplots(1, 2, sharey=True)
    for number, (arm, results) in enumerate(arms.items()):
        colour = f'C{number % 10}'
        style = ('-', '--', ':')[number // 10]
        for axis, unit in zip(axes, ('step', 'seconds')):
            runs = [result['validations'] for result in results.values()]
            runs = [run for run in runs if len(run) == len(runs[0])]
            at = np.mean([[one[unit] for one in run] for run in runs], axis=0)
            values = np.array([[one[metric] for one in run] for run in runs])
            axis.plot(at, values.mean(0), style, color=colour, label=arm, marker='.')
            axis.fill_between(
                at, values.min(0), values.max(0), color=colour, alpha=0.12, linewidth=0
            )
            axis.set_xlabel('step of the training' if unit == 'step' else unit)
            axis.grid(alpha=0.3)
    axes[0].set_ylabel(metric)
    axes[1].legend(fontsize=7, title='mean and range of seeds')
    figure.savefig(path)


def main():
    args = parse_args()
    found = read_results(args.results)
    if not found:
        sys.exit(f'error: no results in {args.results}: run learning_trials.py first')
    for key, arms in sorted(found.items()):
        print_task(key, arms, args.peer)
        print_positions(arms)
        if args.figures:
            args.figures.mkdir(parents=True, exist_ok=True)
            name = f'learning_{key[0]}_{key[1]}_part{key[2]}.png'
            draw_task(key, arms, args.figures / name)


if __name__ == '__main__':
    main()
