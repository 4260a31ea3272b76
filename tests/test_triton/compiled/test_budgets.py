"""The kernels as compiled, against the table in ``budgets.txt``.

The newest Triton compiles each case for two of the architectures, in turn, and an older
one for one; ``report.py`` compiles all.
"""

from pathlib import Path
from typing import NamedTuple

import pytest
import triton
from launches import LAUNCHES
from offline import ARCHS
from report import compile_case


class Budget(NamedTuple):
    """A group of columns in the table."""

    registers: int
    shared: int
    tensor: int
    wide_loads: int


def read_rows():
    """Return (kernel, case) -> ((dots, carried), arch -> budget)."""
    lines = Path(__file__).with_name('budgets.txt').read_text().splitlines()
    header, *lines = (line for line in lines if line and line[0] != '#')
    archs = [int(cell.strip().removeprefix('sm_')) for cell in header.split('|')[1:]]
    rows = {}
    for line in lines:
        left, *cells = line.split('|')
        kernel, *case, dots, carried = left.split()
        budgets = (Budget(*map(int, cell.split())) for cell in cells)
        rows[kernel, ' '.join(case)] = (
            (int(dots), int(carried)),
            dict(zip(archs, budgets, strict=True)),
        )
    return rows


ROWS = read_rows()
CASES = [(name, case) for name, launches in LAUNCHES.items() for case in launches]
STEP = 4 if triton.__version__ == '3.6.0' else 2


@pytest.fixture(scope='module')
def seen():
    return set()


@pytest.mark.parametrize(
    'name, case, archs',
    [(*pair, ARCHS[n % STEP :: STEP]) for n, pair in enumerate(CASES)],
)
def test_budget(name, case, archs, seen):
    for arch in archs:
        for found in compile_case(LAUNCHES[name][case], arch):
            seen.add((found.kernel, case))
            (dots, carried), budgets = ROWS[found.kernel, case]
            budget, figures = budgets[arch], found.figures
            assert (found.dots, found.carried) == (dots, carried)
            assert figures.stack == 0 and figures.spills == 0, figures
            assert figures.registers <= budget.registers
            assert figures.shared <= budget.shared * 1024
            assert sum(figures.tensor.values()) == budget.tensor, figures.tensor
            assert figures.loads.get(128, 0) >= budget.wide_loads, figures.loads


def test_every_row_was_compiled(seen):
    assert seen == ROWS.keys()
