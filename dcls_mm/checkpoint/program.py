"""A dry run of a checkpoint's pickle.

A pickle is a program for a small stack machine. torch's ``weights_only`` unpickler runs
it with a list of allowed names, which still permits too much: a key of a million nested
tuples overflows the C stack when it is hashed, a storage may be longer than its record,
and any object of an allowed type can be given attributes. So the program is first
followed with dummies for what it makes, and refused unless each step is one that
pickling a checkpoint takes.
"""

import pickle
import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple

import torch

from .errors import Damage, Refusal

MAX_DEPTH = 100
_PART = 1 << 20  # bytes

# The names of torch's storages in a file, and their dtypes.
STORAGES = {
    'torch.BFloat16Storage': torch.bfloat16,
    'torch.BoolStorage': torch.bool,
    'torch.ByteStorage': torch.uint8,
    'torch.CharStorage': torch.int8,
    'torch.ComplexDoubleStorage': torch.complex128,
    'torch.ComplexFloatStorage': torch.complex64,
    'torch.DoubleStorage': torch.float64,
    'torch.FloatStorage': torch.float32,
    'torch.HalfStorage': torch.float16,
    'torch.IntStorage': torch.int32,
    'torch.LongStorage': torch.int64,
    'torch.ShortStorage': torch.int16,
    'torch.storage.UntypedStorage': torch.uint8,
}
DTYPES = {str(item) for item in vars(torch).values() if isinstance(item, torch.dtype)}

ATOMS = frozenset({type(None), bool, int, float, str})


class Names(NamedTuple):
    """The names that a pickle may use besides those of storages and dtypes.

    Attributes:
        called: those that may be called.
        made: classes whose instances ``__new__`` may make.
        given: those that may only be arguments.
        stateful: those whose results may have a state set.
    """

    called: Collection[str]
    made: Collection[str]
    given: Collection[str]
    stateful: Collection[str]


class Program(NamedTuple):
    """What is known about a pickle that was followed.

    Attributes:
        used: the names of ``Names`` that it uses, each with its position in the stream.
        storages: the size in bytes of each storage that it refers to, by key.
    """

    used: list[tuple[int, str]]
    storages: dict[str, int]


@dataclass(frozen=True)
class _Global:
    name: str


@dataclass(frozen=True)
class _Made:
    by: str


@dataclass(frozen=True, eq=False)
class _Tuple:
    items: tuple
    depth: int


def follow(stream: BinaryIO, names: Names) -> Program:
    """Follow the pickle that begins at the stream's position, to its end.

    Raises:
        Refusal: a step that no checkpoint of mmengine takes.
        Damage: the stream holds no pickle, or an incomplete one.
    """
    machine = _Machine(stream, names)
    try:
        machine.run()
    except (IndexError, KeyError, ValueError, struct.error) as error:
        raise Damage(f'incomplete pickle: {type(error).__name__}') from error
    return Program(machine.used, machine.storages)


class _Machine:
    """The stack machine, like ``torch._weights_only_unpickler``, but with dummies."""

    def __init__(self, stream: BinaryIO, names: Names) -> None:
        self.stream = stream
        self.names = names
        self.stack: list[Any] = []
        self.outer: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.used: list[tuple[int, str]] = []
        self.storages: dict[str, int] = {}

    def run(self) -> None:
        while True:
            code = self.stream.read(1)
            if code == pickle.STOP:
                self.stack.pop()
                return
            step = _STEPS.get(code)
            if not code:
                raise Damage('the pickle is cut off')
            if step is None:
                raise Damage(f'not the pickle of a checkpoint: opcode {code!r}')
            step(self)

    def read(self, count: int) -> bytes:
        # In parts, as Python allocates whatever size it is asked for.
        data = b''
        while len(data) < count:
            part = self.stream.read(min(count - len(data), _PART))
            if not part:
                raise Damage('the pickle is cut off')
            data += part
        return data

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.read(struct.calcsize(form)))[0]

    def push_tuple(self, items: list[Any]) -> None:
        depth = 1 + max(
            (item.depth for item in items if type(item) is _Tuple), default=0
        )
        if depth > MAX_DEPTH:
            raise Refusal(f'tuples nested more than {MAX_DEPTH} levels deep')
        self.stack.append(_Tuple(tuple(items), depth))

    def pop(self, count: int) -> list[Any]:
        if count > len(self.stack):
            raise IndexError(count)
        items = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return items

    def pop_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.outer.pop()
        return items

    def mark(self) -> None:
        self.outer.append(self.stack)
        self.stack = []

    def find(self) -> None:
        position = self.stream.tell()
        # Without a limit, readline would read a whole file that has no newline.
        module, name = (self.stream.readline(1000)[:-1].decode() for _ in range(2))
        full = f'{module}.{name}'
        allowed = self.names
        if full in allowed.called or full in allowed.made or full in allowed.given:
            self.used.append((position, full))
        elif full not in STORAGES and full not in DTYPES:
            raise Refusal(full)
        self.stack.append(_Global(full))

    def call(self) -> None:
        function, arguments = self.pop(2)
        if type(function) is not _Global or function.name not in self.names.called:
            raise Refusal(f'a call of {_describe(function)}')
        if type(arguments) is not _Tuple:
            raise Refusal(f'a call with {_describe(arguments)} as arguments')
        self.stack.append(_Made(function.name))

    def make(self) -> None:
        kind, arguments = self.pop(2)
        if type(kind) is not _Global or kind.name not in self.names.made:
            raise Refusal(f'an instance of {_describe(kind)}')
        if type(arguments) is not _Tuple:
            raise Refusal(f'an instance with {_describe(arguments)} as arguments')
        self.stack.append(_Made(kind.name))

    def set_state(self) -> None:
        self.stack.pop()
        target = self.stack[-1]
        if type(target) is not _Made or target.by not in self.names.stateful:
            raise Refusal(f'{_describe(target)} with a state')

    def append(self, items: list[Any]) -> None:
        if self.stack[-1] != _LIST:
            raise Refusal(f'items appended to {_describe(self.stack[-1])}')

    def set_items(self, items: list[Any]) -> None:
        if len(items) % 2:
            raise Damage('incomplete pickle: a key without a value')
        if self.stack[-1] not in (_DICT, _Made('collections.OrderedDict')):
            raise Refusal(f'items set in {_describe(self.stack[-1])}')
        for key in items[::2]:
            parts = key.items if type(key) is _Tuple else (key,)
            # Hashing a nested key may overflow the stack, or take for ever.
            if any(type(part) not in ATOMS for part in parts):
                raise Refusal(f'a dict with {_describe(key)} as a key')

    def find_storage(self) -> None:
        reference = self.stack.pop()
        parts = reference.items if type(reference) is _Tuple else ()
        # In the format before zip archives, a sixth part makes views of storages.
        if len(parts) == 6 and parts[5] is None:
            parts = parts[:5]
        if [type(part) for part in parts] != [str, _Global, str, str, int]:
            raise Refusal('a reference that is not to a storage')
        kind, storage, key, _, count = parts
        dtype = STORAGES.get(storage.name)
        if kind != 'storage' or dtype is None or count < 0:
            raise Refusal(f'a reference to {kind!r} of {storage.name}')
        size = count * dtype.itemsize
        if self.storages.setdefault(key, size) != size:
            raise Refusal(f'two sizes of storage {key!r}')
        self.stack.append(_Made('storage'))


_LIST, _DICT, _SET = (_Made(name) for name in ('list', 'dict', 'set'))


def _describe(dummy: Any) -> str:
    """Describe a value on the machine's stack, for a message."""
    if type(dummy) is _Global:
        return dummy.name
    if type(dummy) is _Made:
        return f'an object of {dummy.by}'
    return 'a tuple' if type(dummy) is _Tuple else f'a value of {type(dummy).__name__}'


def _push(value: Any):
    return lambda machine: machine.stack.append(value)


def _push_number(form: str):
    return lambda machine: machine.stack.append(machine.number(form))


def _push_text(form: str):
    def step(machine: _Machine) -> None:
        data = machine.read(machine.number(form))
        machine.stack.append(str(data, 'utf-8', 'surrogatepass'))

    return step


def _push_long(machine: _Machine) -> None:
    data = machine.read(machine.number('<B'))
    machine.stack.append(pickle.decode_long(data))


def _tuple_of(count: int | None):
    def step(machine: _Machine) -> None:
        machine.push_tuple(machine.pop_mark() if count is None else machine.pop(count))

    return step


def _get(form: str):
    return lambda machine: machine.stack.append(machine.memo[machine.number(form)])


def _put(form: str):
    def step(machine: _Machine) -> None:
        machine.memo[machine.number(form)] = machine.stack[-1]

    return step


_STEPS: Mapping[bytes, Any] = {
    pickle.PROTO: lambda machine: machine.read(1),
    pickle.NONE: _push(None),
    pickle.NEWTRUE: _push(True),
    pickle.NEWFALSE: _push(False),
    pickle.BININT: _push_number('<i'),
    pickle.BININT1: _push_number('<B'),
    pickle.BININT2: _push_number('<H'),
    pickle.LONG1: _push_long,
    pickle.BINFLOAT: _push_number('>d'),
    pickle.BINUNICODE: _push_text('<I'),
    pickle.SHORT_BINSTRING: _push_text('<B'),
    pickle.EMPTY_LIST: _push(_LIST),
    pickle.EMPTY_DICT: _push(_DICT),
    pickle.EMPTY_SET: _push(_SET),
    pickle.EMPTY_TUPLE: _tuple_of(0),
    pickle.TUPLE1: _tuple_of(1),
    pickle.TUPLE2: _tuple_of(2),
    pickle.TUPLE3: _tuple_of(3),
    pickle.TUPLE: _tuple_of(None),
    pickle.MARK: _Machine.mark,
    pickle.GLOBAL: _Machine.find,
    pickle.REDUCE: _Machine.call,
    pickle.NEWOBJ: _Machine.make,
    pickle.BUILD: _Machine.set_state,
    pickle.BINPERSID: _Machine.find_storage,
    pickle.APPEND: lambda machine: machine.append(machine.pop(1)),
    pickle.APPENDS: lambda machine: machine.append(machine.pop_mark()),
    pickle.SETITEM: lambda machine: machine.set_items(machine.pop(2)),
    pickle.SETITEMS: lambda machine: machine.set_items(machine.pop_mark()),
    pickle.BINGET: _get('<B'),
    pickle.LONG_BINGET: _get('<I'),
    pickle.BINPUT: _put('<B'),
    pickle.LONG_BINPUT: _put('<I'),
}
