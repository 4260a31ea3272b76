"""The text of TTIR, Triton's first intermediate form, read into operations.

Triton prints one operation per line, and regions in braces:

    %a_68 = tt.load %a_67, %a_53, %cst : tensor<64x32x!tt.ptr<bf16>>
    %acc = scf.for %k = %c0 to %n step %c1 iter_args(%acc_48 = %cst_3) -> (...) : i32 {
      ...
      scf.yield %acc_80 : tensor<64x16xf32>
    }

Names and types are found by their form; what an operation means is the concern of
``operations.py`` and ``evaluation.py``.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

_RESULTS = re.compile(r'((?:%[\w.$-]+(?::\d+)?(?:, )?)+) = ')
_NAME = re.compile(r'"?([a-z_]+\.[\w.]+)"?')
_ATTRIBUTES = re.compile(r'\{[^{}]*\}')
_VALUE = re.compile(r'%[\w.$-]+(?:#\d+)?')
_ELEMENT = r'(!tt\.ptr<[^<>]*>|b?f\d+\b|i\d+\b|index\b)'
_TYPE = re.compile(rf'(?:tensor<((?:\d+x)*)|(?<![\w.])){_ELEMENT}')


class Type(NamedTuple):
    """The shape (of a scalar: empty) and the element: 'f32', 'i1', '!tt.ptr<f16>'."""

    shape: tuple[int, ...]
    element: str

    @property
    def pointee(self) -> str:
        return self.element.removeprefix('!tt.ptr<').rstrip('>').partition(',')[0]


@dataclass
class Operation:
    """An operation: ``text`` is what follows its name, without the regions."""

    name: str
    results: list[str]
    text: str
    regions: list['Region'] = field(default_factory=list)

    def __post_init__(self):
        self.operands = _VALUE.findall(self.text)
        self.types = types_in(self.text)

    def attribute(self, name: str, default: str | None = None) -> str | None:
        """Return the text of ``name = text`` up to a comma, colon or bracket."""
        found = re.search(rf'\b{name} = ([^,:{{}}<>]+)', self.text)
        return found[1].strip() if found else default

    def walk(self) -> Iterator['Operation']:
        yield self
        for region in self.regions:
            for operation in region.operations:
                yield from operation.walk()


@dataclass
class Region:
    """A block of operations, and the names of its arguments if it is headed by them."""

    arguments: list[str] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)


def types_in(text: str) -> list[Type]:
    """Return the types in their order, without those of attributes in braces."""
    return [
        Type(tuple(map(int, dims.split('x')[:-1])), element)
        for dims, element in _TYPE.findall(_VALUE.sub('', _ATTRIBUTES.sub('', text)))
    ]


def parse(text: str) -> Operation:
    """Return the module's only function, a ``tt.func`` with one region."""
    lines = iter(line.strip() for line in text.splitlines() if line.strip())
    for line in lines:
        if line.startswith('tt.func'):
            function = _operation(line, lines)
            rest = [line for line in lines if line != '}' and line[0] != '#']
            if rest:
                raise ValueError(f'one function was expected, then came: {rest[0]}')
            function.regions[0].arguments = function.operands
            return function
    raise ValueError('the text has no tt.func')


def _operation(line: str, lines: Iterator[str]) -> Operation:
    found = _RESULTS.match(line)
    results = []
    for name in found[1].split(', ') if found else ():
        name, _, count = name.partition(':')
        results += [f'{name}#{i}' for i in range(int(count))] if count else [name]
    name = _NAME.match(line, found.end() if found else 0)
    if not name:
        raise ValueError(f'not an operation of TTIR: {line}')
    text, regions = line[name.end() :], []
    while text.endswith('{'):
        text = text.removesuffix('{').rstrip()
        region, end = _region(lines)
        regions.append(region)
        # The end is '}', '} else {', '} do {', '}) : (types) -> types' or '} {attr}'.
        text += ' ' + end.removeprefix('}')
    return Operation(name[1], results, text, regions)


def _region(lines: Iterator[str]) -> tuple[Region, str]:
    region = Region()
    for line in lines:
        if line.startswith('}'):
            return region, line
        if line.startswith('^'):
            if region.operations:
                raise ValueError(f'regions of several blocks are not read: {line}')
            region.arguments = _VALUE.findall(line)
        else:
            region.operations.append(_operation(line, lines))
    raise ValueError('the text ends inside a region')
