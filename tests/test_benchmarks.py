"""Every benchmark runs and prints its tables; the figures are not tested."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dcls_mm.functional import native_code

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = ROOT / 'benchmarks'

pytest.importorskip('DCLS.construct.modules')
pytest.importorskip('mmcv')

# The columns of each table, except those on memory.
COLUMNS = {
    'construct': [
        'interpolation, kernels, dcls 0.1.1 ms, dcls_mm ms, times faster, '
        'time target, dcls_mm GFLOP/s',
    ],
    'convolve': [
        'convolution, pass, dcls_mm on, backend, torch ms, dcls_mm ms, '
        'torch GFLOP/s, dcls_mm GFLOP/s, times faster, target',
        'pass, dcls_mm on, least, geometric mean, target of the mean',
        'convolution, pass, dcls_mm on, backend, torch ms, dcls_mm ms, '
        'torch GFLOP/s, dcls_mm GFLOP/s, time ratio, target',
    ],
    'direct': [
        'instructions, triad GB/s, peak G taps/s',
        'format, pass, direct, dense, of dense, plain 7x7, of plain, taps, G taps/s, '
        'GB/s',
        'of, is, target',
    ],
    'cost': [
        'task, extent, dcls_mm, constructed, dense, plain 7x7, dcls 0.1.1',
        'task, elements, dcls_mm, constructed, dense, plain 7x7, dcls 0.1.1',
    ],
    'backbone': [
        'task, depthwise convolutions, ms, GFLOP/s, time ratio, time target',
    ],
    'deploy': ['what runs, ms, time ratio, difference'],
    'sampling': [
        'convolution, method, forward ms, forward + backward ms, time ratio, '
        'difference',
    ],
}
OPTIONS = {'convolve': ['--shapes', 'all']}
MEMORY_COLUMNS = ('extra MB', 'times less', 'memory ratio', 'memory target')


@pytest.fixture(scope='module')
def started(tmp_path_factory):
    """Start them all at once, as most of their time is spent importing torch."""
    folder = tmp_path_factory.mktemp('benchmarks')
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}
    processes = {}
    for name in COLUMNS:
        script = [sys.executable, BENCHMARKS / f'bench_{name}.py']
        options = ['--quick', '--seconds', '0.01', '--json', folder / f'{name}.json']
        processes[name] = subprocess.Popen(
            [*script, *options, *OPTIONS.get(name, [])],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    yield folder, processes
    for process in processes.values():
        process.kill()
        process.wait()


def tables_of(output):
    """Parse the tables of a markdown text, each as a list of rows of cells."""
    tables, before = [], ''
    for line in output.splitlines():
        if line.startswith('|'):
            if not before.startswith('|'):
                tables.append([])
            tables[-1].append([cell.strip() for cell in line.strip('|').split('|')])
        before = line
    return tables


@pytest.mark.parametrize('name', COLUMNS)
def test_a_benchmark_prints_its_tables(started, name):
    if name == 'direct' and native_code.missing() is not None:
        pytest.skip(native_code.missing())
    folder, processes = started
    output, errors = processes[name].communicate(timeout=240)
    assert processes[name].returncode == 0, errors
    for part in ('machine: ', 'torch ', 'threads: 1', 'matrix product, GFLOP/s: '):
        assert part in output

    tables = tables_of(output)
    for table, expected in zip(tables, COLUMNS[name]):
        columns = [c for c in table[0] if not c.endswith(MEMORY_COLUMNS)]
        assert columns == expected.split(', ')
        assert len(table) > 2 and {len(row) for row in table} == {len(table[0])}
    assert len(tables) == len(COLUMNS[name])

    written = json.loads((folder / f'{name}.json').read_text())
    assert [len(t['rows']) for t in written['tables']] == [len(t) - 2 for t in tables]
    assert [list(t['rows'][0]) for t in written['tables']] == [t[0] for t in tables]


def test_the_table_of_weight_formats():
    done = subprocess.run(
        [sys.executable, BENCHMARKS / 'weight_formats.py', '--quick'],
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (table,) = tables_of(done.stdout)
    assert {'dinov3', 'mmpretrain'} <= {row[2] for row in table}
    assert len(table) > 6 and {len(row) for row in table} == {len(table[0])}
