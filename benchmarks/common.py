"""What the benchmarks share: options, interleaved timing and tables."""

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from memory import memory_is_measurable

PACKAGES = ('torch', 'dcls', 'numpy', 'mmcv', 'onnxruntime')

# Repetitions: few of a slow function, enough of a fast one.
FEWEST, FEW, MOST = 3, 5, 1000


def argument_parser(description: str, seconds: float) -> argparse.ArgumentParser:
    """Return a parser with the options that all benchmarks share."""
    parser = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        '--threads',
        type=int,
        default=torch.get_num_threads(),
        help="torch's threads; default all cores, or OMP_NUM_THREADS (now %(default)s)",
    )
    parser.add_argument(
        '--seconds',
        type=float,
        default=seconds,
        help='time to spend per function and case (%(default)s)',
    )
    parser.add_argument(
        '--quick',
        action='store_true',
        help='tiny cases, to see that it runs; the figures mean nothing',
    )
    parser.add_argument('--json', type=Path, help='write all figures to this file too')
    return parser


@dataclass
class Timing:
    """Milliseconds per call: median and quartiles of the repetitions."""

    median: float
    lower: float
    upper: float
    repetitions: int

    def __str__(self) -> str:
        return f'{number(self.median)} ({number(self.lower)}-{number(self.upper)})'

    def gflops(self, operations: float) -> float:
        return operations / self.median / 1e6


def interleave(
    functions: Mapping[str, Callable[[], Any]], seconds: float
) -> dict[str, Timing]:
    """Time functions with their repetitions evenly interleaved.

    Any drift of the machine thus affects all of them. Each is called once or twice to
    warm up, then for about ``seconds``, 3 (slow ones) to 1000 times.
    """
    counts = {}
    for name, function in functions.items():
        progress(f'  {name}')
        call = elapsed(function)
        if call < 1e3 * seconds:
            call = elapsed(function)
        counts[name] = repetitions(call, seconds)
    times = {name: [] for name in functions}
    for name in evenly_mixed(counts):
        times[name].append(elapsed(functions[name]))
    return {name: timing_of(values) for name, values in times.items()}


def repetitions(milliseconds: float, seconds: float) -> int:
    """Return how often to call a function that takes so long, in so much time."""
    least = FEWEST if milliseconds > 1e3 * seconds / 2 else FEW
    return min(MOST, max(least, int(1e3 * seconds / milliseconds)))


def evenly_mixed(counts: Mapping[str, int]) -> list[str]:
    """Return every name as often as it counts, spread evenly over the list."""
    turns = [((i + 0.5) / n, name) for name, n in counts.items() for i in range(n)]
    return [name for _, name in sorted(turns)]


def elapsed(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    function()
    return 1e3 * (time.perf_counter() - start)


def timing_of(values: list[float]) -> Timing:
    lower, median, upper = statistics.quantiles(values, n=4, method='inclusive')
    return Timing(median, lower, upper, len(values))


class Tables:
    """Tables, printed as GitHub markdown and kept in ``content``.

    A table's columns are the keys of its first row.
    """

    def __init__(self):
        self.content = dict(tables=[])

    def table(self, title: str) -> None:
        self.content['tables'].append(dict(title=title, rows=[]))
        print(f'\n### {title}\n')

    def row(self, cells: Mapping[str, Any]) -> None:
        rows = self.content['tables'][-1]['rows']
        if not rows:
            _print_line(cells)
            _print_line('---' if isinstance(v, str) else '---:' for v in cells.values())
        rows.append(dict(cells))
        _print_line(text(value) for value in cells.values())

    def note(self, sentence: str) -> None:
        self.content['tables'][-1]['note'] = sentence
        print(f'\n{sentence}', flush=True)


class Report(Tables):
    """Head and tables of a benchmark, kept for --json.

    ``memory`` says whether any table has memory figures.
    """

    def __init__(self, title: str, args: argparse.Namespace, memory: bool = True):
        super().__init__()
        torch.set_num_threads(args.threads)
        torch.manual_seed(0)
        self.path = args.json
        self.content = dict(title=title, head=_head(args, memory), **self.content)
        print(f'## {title}\n')
        print_list(self.content['head'])

    def __enter__(self) -> 'Report':
        return self

    def __exit__(self, *_) -> None:
        if self.path is not None:
            self.path.write_text(json.dumps(self.content, default=vars, indent=1))


def print_list(head: Mapping[str, Any]) -> None:
    for name, value in head.items():
        print(f'- {name}: {text(value)}')
    sys.stdout.flush()


def _print_line(cells) -> None:
    print('|', ' | '.join(cells), '|', flush=True)


def _head(args: argparse.Namespace, memory: bool) -> dict[str, Any]:
    versions = [f'Python {platform.python_version()}']
    versions += [f'{name} {_version(name)}' for name in PACKAGES]
    head = {
        'machine': f'{processor()}, {os.cpu_count()} cores, {_memory_gb()} memory, '
        f'{torch.backends.cpu.get_cpu_capability()}, {platform.system()}',
        'versions': ', '.join(versions),
        'threads': args.threads,
        'float32 matrix product, GFLOP/s': _matmul_gflops(args),
        'times': 'milliseconds, median (lower-upper quartile)',
    }
    if memory and memory_is_measurable():
        head['extra MB'] = 'what the first call adds to the peak of resident memory'
    elif memory:
        head['extra MB'] = 'left out: it needs a /proc with VmHWM and clear_refs'
    if args.quick:
        head['quick'] = 'tiny cases: the figures mean nothing'
    return head


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return '(not installed)'


def processor() -> str:
    cpuinfo = Path('/proc/cpuinfo')
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.split(':', 1)[1].strip() for line in lines if 'model name' in line]
    return models[0] if models else platform.processor() or platform.machine()


def _memory_gb() -> str:
    try:
        pages = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
    except (AttributeError, ValueError, OSError):
        return 'unknown'
    return f'{pages / 2**30:.0f} GB'


def _matmul_gflops(args: argparse.Namespace) -> float:
    size = 128 if args.quick else 2048
    left, right = torch.randn(2, size, size)
    timing = interleave({'matrix product': lambda: left @ right}, args.seconds)
    return timing['matrix product'].gflops(2 * size**3)


def text(value: Any) -> str:
    if value is None:
        return ''
    return number(value) if isinstance(value, float) else str(value)


def number(value: float) -> str:
    """Format with three significant digits, without an exponent for large values."""
    return f'{value:.0f}' if abs(value) >= 100 else f'{value:.3g}'


def verdict(value: float, least: float | None = None, most: float | None = None):
    """Describe a target and whether the value meets it, so that a shortfall shows."""
    if least is not None:
        return f'at least {least}: ' + ('met' if value >= least else '**missed**')
    return f'at most {most}: ' + ('met' if value <= most else '**missed**')


def progress(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
