"""Everything that a GPU has to show: correctness, timings and the best launch plans.

It needs torch, triton, pytest, hypothesis and numpy, not OpenMMLab, and takes less than
eight minutes on an H100. The stages run in the order of their worth, each in a process
of its own. After each of them the JSON is written, so a run that is stopped leaves what
it had. `tables.py` makes the tables of RESULTS-GPU.md from it. The exit status is 1 if
a test or a stage failed.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import paths
import torch
from cases import NETWORKS
from common import print_list, progress
from device import Gpu, Rehearsal
from results import write


class Stage(NamedTuple):
    """A module that measures, what --only calls it, and the seconds that it may take.

    It starts no further case once its time is up. ``GRACE`` seconds later it is killed.
    """

    module: str
    group: str
    limit: float


STAGES = [
    Stage('correctness', 'correctness', 140),
    Stage('convolutions', 'timings', 75),
    Stage('backbones', 'timings', 70),
    Stage('layers', 'timings', 30),
    Stage('constructions', 'timings', 20),
    Stage('plans', 'tune', 90),
]
GRACE = 30

NO_GPU = (
    'There is no CUDA device that torch can use: run this on a machine with an NVIDIA '
    'GPU and a CUDA build of torch, or with --rehearse to try the script on a CPU.'
)


def main() -> int:
    args = _arguments()
    if not args.rehearse and not torch.cuda.is_available():
        print(NO_GPU, file=sys.stderr)
        return 2
    if args.rehearse:  # in all processes, before they import triton
        os.environ |= {'TRITON_INTERPRET': '1', 'DCLS_MM_REHEARSAL': '1'}
    content: dict[str, Any] = dict(
        title='A run on a GPU',
        rehearsal=args.rehearse,
        head=(Rehearsal if args.rehearse else Gpu).describe(),
        commit=_commit(),
        stages=[],
    )
    print(f'# {content["title"]}\n')
    print_list(content['head'])
    started = time.monotonic()
    for stage in STAGES:
        if args.only in (None, stage.group):
            content['stages'].append(_run(stage, args))
            write(args.out, content)
    failed = [
        f'{stage["name"]}: {failure["what"]}'
        for stage in content['stages']
        for failure in stage['failures']
    ]
    print(f'\n{time.monotonic() - started:.0f} seconds; all figures: {args.out}')
    print(f'{len(failed)} failures', *failed, sep='\n- ')
    return 1 if failed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    groups = list(dict.fromkeys(stage.group for stage in STAGES))
    parser.add_argument('--only', choices=groups, help='leave the other stages out')
    parser.add_argument(
        '--quick', action='store_true', help='one shape of each kind (3 minutes)'
    )
    parser.add_argument(
        '--out', type=Path, default=Path('gpu.json'), help='(%(default)s)'
    )
    parser.add_argument(
        '--backbone', choices=list(NETWORKS), default='tiny', help='(%(default)s)'
    )
    parser.add_argument(
        '--seconds',
        type=float,
        default=0.1,
        help='time to spend per function and case (%(default)s)',
    )
    parser.add_argument(
        '--rehearse',
        action='store_true',
        help='tiny cases on a CPU, to see that it runs; the figures mean nothing',
    )
    args = parser.parse_args()
    if args.rehearse:
        args.backbone = 'rehearsal'
    return args


def _run(stage: Stage, args: argparse.Namespace) -> dict[str, Any]:
    """Run a stage in a process of its own; return what it wrote and how it ended."""
    print(f'\n## {stage.module}', flush=True)
    started = time.monotonic()
    with TemporaryDirectory() as folder:
        out = Path(folder) / 'stage.json'
        command = [sys.executable, paths.HERE / 'stage.py', stage.module, '--out', out]
        for name in ('seconds', 'backbone'):
            command += [f'--{name}', str(getattr(args, name))]
        command += ['--limit', str(stage.limit)]
        command += [f'--{n}' for n in ('quick', 'rehearse') if getattr(args, n)]
        # In a group of its own, so that killing it ends what it has started too.
        process = subprocess.Popen(command, start_new_session=True)
        try:
            ended = f'with status {process.wait(stage.limit + GRACE)}'
        except subprocess.TimeoutExpired:
            ended = f'killed after {stage.limit + GRACE:.0f} seconds'
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        content = dict(tables=[], facts={}, failures=[], left_out=[])
        if out.exists():
            content = json.loads(out.read_text())
    if process.returncode:
        content['failures'].append(dict(what=stage.module, why=f'It ended {ended}.'))
    seconds = time.monotonic() - started
    progress(f'{stage.module} took {seconds:.0f} seconds')
    return dict(name=stage.module, seconds=seconds, **content)


def _commit() -> str:
    command = ['git', 'describe', '--always', '--dirty']
    try:
        done = subprocess.run(
            command, cwd=paths.ROOT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return 'unknown'
    return done.stdout.strip()


if __name__ == '__main__':
    sys.exit(main())
