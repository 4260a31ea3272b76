"""Train what learns where its weights sit beside what doesn't, with several seeds.

    python benchmarks/learning_trials.py --data-root data --part 3 --seeds 0
    python benchmarks/learning_trials.py --data-root data --arms plain even --seeds 0 1

Each training is a process of one thread, and two run side by side. A finished training
is a JSON file in the folder of results; it is not run again, so an interrupted command
goes on when it is given again. Compare only results of one kind of processor.
"""

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
from common import progress  # noqa: E402
from trials.tasks import ARMS, DATA  # noqa: E402


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--data', nargs='+', choices=DATA, default=list(DATA))
    parser.add_argument('--networks', nargs='+', choices=ARMS, default=['atto'])
    known = list(dict.fromkeys(arm for arms in ARMS.values() for arm in arms))
    parser.add_argument('--arms', nargs='+', choices=known, default=known)
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument(
        '--part',
        type=int,
        default=1,
        metavar='N',
        help='train for an Nth of the full length (%(default)s)',
    )
    parser.add_argument(
        '--data-root',
        type=Path,
        default=Path('data'),
        help='folder with camvid/ and nuclei/ (%(default)s)',
    )
    parser.add_argument(
        '--results',
        type=Path,
        default=HERE / 'trials' / 'results',
        help='folder of the JSON files (%(default)s)',
    )
    parser.add_argument('--logs', type=Path, default=Path('work_dirs/trials'))
    parser.add_argument('--workers', type=int, default=os.cpu_count())
    return parser.parse_args()


def train(out, log, options):
    """Run one training, unless its result is there; return whether it failed."""
    if out.exists():
        return False
    progress(f'{out.stem}: {log}')
    command = [sys.executable, '-m', 'trials.train', *map(str, options)]
    paths = (HERE, HERE.parent, os.environ.get('PYTHONPATH'))
    environment = {
        **os.environ,
        'OMP_NUM_THREADS': '1',
        'PYTHONPATH': os.pathsep.join(str(path) for path in paths if path),
    }
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open('w') as output:
        ended = subprocess.run(command, stdout=output, stderr=output, env=environment)
    if ended.returncode:
        progress(f'{out.stem} FAILED with status {ended.returncode}: {log}')
    return ended.returncode != 0


def main():
    args = parse_args()
    jobs = []
    for seed, arm, data, network in product(
        args.seeds, args.arms, args.data, args.networks
    ):
        if arm not in ARMS[network]:
            continue
        name = f'{data}_{network}_{arm}_part{args.part}_seed{seed}'
        out = (args.results / f'{name}.json').resolve()
        options = [data, network, arm, seed, args.part, out]
        options += ['--data-root', args.data_root.resolve()]
        jobs.append((out, (args.logs / f'{name}.log').resolve(), options))
    with ThreadPoolExecutor(args.workers) as pool:
        failed = sum(pool.map(lambda job: train(*job), jobs))
    if failed:
        sys.exit(f'error: {failed} of {len(jobs)} trainings failed')


if __name__ == '__main__':
    main()
