"""Print what the kernels compile to, as a table in Markdown.

PYTHONPATH=.:.venv/triton/3.9.0 .venv/bin/python tests/test_triton/compiled/report.py

The options choose some of the launches and architectures. Each row takes a second or
two at the first time; Triton keeps what it compiled.
"""

import argparse
from collections.abc import Iterator
from typing import NamedTuple

import triton
from cubin import Figures, figures
from launches import LAUNCHES
from offline import ARCHS, Launch, cubin, recorded, ttir
from ttir import parse


class Compiled(NamedTuple):
    """What one launch of a case compiles to."""

    kernel: str
    dots: int
    carried: int
    figures: Figures


def compiled(launch: Launch) -> Compiled:
    operations = list(parse(ttir(launch)).walk())
    loops = [operation for operation in operations if operation.name == 'scf.for']
    return Compiled(
        launch.name,
        sum(operation.name == 'tt.dot' for operation in operations),
        sum(len(loop.results) for loop in loops),
        figures(*cubin(launch)),
    )


def compile_all(names, archs) -> Iterator[tuple[str, str, int, Compiled]]:
    for name in names:
        for case, launch in LAUNCHES[name].items():
            for arch in archs:
                with recorded(arch) as launches:
                    launch()
                for each in launches:
                    yield name, case, arch, compiled(each)


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


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--names', nargs='+', default=LAUNCHES, choices=LAUNCHES)
    parser.add_argument('--archs', nargs='+', type=int, default=ARCHS, choices=ARCHS)
    arguments = parser.parse_args()
    print(f'Triton {triton.__version__}; loads and stores by their width in bits.\n')
    print(HEADER)
    for _, case, arch, found in compile_all(arguments.names, arguments.archs):
        print(row(case, arch, found), flush=True)


if __name__ == '__main__':
    main()
