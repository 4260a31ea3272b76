"""What the operations of TTIR compute, by name, in ``OPERATIONS``.

Each is called with the machine that runs the program, the operation and the values of
its operands, and returns the value of its only result. bfloat16 values are kept as
float32 and rounded after each operation.
"""

import operator
import re

import numpy as np
import torch
from tensor_memory import DTYPES
from ttir import Type


class UnknownOperation(NotImplementedError):
    """An operation, or a form of it, whose meaning is not written down here."""


def rounded(value, kind: Type):
    """Round to a type; bfloat16 to nearest even, kept as float32."""
    if kind.element.startswith('!'):
        return value
    value = np.asarray(value).astype(DTYPES[kind.element])
    if kind.element == 'bf16':
        value = keep_bits(value, 16)
    return value[()]


def keep_bits(value, dropped: int):
    """Round float32 to nearest even, with the last ``dropped`` bits of it zero."""
    bits = np.asarray(value, np.float32).view(np.uint32)
    odd = (bits >> np.uint32(dropped)) & np.uint32(1)
    up = np.uint32(2 ** (dropped - 1) - 1) + odd
    kept = (bits + up) & np.uint32(2**32 - 2**dropped)
    return np.where(np.isfinite(value), kept.view(np.float32), value)


def constant(machine, operation):
    text = re.search(r'(?:dense<)?([^<>:\s]+)>? :|(true|false)', operation.text)
    word, kind = text[1] or text[2], (operation.types or [Type((), 'i1')])[-1]
    if word in ('true', 'false'):
        value = word == 'true'
    elif kind.element in ('f16', 'bf16', 'f32', 'f64'):
        value = float(word) if not word.startswith('0x') else from_bits(word, kind)
    else:
        value = int(word, 0)
    return np.broadcast_to(rounded(value, kind), kind.shape)[()]


def from_bits(word: str, kind: Type):
    """Read infinities and NaN, which are printed in hexadecimal."""
    bits = int(word, 16)
    if kind.element == 'bf16':
        bits <<= 16
    dtype = np.dtype(DTYPES[kind.element])
    return np.frombuffer(bits.to_bytes(dtype.itemsize, 'little'), dtype)[0]


def undefined(kind: str):
    dtype = np.dtype(DTYPES[kind])
    return dtype.type(np.nan if dtype.kind == 'f' else np.iinfo(dtype).max)


def load(machine, operation, addresses, mask=True, other=None):
    element = operation.types[-1].pointee
    if other is None:
        other = undefined(element)
    addresses = np.asarray(addresses)
    mask = np.broadcast_to(mask, addresses.shape)
    return machine.memory.load(addresses, mask, other, element)[()]


def store(machine, operation, addresses, values, mask=True):
    addresses, values = np.asarray(addresses), np.asarray(values)
    mask = np.broadcast_to(mask, addresses.shape)
    machine.memory.store(addresses, mask, values, operation.types[-1].pointee)


def addptr(machine, operation, addresses, offsets):
    element = operation.types[-2].pointee
    size = 2 if element == 'bf16' else np.dtype(DTYPES[element]).itemsize
    return addresses + np.asarray(offsets).astype(np.int64) * size


def product(a, b):
    """Multiply in float64, which float32 accumulators only lose to."""
    return np.matmul(a.astype(np.float64), b.astype(np.float64))


def dot(machine, operation, a, b, accumulator):
    precision = operation.attribute('inputPrecision', 'ieee')
    if operation.types[-3].element == 'f32' and precision != 'ieee':
        a_high, b_high = keep_bits(a, 13), keep_bits(b, 13)
        total = product(a_high, b_high)
        if precision == 'tf32x3':
            a_low, b_low = keep_bits(a - a_high, 13), keep_bits(b - b_high, 13)
            total += product(a_low, b_high) + product(a_high, b_low)
        elif precision != 'tf32':
            raise UnknownOperation(f'tt.dot with inputPrecision = {precision}')
    else:
        total = product(a, b)
    return rounded(accumulator + total, operation.types[-1])


def make_range(machine, operation):
    bounds = (int(operation.attribute(name)) for name in ('start', 'end'))
    return np.arange(*bounds, dtype=np.int32)


def reshape(machine, operation, value):
    return np.reshape(value, operation.types[-1].shape)


def broadcast(machine, operation, value):
    return np.broadcast_to(value, operation.types[-1].shape)


def expand_dims(machine, operation, value):
    return np.expand_dims(value, int(operation.attribute('axis')))


def transpose(machine, operation, value):
    order = re.search(r'order = array<i32: ([\d, ]+)>', operation.text)
    return np.transpose(value, [int(axis) for axis in order[1].split(',')])


def gather(machine, operation, value, indices):
    axis = int(operation.attribute('axis'))
    return np.take_along_axis(value, indices.astype(np.int64), axis)


def bitcast(machine, operation, value):
    source, target = operation.types[-2:]
    if 'bf16' in (source.element, target.element):
        raise UnknownOperation(f'{operation.name} of bf16')
    return np.asarray(value).view(DTYPES[target.element])[()]


def truncate(machine, operation, value):
    kind = operation.types[-1]
    return rounded(value & 1 if kind.element == 'i1' else value, kind)


def assume(machine, operation, condition):
    if not condition:
        raise ValueError('what the kernel assumes does not hold')


COMPARISONS = {
    'eq': operator.eq,
    'ne': operator.ne,
    'lt': operator.lt,
    'le': operator.le,
    'gt': operator.gt,
    'ge': operator.ge,
}


def compare_integers(machine, operation, a, b):
    predicate = operation.text.split(',')[0].strip()
    if predicate[0] == 'u':
        a, b = unsigned(a), unsigned(b)
    return COMPARISONS[predicate.lstrip('su')](a, b)


def compare_floats(machine, operation, a, b):
    predicate = operation.text.split(',')[0].strip()
    ordered = ~(np.isnan(a) | np.isnan(b))
    if predicate in ('ord', 'uno'):
        return ordered if predicate == 'ord' else ~ordered
    result = COMPARISONS[predicate[1:]](a, b)
    return result & ordered if predicate[0] == 'o' else result | ~ordered


def unsigned(value):
    value = np.asarray(value)
    return value if value.dtype == bool else value.view(f'u{value.dtype.itemsize}')


def divide(a, b):
    """Divide integers towards zero."""
    return np.where((a < 0) == (b < 0), abs(a) // abs(b), -(abs(a) // abs(b)))


def elementwise(function):
    """Compute, and round to the type of the result."""
    return lambda machine, operation, *values: rounded(
        function(*values), operation.types[-1]
    )


def of_unsigned(function):
    return elementwise(lambda *values: function(*map(unsigned, values)))


def same(value):
    return value


def erf(value):
    return torch.erf(torch.from_numpy(np.array(value, np.float64))).numpy()


ELEMENTWISE = {
    'arith.addf': np.add,
    'arith.addi': np.add,
    'arith.andi': np.bitwise_and,
    'arith.divf': np.divide,
    'arith.divsi': divide,
    'arith.extf': same,
    'arith.extsi': lambda value: (
        -value.astype(np.int8) if value.dtype == bool else value
    ),
    'arith.floordivsi': np.floor_divide,
    'arith.fptosi': np.trunc,
    'arith.index_cast': same,
    'arith.maximumf': np.maximum,
    'arith.maxnumf': np.fmax,
    'arith.maxsi': np.maximum,
    'arith.minimumf': np.minimum,
    'arith.minnumf': np.fmin,
    'arith.minsi': np.minimum,
    'arith.mulf': np.multiply,
    'arith.muli': np.multiply,
    'arith.negf': np.negative,
    'arith.ori': np.bitwise_or,
    'arith.remf': np.fmod,
    'arith.remsi': np.fmod,
    'arith.select': np.where,
    'arith.shli': np.left_shift,
    'arith.shrsi': np.right_shift,
    'arith.sitofp': same,
    'arith.subf': np.subtract,
    'arith.subi': np.subtract,
    'arith.truncf': same,
    'arith.xori': np.bitwise_xor,
    'math.absf': np.abs,
    'math.absi': np.abs,
    'math.ceil': np.ceil,
    'math.cos': np.cos,
    'math.erf': erf,
    'math.exp': np.exp,
    'math.exp2': np.exp2,
    'math.floor': np.floor,
    'math.fma': lambda a, b, c: a.astype(np.float64) * b + c,
    'math.log': np.log,
    'math.log2': np.log2,
    'math.rsqrt': lambda value: 1 / np.sqrt(value),
    'math.sin': np.sin,
    'math.sqrt': np.sqrt,
    'tt.clampf': lambda value, low, high: np.fmin(np.fmax(value, low), high),
    'tt.fp_to_fp': same,
    'tt.precise_divf': np.divide,
    'tt.precise_sqrt': np.sqrt,
}

UNSIGNED = {
    'arith.divui': np.floor_divide,
    'arith.extui': same,
    'arith.maxui': np.maximum,
    'arith.minui': np.minimum,
    'arith.remui': np.remainder,
    'arith.shrui': np.right_shift,
    'arith.uitofp': same,
}

OPERATIONS = {
    **{name: elementwise(function) for name, function in ELEMENTWISE.items()},
    **{name: of_unsigned(function) for name, function in UNSIGNED.items()},
    'arith.bitcast': bitcast,
    'arith.cmpf': compare_floats,
    'arith.cmpi': compare_integers,
    'arith.constant': constant,
    'arith.trunci': truncate,
    'llvm.intr.assume': assume,
    'tt.addptr': addptr,
    'tt.bitcast': bitcast,
    'tt.broadcast': broadcast,
    'tt.dot': dot,
    'tt.expand_dims': expand_dims,
    'tt.gather': gather,
    'tt.join': lambda machine, operation, *values: np.stack(values, axis=-1),
    'tt.load': load,
    'tt.make_range': make_range,
    'tt.reshape': reshape,
    'tt.splat': broadcast,
    'tt.store': store,
    'tt.trans': transpose,
    'tt.unsplat': lambda machine, operation, value: np.reshape(value, -1)[0],
    'tt.get_program_id': lambda machine, operation: np.int32(
        machine.program['xyz'.index(operation.text.split()[0])]
    ),
    'tt.get_num_programs': lambda machine, operation: np.int32(
        machine.sizes['xyz'.index(operation.text.split()[0])]
    ),
}
