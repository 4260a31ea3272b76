"""TTIR evaluated with numpy, one program of the grid after the other.

What the compiler's front end made of a kernel is run, not what its Python says, so a
miscompilation there shows as a wrong result. Values that Triton leaves undefined
(masked loads without ``other``) are NaN or the largest integer. An operation that is
neither in ``CONTROL`` nor in ``OPERATIONS`` raises :class:`.UnknownOperation`.
"""

import itertools

import numpy as np
import torch
from offline import Launch
from operations import OPERATIONS, UnknownOperation, rounded
from tensor_memory import DTYPES, Memory
from ttir import Operation, Region, parse


def launch(ttir_text: str, launch: Launch) -> None:
    """Run every program of a launch on the memory of its tensors."""
    function = parse(ttir_text)
    body = function.regions[0]
    arguments = launch.arguments
    memory = Memory(x for x in arguments if isinstance(x, torch.Tensor))
    values = [
        np.int64(x.data_ptr())
        if isinstance(x, torch.Tensor)
        else rounded(DTYPES[kind.element](x), kind)
        for x, kind in zip(arguments, function.types, strict=True)
    ]
    sizes = (*launch.grid, 1, 1)[:3]
    for program in itertools.product(*map(range, sizes)):
        machine = Machine(memory, program, sizes)
        with np.errstate(all='ignore'):
            machine.run(body, values)


class Machine:
    """One program: its place in the grid, and the values that it has computed."""

    def __init__(self, memory, program, sizes):
        self.memory = memory
        self.program = program
        self.sizes = sizes
        self.values = {}

    def run(self, region: Region, arguments=()) -> list:
        """Run a region; return the operands of its last operation, which ends it."""
        self.values.update(zip(region.arguments, arguments, strict=True))
        for operation in region.operations:
            if operation.name in ENDS:
                return [self.values[name] for name in operation.operands]
            self.step(operation)
        return []

    def step(self, operation: Operation) -> None:
        if operation.name in CONTROL:
            results = CONTROL[operation.name](self, operation)
        elif operation.name in OPERATIONS:
            operands = [self.values[name] for name in operation.operands]
            results = [OPERATIONS[operation.name](self, operation, *operands)]
        else:
            raise UnknownOperation(operation.name)
        self.values.update(zip(operation.results, results))


# The last operation of a region. What follows `scf.condition` is in `_while`.
ENDS = {
    'scf.condition',
    'scf.yield',
    'tt.reduce.return',
    'tt.return',
    'tt.scan.return',
}


# Control flow, and what else has regions or several results.


def _for(machine, operation):
    body = operation.regions[0]
    counter, *names = operation.operands
    start, stop, step = (machine.values[name] for name in names[:3])
    body.arguments = [counter, *names[3::2]]
    carried = [machine.values[name] for name in names[4::2]]
    for count in range(start, stop, step):
        carried = machine.run(body, [type(start)(count), *carried])
    return carried


def _while(machine, operation):
    before, after = operation.regions
    before.arguments = operation.operands[::2]
    carried = [machine.values[name] for name in operation.operands[1::2]]
    while True:
        goes_on, *carried = machine.run(before, carried)
        if not goes_on:
            return carried
        carried = machine.run(after, carried)


def _if(machine, operation):
    chosen = 0 if machine.values[operation.operands[0]] else 1
    return machine.run(operation.regions[chosen]) if operation.regions[chosen:] else []


def _reduce(machine, operation):
    """Combine the halves of an axis until its length is one, as warps do."""
    axis = int(operation.attribute('axis'))
    arrays = [np.moveaxis(machine.values[name], axis, 0) for name in operation.operands]
    while len(arrays[0]) > 1:
        half = len(arrays[0]) // 2
        parts = [part for i in (0, half) for part in (a[i : i + half] for a in arrays)]
        arrays = machine.run(operation.regions[0], parts)
    return [array[0] for array in arrays]


def _scan(machine, operation):
    axis = int(operation.attribute('axis'))
    step = -1 if operation.attribute('reverse') == 'true' else 1
    arrays = [
        np.moveaxis(machine.values[name], axis, 0)[::step]
        for name in operation.operands
    ]
    rows = [[array[0] for array in arrays]]
    for i in range(1, len(arrays[0])):
        row = [array[i] for array in arrays]
        rows.append(machine.run(operation.regions[0], [*rows[-1], *row]))
    return [np.moveaxis(np.stack(array)[::step], 0, axis) for array in zip(*rows)]


def _split(machine, operation):
    value = machine.values[operation.operands[0]]
    return [value[..., 0], value[..., 1]]


CONTROL = {
    'scf.for': _for,
    'scf.if': _if,
    'scf.while': _while,
    'tt.reduce': _reduce,
    'tt.scan': _scan,
    'tt.split': _split,
}
