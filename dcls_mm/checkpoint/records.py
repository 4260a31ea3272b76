"""What a checkpoint of mmengine may hold besides plain containers, and how it is built.

A training checkpoint of mmengine 0.10 holds more than tensors: the logged values
(``HistoryBuffer``), numpy numbers and arrays and, for one-cycle schedules, a function.
torch refuses those by default. Putting the real types on its allow-list would not be
safe: a ``HistoryBuffer`` needs ``builtins.getattr``, and ``numpy.ndarray`` and
``numpy.dtype`` can be made to take raw bytes for pointers to objects.

So every function and class that a file may name is a *record* here, which only keeps
the arguments and the state from the file. Nothing is built from them until the file is
read. Then ``plain.plain`` rebuilds the checkpoint, and checks the exact type of every
object before it calls a method of it.
"""

import argparse
import re
import warnings
from collections import Counter, OrderedDict
from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler

from .errors import Refusal, short
from .program import ATOMS, Names


class Record:
    """A call that a file asks for, and the state that it sets on the result."""

    __slots__ = ('arguments', 'state')
    name = ''

    def __new__(cls, *arguments):
        record = super().__new__(cls)
        record.arguments = arguments
        record.state = None
        return record

    def __init__(self, *arguments) -> None:
        pass

    def __setstate__(self, state) -> None:
        if self.state is not None or state is None:
            raise Refusal(f'two states for {self.name}')
        self.state = state

    def restore(self, plain: Callable[..., Any], depth: int) -> Any:
        """Return the result of the call; ``plain`` rebuilds what it contains."""
        raise Refusal(self.name)

    def takes(self, *kinds: type) -> bool:
        """Return whether the arguments are of exactly these types."""
        return tuple(map(type, self.arguments)) == kinds


class _Array(Record):
    name = 'numpy.ndarray'

    def restore(self, plain, depth):
        if type(self.state) is not tuple or len(self.state) != 5:
            raise Refusal('an incomplete numpy.ndarray')
        _, shape, dtype, column_major, data = self.state
        if type(dtype) is not _Dtype:
            raise Refusal(f'a numpy.ndarray of dtype {kind_of(dtype)}')
        dtype = dtype.restore(plain, depth)
        data = _raw(data, plain, depth)
        if not _are_sizes(shape) or prod(shape) * dtype.itemsize != len(data):
            raise Refusal('a numpy.ndarray whose shape does not fit its data')
        order = 'F' if column_major is True else 'C'
        return np.ndarray(shape, dtype, data, order=order).copy(order='K')


class _ArrayType(Record):
    name = 'numpy.ndarray'


class _Dtype(Record):
    name = 'numpy.dtype'

    def restore(self, plain, depth):
        code = self.arguments[0] if self.arguments else None
        if type(code) is not str or not re.fullmatch('[biuf][1248]', code):
            # Objects in an array are pointers, and structures may contain objects.
            raise Refusal(f'numpy.dtype({short(code)})')
        dtype = np.dtype(code)
        if self.state is None:
            return dtype
        # Only the byte order of the state: its flags could make numpy see pointers.
        if type(self.state) is not tuple or len(self.state) < 2:
            raise Refusal('an incomplete numpy.dtype')
        return dtype.newbyteorder('>') if is_text(self.state[1], '>') else dtype


class _Number(Record):
    name = 'numpy.generic'

    def restore(self, plain, depth):
        if not self.takes(_Dtype, _Bytes) and not self.takes(_Dtype, _EmptyBytes):
            raise Refusal('an incomplete numpy number')
        dtype, data = self.arguments
        dtype, data = dtype.restore(plain, depth), data.restore(plain, depth)
        if len(data) != dtype.itemsize:
            raise Refusal('a numpy number whose type does not fit its data')
        return np.frombuffer(data, dtype)[0]


class _Bytes(Record):
    name = '_codecs.encode'

    def restore(self, plain, depth):
        if not self.takes(str, str) or self.arguments[1] != 'latin1':
            raise Refusal('bytes that are not encoded as latin1')
        return self.arguments[0].encode('latin1')


class _EmptyBytes(Record):
    name = 'builtins.bytes'

    def restore(self, plain, depth):
        if self.arguments:  # bytes(10**12) would fill the memory
            raise Refusal('builtins.bytes with arguments')
        return b''


class _Complex(Record):
    name = 'builtins.complex'

    def restore(self, plain, depth):
        if not self.takes(float, float):
            raise Refusal('an incomplete complex number')
        return complex(*self.arguments)


class _Set(Record):
    name = 'builtins.set'

    def restore(self, plain, depth):
        items = self.arguments[0] if self.takes(list) else [self]
        if any(type(item) not in ATOMS for item in items):
            raise Refusal('a set with items other than numbers and strings')
        return set(items)


class _Counter(Record):
    """The milestones of a schedule."""

    name = 'collections.Counter'

    def restore(self, plain, depth):
        counts = plain(self.arguments[0], depth) if self.takes(dict) else {None: None}
        if any(type(count) not in (int, float) for count in counts.values()):
            raise Refusal('a collections.Counter with counts other than numbers')
        return Counter(counts)


class _Namespace(Record):
    """The arguments of a command, which other authors' files often keep."""

    name = 'argparse.Namespace'

    def restore(self, plain, depth):
        state = plain(self.state, depth)
        if type(state) is not dict or any(type(key) is not str for key in state):
            raise Refusal('an argparse.Namespace without its values')
        return argparse.Namespace(**state)


class _History(Record):
    name = 'mmengine.logging.history_buffer.HistoryBuffer'

    def restore(self, plain, depth):
        # Its table of functions is left out, as HistoryBuffer puts it into the class.
        state = self.state if type(self.state) is dict else {}
        parts = [state.get(key) for key in ('_log_history', '_count_history')]
        length = state.get('max_length')
        if [*map(type, parts), type(length)] != [_Array, _Array, int]:
            raise Refusal('a HistoryBuffer without its values')
        values, counts = (part.restore(plain, depth) for part in parts)
        if values.ndim != 1 or values.shape != counts.shape or length < 1:
            raise Refusal('a HistoryBuffer whose values do not match its counts')
        return HistoryBuffer(values, counts, length)


class _OneCycle(Record):
    name = 'mmengine.optim.scheduler.param_scheduler.OneCycleParamScheduler'


class _Method(Record):
    """``getattr``, by which pickle names a method of a class."""

    name = 'builtins.getattr'
    known = {
        name: getattr(OneCycleParamScheduler, name)
        for name in ('_annealing_cos', '_annealing_linear')
    }

    def restore(self, plain, depth):
        owner, name = self.arguments if len(self.arguments) == 2 else (None, None)
        if owner is not _OneCycle or type(name) is not str or name not in self.known:
            raise Refusal(self.name)
        return self.known[name]


class _Tensor(Record):
    name = 'torch._utils._rebuild_tensor_v2'

    def restore(self, plain, depth):
        # The sixth argument is hooks, which torch ignores too.
        given = self.arguments if len(self.arguments) > 4 else (*self.arguments, False)
        if not 5 <= len(given) <= 7:
            raise Refusal('an incomplete tensor')
        storage, offset, size, stride, requires_grad = given[:5]
        return _finish(_view(storage, offset, size, stride), requires_grad, given[6:])


class _TypedTensor(Record):
    name = 'torch._utils._rebuild_tensor_v3'

    def restore(self, plain, depth):
        if not 7 <= len(self.arguments) <= 8:
            raise Refusal('an incomplete tensor')
        storage, offset, size, stride, requires_grad, _, dtype, *rest = self.arguments
        return _finish(_view(storage, offset, size, stride, dtype), requires_grad, rest)


class _Parameter(Record):
    name = 'torch._utils._rebuild_parameter'

    def restore(self, plain, depth):
        data, requires_grad = (*self.arguments[:2], *[None] * 2)[:2]
        if type(data) not in (_Tensor, _TypedTensor) or type(requires_grad) is not bool:
            raise Refusal('a parameter without its tensor')
        return torch.nn.Parameter(plain(data, depth).detach(), requires_grad)


class _Size(Record):
    name = 'torch.Size'

    def restore(self, plain, depth):
        if not self.takes(tuple) or not _are_sizes(self.arguments[0]):
            raise Refusal('a torch.Size with items other than numbers')
        return torch.Size(self.arguments[0])


class _Device(Record):
    name = 'torch.device'

    def restore(self, plain, depth):
        if not self.takes(str) and not self.takes(str, int):
            raise Refusal('a torch.device without its name')
        return torch.device(*self.arguments)


def _ordered_dict(*pairs) -> OrderedDict:
    """Build an OrderedDict as pickled: empty, or by Python 2 with a list of items."""
    made = OrderedDict()
    for pair in pairs[0] if len(pairs) == 1 and type(pairs[0]) is list else pairs:
        if type(pair) not in (list, tuple) or len(pair) != 2 or not is_key(pair[0]):
            raise Refusal('an OrderedDict with items other than keys and values')
        made[pair[0]] = pair[1]
    return made


_CALLED = {
    '_codecs.encode': _Bytes,
    'builtins.bytes': _EmptyBytes,
    'builtins.complex': _Complex,
    'builtins.getattr': _Method,
    'builtins.set': _Set,
    'collections.Counter': _Counter,
    'collections.OrderedDict': _ordered_dict,
    'numpy._core.multiarray._reconstruct': _Array,
    'numpy._core.multiarray.scalar': _Number,
    'numpy.core.multiarray._reconstruct': _Array,  # as numpy 1 names it
    'numpy.core.multiarray.scalar': _Number,
    'numpy.dtype': _Dtype,
    'torch.Size': _Size,
    'torch._utils._rebuild_parameter': _Parameter,
    'torch._utils._rebuild_tensor': _Tensor,  # as torch before 0.4 wrote them
    'torch._utils._rebuild_tensor_v2': _Tensor,
    'torch._utils._rebuild_tensor_v3': _TypedTensor,
    'torch.device': _Device,
}
_MADE = {
    'argparse.Namespace': _Namespace,
    'mmengine.logging.history_buffer.HistoryBuffer': _History,
}
_GIVEN = {
    'mmengine.optim.scheduler.param_scheduler.OneCycleParamScheduler': _OneCycle,
    'numpy.ndarray': _ArrayType,
}


def _as_python_2(table: dict[str, Any]) -> dict[str, Any]:
    """Add the names that pickle's protocol 2 gives to builtins."""
    old = {
        re.sub('^builtins', '__builtin__', name): item for name, item in table.items()
    }
    return {**table, **old}


CALLED = _as_python_2(_CALLED)
STAND_INS = {**CALLED, **_MADE, **_GIVEN}
NAMES = Names(
    called=frozenset(CALLED),
    made=frozenset(_MADE),
    given=frozenset(_GIVEN) | frozenset(_MADE),
    stateful=frozenset(
        name
        for name, stand_in in STAND_INS.items()
        if stand_in in (_Array, _Dtype, _History, _Namespace, _ordered_dict)
    ),
)


def is_key(key: Any) -> bool:
    parts = key if type(key) is tuple else (key,)
    return all(type(part) in ATOMS for part in parts)


def is_text(value: Any, text: str) -> bool:
    return type(value) is str and value == text


def kind_of(value: Any) -> str:
    kind = value if isinstance(value, type) else type(value)
    if issubclass(kind, Record):
        return kind.name
    return f'{kind.__module__}.{kind.__name__}'


def _are_sizes(value: Any) -> bool:
    return type(value) is tuple and all(
        type(size) is int and 0 <= size < 2**48 for size in value
    )


def _raw(data: Any, plain: Callable[..., Any], depth: int) -> bytes:
    if type(data) not in (_Bytes, _EmptyBytes):
        raise Refusal(f'a numpy.ndarray whose data are {kind_of(data)}')
    return data.restore(plain, depth)


def _view(
    storage: Any, offset: Any, size: Any, stride: Any, dtype: Any | None = None
) -> torch.Tensor:
    """Return a tensor on a storage, after checking that it fits inside."""
    if type(storage) is not torch.storage.TypedStorage:
        raise Refusal(f'a tensor on {kind_of(storage)}')
    if dtype is not None and type(dtype) is not torch.dtype:
        raise Refusal(f'a tensor of dtype {kind_of(dtype)}')
    if not (_are_sizes((offset,)) and _are_sizes(size) and _are_sizes(stride)):
        raise Refusal('a tensor whose size is not a tuple of numbers')
    if len(size) != len(stride):
        raise Refusal('a tensor whose size and stride differ in length')
    with warnings.catch_warnings():  # TypedStorage, which files name, is deprecated
        warnings.simplefilter('ignore', UserWarning)
        memory = storage.untyped()
    kind = storage.dtype if dtype is None else dtype
    tensor = torch.empty(0, dtype=kind, device=memory.device)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride)) + 1
    if 0 not in size and last * tensor.element_size() > memory.nbytes():
        raise Refusal('a tensor that is larger than its storage')
    return tensor.set_(memory, offset, size, stride)


def _finish(tensor: torch.Tensor, requires_grad: Any, metadata) -> torch.Tensor:
    if type(requires_grad) is not bool:
        raise Refusal('an incomplete tensor')
    # Conjugate and negative views have metadata, but no state_dict has such views.
    if any(part is not None and (type(part) is not dict or part) for part in metadata):
        raise Refusal('a tensor with metadata')
    return tensor.requires_grad_(requires_grad)
