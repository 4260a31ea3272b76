"""Read checkpoints drawn as an attacker might write them.

    python benchmarks/fuzz_checkpoints.py --minutes 60

Each file must give plain data or be refused with a CheckpointError. Reading it must not
run, import, open or write anything, create objects of unknown types, miss a flipped bit
in the values, crash, or take much time or memory. A separate process reads the files
and is restarted when it dies. The exit status is 1 if any file broke these rules;
``--only NUMBER`` reads that file again.
"""

import argparse
import codecs
import copy
import math
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter, OrderedDict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# dcls_mm, uninstalled. PYTHONPATH comes first, so that an older version can be tried.
sys.path.append(str(ROOT))

SECONDS = 20  # per file
MEMORY = 2 << 30  # bytes that reading a file may add
CHUNK = 20_000  # files per process
SHOWN = 40  # kinds of faults
KIND = 45  # leading characters that identify a kind

ANNEALING = ('_annealing_cos', '_annealing_linear')
HARMLESS_EVENTS = ('object.__', 'sys._getframe', 'array.__new__', 'gc.', 'builtins.id')


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--minutes', type=float, default=1.0)
    parser.add_argument('--examples', type=int, help='how many, instead of --minutes')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--only', type=int, metavar='NUMBER', help='this file alone')
    parser.add_argument('--worker', nargs=4, help=argparse.SUPPRESS)
    return parser.parse_args()


class Watch:
    """An audit hook that notes what the process does while it reads."""

    def __init__(self, path):
        self.path = str(path)
        self.armed = False
        self.seen = []
        sys.addaudithook(self)

    def __call__(self, event, arguments):
        if not self.armed or event.startswith(HARMLESS_EVENTS):
            return
        if event == 'open' and str(arguments[0]) == self.path:
            return
        self.seen.append(f'{event} {arguments!r:.200}')


def plain_types():
    import numpy as np
    import torch
    from mmengine.logging import HistoryBuffer

    numbers = {np.dtype(code).type for code in '?bhilqBHILQefd'}
    return numbers | {
        *(type(None), bool, int, float, complex, str, bytes, list, tuple, dict, set),
        *(OrderedDict, Counter, argparse.Namespace, np.ndarray, HistoryBuffer),
        *(torch.Tensor, torch.nn.Parameter, torch.Size, torch.dtype, torch.device),
        type(np.dtype('f8')),
        *(type(np.dtype(code)) for code in '?bhilqBHILQefd'),
    }


def faults(value, known):
    """Return what is not plain in a value, judging by exact types alone."""
    found, todo, seen = [], [value], set()
    while todo:
        item = todo.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        kind = type(item)
        if (
            kind not in known
            and getattr(item, '__qualname__', '').find('_annealing') < 0
        ):
            found.append(f'an object of {kind.__module__}.{kind.__qualname__}')
        elif kind in (list, tuple, set):
            todo.extend(item)
        elif kind in (dict, OrderedDict, Counter):
            todo += [*dict.keys(item), *dict.values(item)]
        if kind in (OrderedDict, Counter) and set(vars(item)) - {'_metadata'}:
            found.append(f'{kind.__name__} with attributes {set(vars(item))}')
        if kind.__name__ == 'HistoryBuffer':
            todo += [*item.data, item.max_length]
    return found


def use(checkpoint):
    """Touch all values, as resuming a training does."""
    import torch

    again = copy.deepcopy(checkpoint)
    todo, seen = [again], set()
    while todo:
        item = todo.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, dict):
            todo.extend(item.values())
        elif isinstance(item, (list, tuple)):
            todo.extend(item)
        elif isinstance(item, torch.Tensor):
            item.detach().clone().sum()
        elif type(item).__name__ == 'ndarray':
            item.copy().sum()
    meta = again.get('meta') if isinstance(again, dict) else None
    if isinstance(meta, dict) and 'config' in meta:
        return ["meta['config'], which Runner.resume runs"]
    return []


def same_values(checkpoint, expected):
    import torch

    weights = checkpoint['state_dict']
    moments = checkpoint['optimizer']['state'][0]
    return (
        all(torch.equal(weights[k], v) for k, v in expected['state_dict'].items())
        and torch.equal(
            moments['exp_avg'], expected['optimizer']['state'][0]['exp_avg']
        )
        and checkpoint['meta'] == expected['meta']
    )


def look_at(checkpoint, known, expected):
    """Return what is wrong with what was read."""
    found = faults(checkpoint, known)
    try:
        found += use(checkpoint)
        if expected is not None and not same_values(checkpoint, expected):
            found.append('turned bits that went unnoticed')
    except Exception as error:
        found.append(f'use ended in {type(error).__name__}: {error!s:.100}')
    return found


def work(folder, seed, first, count, seconds):
    """Read files in this process; write the current number and what was wrong."""
    import checkpoint_grammar

    import dcls_mm  # noqa: F401
    from dcls_mm.checkpoint import CheckpointError, read_checkpoint

    warnings.simplefilter('ignore')
    canary, path = folder / 'canary', folder / 'x.pth'
    real = checkpoint_grammar.real_file()
    expected = checkpoint_grammar.training_checkpoint()
    known = plain_types()
    codecs.lookup('cp437')  # for names in an archive
    for warm_up in (real, checkpoint_grammar.real_file(False), real[:-9]):
        path.write_bytes(warm_up)
        try:
            use(read_checkpoint(str(path)))
        except CheckpointError:
            continue
    pages = int(Path('/proc/self/statm').read_text().split()[0])
    limit = pages * os.sysconf('SC_PAGE_SIZE') + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    watch = Watch(path)
    ends = time.monotonic() + seconds
    outcomes = Counter()
    with open(folder / 'at', 'wb', buffering=0) as at:
        for number in range(first, first + count):
            if time.monotonic() > ends:
                break
            data, kind = checkpoint_grammar.example(seed, number, str(canary), real)
            path.write_bytes(data)
            os.pwrite(at.fileno(), b'%020d' % number, 0)
            wrong = []
            signal.alarm(SECONDS)
            watch.armed = True
            try:
                checkpoint = read_checkpoint(str(path))
            except CheckpointError as error:
                watch.armed = False
                outcomes[f'{kind} {type(error).__name__}'] += 1
                if '\n' in str(error) or len(str(error)) > 2000:
                    wrong = ['no sentence']
            except Exception as error:
                watch.armed = False
                wrong = [f'{type(error).__name__}: {error!s:.100}']
            else:
                watch.armed = False
                outcomes[f'{kind} read'] += 1
                wrong = look_at(
                    checkpoint, known, expected if kind == 'turned' else None
                )
            signal.alarm(0)
            wrong += watch.seen
            watch.seen.clear()
            if canary.exists():
                canary.unlink()
                wrong.append('wrote the canary')
            for reason in wrong:
                print(f'{number}\t{reason!s:.300}'.replace('\n', ' '), flush=True)
    for outcome, times in outcomes.items():
        print(f'\t{outcome}\t{times}', flush=True)


def run(folder, seed, first, count, seconds):
    """Read files in a process that may crash.

    Returns:
        The number of the next file, the faults as (number, reason), and the outcomes.
    """
    command = [sys.executable, __file__, '--seed', str(seed)]
    command += ['--worker', str(folder), str(first), str(count), str(seconds)]
    (folder / 'at').write_text(str(first))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        printed, _ = process.communicate()
    at = int((folder / 'at').read_text())
    lines = [line.split('\t') for line in printed.splitlines()]
    wrong = [(int(line[0]), line[1]) for line in lines if line[0]]
    outcomes = Counter({line[1]: int(line[2]) for line in lines if not line[0]})
    if process.returncode:
        code = process.returncode
        what = signal.Signals(-code).name if code < 0 else f'status {code}'
        wrong.append((at, f'the process ended by {what}'))
    return at + 1, wrong, outcomes


def main():
    args = parse_args()
    if args.worker:
        folder, first, count, seconds = args.worker
        work(Path(folder), args.seed, int(first), int(count), float(seconds))
        return
    start, last = args.only or 0, math.inf
    if args.only is not None:
        last = args.only + 1
    elif args.examples is not None:
        last = args.examples
    ends = time.monotonic() + (args.minutes * 60 if last == math.inf else 1e6)
    wrong, outcomes = [], Counter()
    with tempfile.TemporaryDirectory() as folder:
        while start < last and (left := ends - time.monotonic()) > 0:
            count = int(min(CHUNK, last - start))
            start, found, some = run(Path(folder), args.seed, start, count, left)
            wrong += found
            outcomes += some
    print(f'{start} files, seed {args.seed}')
    for outcome, times in sorted(outcomes.items()):
        print(f'  {times:8} {outcome}')
    kinds = Counter(reason[:KIND] for _, reason in wrong)
    first = {reason[:KIND]: (number, reason) for number, reason in reversed(wrong)}
    for kind, times in kinds.most_common(SHOWN):
        number, reason = first[kind]
        print(f'{times} times, as in --only {number}: {reason}')
    if wrong:
        sys.exit(f'{len(wrong)} faults, in {len({n for n, _ in wrong})} files')


if __name__ == '__main__':
    main()
