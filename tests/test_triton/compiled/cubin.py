"""What a cubin holds: registers, memory, and its instructions by kind."""

import re
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

import triton

TOOL = Path(triton.__file__).parent / 'backends' / 'nvidia' / 'bin' / 'cuobjdump'

_INSTRUCTION = re.compile(
    r'^\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+ )?\s*([A-Z][\w.]*)', re.M
)
_USAGE = re.compile(r'Function (?!\.)\w+:\s*(REG:.*)')
_WIDTH = re.compile(r'\.([US]?8|[US]?16|64|128|256)\b')


class Figures(NamedTuple):
    """Per thread: registers, and bytes of stack. Per program: bytes of shared memory.

    ``tensor`` counts the instructions of tensor cores. ``loads`` and ``stores`` count
    accesses of global memory by their width in bits.
    """

    registers: int
    stack: int
    shared: int
    instructions: int
    spills: int
    tensor: dict[str, int]
    loads: dict[int, int]
    stores: dict[int, int]


def figures(cubin: bytes, shared: int) -> Figures:
    """Read a cubin; ``shared`` is what it is launched with, which is not in it."""
    with tempfile.NamedTemporaryFile(suffix='.cubin') as file:
        file.write(cubin)
        file.flush()
        usage = _output('-res-usage', file.name)
        code = _output('-sass', file.name)
    (found,) = _USAGE.findall(usage)
    used = {name: int(n) for name, n in re.findall(r'(\w+):(\d+)', found)}
    names = [name for name in _INSTRUCTION.findall(code) if name != 'NOP']
    return Figures(
        used['REG'],
        used['STACK'] + used['LOCAL'],
        shared,
        len(names),
        sum(name.split('.')[0] in ('LDL', 'STL') for name in names),
        _counts(name.split('.')[0] for name in names if _is_tensor_core(name)),
        _counts(map(_width, _of(names, 'LDG', 'LDGSTS'))),
        _counts(map(_width, _of(names, 'STG'))),
    )


def _output(*arguments) -> str:
    done = subprocess.run([TOOL, *arguments], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f'{TOOL.name} {" ".join(arguments)}: {done.stderr}')
    return done.stdout


def _of(names, *kinds):
    return [name for name in names if name.split('.')[0] in kinds]


def _is_tensor_core(name: str) -> bool:
    """HMMA on sm_80, HGMMA on sm_90, UTCHMMA and its kind on sm_100."""
    return re.match(r'(UTC)?[A-Z]*MMA\b', name) is not None


def _width(name: str) -> int:
    found = _WIDTH.search(name)
    return int(found[1].lstrip('US')) if found else 32


def _counts(values) -> dict:
    values = list(values)
    return {value: values.count(value) for value in sorted(set(values))}
