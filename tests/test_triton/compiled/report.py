"""Print what the kernels compile to, as a table in Markdown.

PYTHONPATH=.:.venv/tritons/3.9.0 .venv/bin/python tests/test_triton/compiled/report.py

The options choose some of the launches and architectures. Each row takes a second or
two at the first time; Triton keeps what it compiled.
"""

import argparse
from collections.abc import Callable, Iterator
from typing import NamedTuple

import triton
from cubin import Figures, figures
from launches import LAUNCHES
from offline import ARCHS, cubin, recorded, ttir
from ttir import parse


class Compiled(NamedTuple):
    """What one kernel is compiled to, and the form of its TTIR."""

    kernel: str
    dots: int
    carried: int
    figures: Figures


def compile_case(launch: Callable[[], None], arch: int) -> Iterator[Compiled]:
    """Compile each kernel that a call launches."""
    with recorded(arch) as launches:
        launch()
    for each in launches:
        operations = list(parse(ttir(each)).walk())
        yield Compiled(
            each.name,
            sum(operation.name == 'tt.dot' for operation in operations),
            sum(len(op.results) for op in operations if op.name == 'scf.for'),
            figures(*cubin(each)),
        )


HEADER = (
    '| kernel | case | sm | registers | stack | spills | shared | instructions '
    '| tensor cores | loads | stores | dots | carried |\n' + '|---' * 13 + '|'
)


def row(case: str, arch: int, found: Compiled) -> str:
    sizes = found.figures
    cells = (
        f'`{found.kernel}`',
        case,
        arch,
        sizes.registers,
        sizes.stack,
        sizes.spills,
        sizes.shared,
        sizes.instructions,
        *(', '.join(f'{n} x {k}' for k, n in counts.items()) for counts in sizes[5:]),
        found.dots,
        found.carried,
    )
    return '| ' + ' | '.join(str(cell) for cell in cells) + ' |'


def budget_row(case: str, by_arch: list[Compiled]) -> str:
    """Return a row of ``budgets.txt``, from what a kernel is on each architecture."""
    first = by_arch[0]
    cells = [f'{first.kernel:<23} {case:<15} {first.dots:>4} {first.carried:>7}']
    for sizes in (found.figures for found in by_arch):
        shared = -(-sizes.shared // 1024)
        tensor, wide = sum(sizes.tensor.values()), sizes.loads.get(128, 0)
        cells.append(f'{sizes.registers:>3} {shared:>2} {tensor:>3} {wide:>2}')
    return ' | '.join(cells)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--names', nargs='+', default=LAUNCHES, choices=LAUNCHES)
    parser.add_argument('--archs', nargs='+', type=int, default=ARCHS, choices=ARCHS)
    parser.add_argument(
        '--budgets', action='store_true', help='print rows of budgets.txt'
    )
    arguments = parser.parse_args()
    if not arguments.budgets:
        print(f'Triton {triton.__version__}; loads and stores by their width in bits.')
        print(f'\n{HEADER}')
    for name in arguments.names:
        for case, launch in LAUNCHES[name].items():
            found = [list(compile_case(launch, arch)) for arch in arguments.archs]
            for kernel in zip(*found):
                if arguments.budgets:
                    print(budget_row(case, kernel), flush=True)
                    continue
                for arch, each in zip(arguments.archs, kernel):
                    print(row(case, arch, each), flush=True)


if __name__ == '__main__':
    main()
