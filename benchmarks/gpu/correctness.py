"""Runs the tests of ``tests/test_gpu`` and reports what they found.

Each part has a process of its own, many at a time: compiling the kernels takes most of
the time, and an illegal access in one of them ends no more than its own part. What was
compiled stays in Triton's cache, so the other stages start with it.
"""

import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from paths import ROOT
from results import Results

TESTS = ROOT / 'tests' / 'test_gpu'
AT_ONCE = 12

# Files with a case for each dtype, which compile a kernel for each: in three parts.
DTYPES = ('not bf16 and not fp32', 'bf16', 'fp32')
BY_DTYPE = ('test_cuda_convolution', 'test_kernel_gradient')


class Part(NamedTuple):
    """Tests of some files, those that pytest's -k selects."""

    files: list[Path]
    chosen: str = ''

    def __str__(self):
        names = ' '.join(file.stem for file in self.files)
        return f'{names}, {self.chosen}' if self.chosen else names


def parts(rehearsal: bool) -> list[Part]:
    files = sorted(TESTS.glob('test_*.py'))
    if rehearsal:
        return [Part(files)]
    return [
        Part([file], chosen)
        for file in files
        for chosen in (DTYPES if file.stem in BY_DTYPE else ('',))
    ]


def measure(device, results: Results, args) -> None:
    results.table('Tests')
    environment = os.environ | {
        'PYTHONPATH': os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')]),
        'PYTEST_ADDOPTS': '',
    }
    at_once = min(AT_ONCE, os.cpu_count() or 1)
    end = time.monotonic() + args.limit
    with TemporaryDirectory() as folder, ThreadPoolExecutor(at_once) as pool:
        run = partial(_run, Path(folder), environment, end)
        for cells, failures in pool.map(run, parts(device.rehearsal)):
            results.row(cells)
            for what, why in failures:
                results.fail(what, why)


def _run(folder: Path, environment: dict, end: float, part: Part):
    """Run pytest on a part; return the row, and (test, text) of each failure."""
    name = str(part)
    report = folder / f'{name}.xml'
    command = [sys.executable, '-m', 'pytest', '-q', '--tb=short', '-k', part.chosen]
    command += ['-p', 'no:cacheprovider', f'--junitxml={report}', *part.files]
    started = time.monotonic()
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=max(1, end - started),
        )
        output, failures = done.stdout, []
    except subprocess.TimeoutExpired as stopped:
        output = (stopped.stdout or b'').decode(errors='replace')
        failures = [(name, f'stopped: there was no more time\n{output[-4000:]}')]
    cells = dict(tests=name, passed=0, failed=0, skipped=0)
    cells['seconds'] = time.monotonic() - started
    if not report.exists():
        return cells, failures or [(name, output[-4000:])]
    reasons = {}
    for case in ElementTree.parse(report).iter('testcase'):
        kinds = {child.tag: child for child in case}
        wrong = kinds.get('failure', kinds.get('error'))
        if wrong is not None:
            cells['failed'] += 1
            failures.append((_name_of(case), wrong.text or wrong.get('message', '')))
        elif 'skipped' in kinds:
            cells['skipped'] += 1
            reason = kinds['skipped'].get('message', '')
            reasons[reason] = reasons.get(reason, 0) + 1
        else:
            cells['passed'] += 1
    cells['why skipped'] = '; '.join(f'{n} {why}' for why, n in reasons.items())
    return cells, failures


def _name_of(case: ElementTree.Element) -> str:
    return f'{case.get("classname")}::{case.get("name")}'
