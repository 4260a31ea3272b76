"""Checkpoint files as an attacker might write them, drawn at random.

There are three kinds of files:

- a pickle made of the opcodes that torch's ``weights_only`` unpickler allows, in the
  form of an mmengine training checkpoint with some parts replaced;
- the pickle of a real checkpoint, with bytes changed or moved;
- a whole real file with a few bits flipped.
"""

import io
import pickle
import random
import struct
import zipfile
from collections import Counter, OrderedDict

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

# What torch itself allows, what mmengine's loaders add, and what nobody may use.
TORCH = [
    'collections.OrderedDict',
    'collections.Counter',
    'torch.nn.parameter.Parameter',
    'torch.serialization._get_layout',
    'torch.Size',
    'torch.Tensor',
    'torch.device',
    '_codecs.encode',
    'builtins.bytearray',
    'builtins.set',
    'builtins.complex',
    'torch.float32',
    'torch.int64',
    'torch.FloatTensor',
    'torch.sparse.FloatTensor',
    'torch.FloatStorage',
    'torch.QInt8Storage',
    'torch.storage.UntypedStorage',
    'torch.storage.TypedStorage',
    'torch.per_tensor_affine',
    'torch._utils._rebuild_parameter',
    'torch._utils._rebuild_parameter_with_state',
    'torch._utils._rebuild_qtensor',
    'torch._utils._rebuild_tensor',
    'torch._utils._rebuild_tensor_v2',
    'torch._utils._rebuild_tensor_v3',
    'torch._utils._rebuild_sparse_tensor',
    'torch._utils._rebuild_meta_tensor_no_storage',
    'torch._utils._rebuild_nested_tensor',
    'torch._utils._rebuild_wrapper_subclass',
    'torch._utils._rebuild_device_tensor_from_numpy',
    'torch._tensor._rebuild_from_type_v2',
    'torch._utils._rebuild_device_tensor_from_cpu_tensor',
]
ADDED = [
    'builtins.getattr',
    '__builtin__.getattr',
    'builtins.bytes',
    '__builtin__.set',
    'numpy.dtype',
    'numpy.ndarray',
    'numpy._core.multiarray._reconstruct',
    'numpy._core.multiarray.scalar',
    'numpy.core.multiarray._reconstruct',
    'numpy.core.multiarray.scalar',
    'argparse.Namespace',
    'mmengine.logging.history_buffer.HistoryBuffer',
    '~umpy.dtype',
    '~uiltins.getattr',
    'mmengine.optim.scheduler.param_scheduler.OneCycleParamScheduler',
]
FORBIDDEN = [
    'posix.system',
    'os.system',
    'builtins.eval',
    'builtins.exec',
    'builtins.open',
    'builtins.__import__',
    'subprocess.Popen',
    'copyreg._reconstructor',
    'shutil.rmtree',
    'importlib.import_module',
    'ctypes.string_at',
    'functools.partial',
]
RECONSTRUCT = 'numpy._core.multiarray._reconstruct'
ATTRIBUTES = [
    'pop',
    'get',
    'items',
    'keys',
    'values',
    'update',
    'copy',
    'dtype',
    '_metadata',
    '__class__',
    '__dict__',
    '__setstate__',
    '__reduce__',
    'restore',
    'state',
    'data',
    'name',
    'shape',
    'append',
]
TEXTS = ['O', 'f8', 'i4', 'V8', '>', 'latin1', 'zlib', 'utf-16', 'storage', '0', 'cpu']
TEXTS += ['_annealing_cos', '__init__', '__globals__', 'mean', 'f8,O', '', 'meta']


def integer(number: int) -> bytes:
    """Encode an integer as pickle protocol 2 does."""
    if -(2**31) <= number < 2**31:
        return b'J' + struct.pack('<i', number)
    data = pickle.encode_long(number)
    return b'\x8a' + bytes([len(data)]) + data


def text(value: str) -> bytes:
    data = value.encode('utf-8', 'surrogatepass')
    return b'X' + struct.pack('<I', len(data)) + data


def name(full: str) -> bytes:
    """Return the opcode that names a function or class."""
    module, _, last = full.rpartition('.')
    return f'c{module}\n{last}\n'.encode()


def call(function: str, *arguments: bytes) -> bytes:
    return name(function) + b'(' + b''.join(arguments) + b'tR'


def mapping(items: dict[str, bytes], start: bytes = b'}') -> bytes:
    return start + b'(' + b''.join(text(k) + v for k, v in items.items()) + b'u'


class Grammar:
    """A generator of unpickler programs; ``canary`` is the file they try to write."""

    def __init__(self, draw: random.Random, canary: str) -> None:
        self.draw = draw
        self.canary = canary
        self.storages: dict[str, bytes] = {}
        self.memo = 0
        self.legacy = draw.random() < 0.15
        self.wildness = draw.choice([0.02, 0.05, 0.2, 1.0])

    def maybe(self, chance: float) -> bool:
        return self.draw.random() < chance

    def wild(self, chance: float = 1.0) -> bool:
        """Return whether to deviate from the usual; some files do so more often."""
        return self.draw.random() < chance * self.wildness

    def number(self) -> bytes:
        edge = [0, 1, 2, -1, 8, 64, 2**31, 2**40, 2**63, -(2**63), 10**15]
        return integer(self.draw.choice(edge))

    def any_name(self) -> bytes:
        kind = self.draw.choice([TORCH, ADDED, ADDED, FORBIDDEN])
        return name(self.draw.choice(kind))

    def atom(self) -> bytes:
        kinds = [
            lambda: text(self.draw.choice(TEXTS)),
            lambda: bytes([self.draw.choice(b'N\x88\x89]}\x8f)')]),
            lambda: b'G' + self.draw.randbytes(8),
            lambda: integer(self.draw.randrange(-9, 99)),
            self.old,
        ]
        if self.wild():
            config = text(f'open({self.canary!r}, "w")')
            kinds = [self.number, self.any_name, lambda: config]
        return self.draw.choice(kinds)()

    def old(self) -> bytes:
        """Refer to an object that the pickle made earlier."""
        return b'h' + bytes([self.draw.randrange(self.memo)]) if self.memo else b'N'

    def keep(self, made: bytes) -> bytes:
        if self.memo < 200 and self.maybe(0.3):
            self.memo += 1
            return made + b'q' + bytes([self.memo - 1])
        return made

    def value(self, depth: int = 0) -> bytes:
        if depth > 4 or self.maybe(0.25):
            return self.atom()
        kinds = [
            self.array,
            self.tensor,
            self.history,
            self.scalar,
            lambda: self.ordered({'a': self.value(depth + 1)}),
            lambda: mapping({'a': self.value(depth + 1), 'b': self.atom()}),
            lambda: b'](' + self.value(depth + 1) + self.value(depth + 1) + b'e',
            lambda: b'(' + self.value(depth + 1) + self.atom() + b't',
        ]
        if self.wild():
            kinds = [
                lambda: b'}' + self.value(depth + 1) + self.atom() + b's',
                lambda: self.any_call(depth),
                lambda: self.value(depth + 1) + self.state() + b'b',
                self.deep,
            ]
        return self.keep(self.draw.choice(kinds)())

    def any_call(self, depth: int) -> bytes:
        count = self.draw.randrange(5)
        arguments = b''.join(self.value(depth + 1) for _ in range(count))
        how = self.draw.choice([b'tR', b'tR', b't\x81'])
        return self.any_name() + b'(' + arguments + how

    def deep(self) -> bytes:
        """Return a deep nest, sometimes as a key or containing itself."""
        if self.maybe(0.3):
            return b']q\xfeh\xfea'
        if self.maybe(0.2):  # lists, each holding the previous one twice
            return b'(]q\xfc' + b'](h\xfch\xfceq\xfc' * 40 + b't'
        wrap = self.draw.choice([b'\x85', b'\x86'])
        count = self.draw.choice([10, 200, 100_000])
        if wrap == b'\x86':
            return b')' + b'q\xffh\xff\x86' * count
        nest = b')' + wrap * count
        return b'}' + nest + b'Ns' if self.maybe(0.5) else nest

    def state(self) -> bytes:
        """Return what BUILD gives to an object: usually attributes."""
        if self.maybe(0.2):
            return self.value(3)
        attributes = self.draw.choices(ATTRIBUTES, k=self.draw.randint(1, 2))
        items = {key: self.attribute() for key in attributes}
        made = mapping(items)
        return b'(' + b'}' + made + b't' if self.maybe(0.1) else made

    def attribute(self) -> bytes:
        if self.maybe(0.5):
            return name(RECONSTRUCT)
        return self.any_name() if self.maybe(0.5) else text(self.draw.choice(TEXTS))

    def ordered(self, items: dict[str, bytes], chance: float = 0.3) -> bytes:
        made = mapping(items, call('collections.OrderedDict'))
        return made + self.state() + b'b' if self.wild(chance) else made

    def or_else(self, usual: bytes, chance: float = 0.08) -> bytes:
        """Return what belongs somewhere, or occasionally something else."""
        return self.value(3) if self.wild(chance) else usual

    def raw(self, data: bytes) -> bytes:
        usual = call('_codecs.encode', text(data.decode('latin1')), text('latin1'))
        return self.or_else(usual)

    def dtype(self) -> bytes:
        code = self.draw.choice(TEXTS) if self.wild(0.1) else 'f8'
        made = call('numpy.dtype', self.or_else(text(code)), b'\x89', b'\x88')
        if self.maybe(0.5):
            flags = integer(self.draw.choice([0, 0, 27, 63]))
            order = text(self.draw.choice('<>|='))
            made += b'(K\x03' + order + b'NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff'
            made += flags + b'tb'
        if self.wild(0.15):  # an object that carries a dtype
            made = self.ordered({}, 0) + mapping({'dtype': self.attribute()}) + b'b'
        return self.or_else(made)

    def array(self) -> bytes:
        start = call(RECONSTRUCT, name('numpy.ndarray'), b'(K\x00t', self.raw(b'b'))
        shape = self.or_else(b'(' + integer(2) + b't')
        column_major = self.or_else(b'\x89')
        data = self.raw(b'A' * (self.draw.choice([8, 0]) if self.wild(0.2) else 16))
        state = b'(K\x01' + shape + self.dtype() + column_major + data + b'tb'
        return self.or_else(start) + state

    def scalar(self) -> bytes:
        data = self.raw(b'A' * (4 if self.wild(0.2) else 8))
        return call('numpy._core.multiarray.scalar', self.dtype(), data)

    def history(self) -> bytes:
        owner = name('mmengine.logging.history_buffer.HistoryBuffer')
        method = call('builtins.getattr', self.or_else(owner), text('mean'))
        items = {
            '_log_history': self.array(),
            '_count_history': self.array(),
            'max_length': self.or_else(integer(1000)),
            'statistics_methods': self.or_else(mapping({'mean': method}), 0.2),
        }
        made = name('mmengine.logging.history_buffer.HistoryBuffer') + b')\x81'
        return made + self.or_else(mapping(items)) + b'b'

    def storage(self, count: int) -> bytes:
        key = '0' if self.wild(0.2) else str(len(self.storages))
        self.storages.setdefault(key, bytes(4 * count))
        said = self.number() if self.wild(0.1) else integer(count)
        parts = [
            text('storage'),
            name('torch.FloatStorage'),
            text(key),
            text('cpu'),
            said,
        ]
        if self.wild(0.1):
            parts[self.draw.randrange(5)] = self.value(3)
        if self.legacy:
            parts.append(b'N')  # the storage that this one is a view of
        return b'(' + b''.join(parts) + b'tQ'

    def tensor(self) -> bytes:
        storage = self.or_else(self.storage(4), 0.04)
        offset = self.or_else(integer(0))
        size = self.or_else(b'(' + integer(2) + integer(2) + b't')
        stride = self.or_else(b'(' + integer(2) + integer(1) + b't')
        rest = [self.or_else(b'\x89'), self.or_else(call('collections.OrderedDict'))]
        return call(
            'torch._utils._rebuild_tensor_v2', storage, offset, size, stride, *rest
        )

    def checkpoint(self) -> bytes:
        config = {'config': text(f'open({self.canary!r}, "w")')}
        numbers = {'epoch': self.or_else(integer(1)), 'iter': self.or_else(integer(4))}
        hub = {
            'log_scalars': mapping({'loss': self.or_else(self.history())}),
            'runtime_info': mapping({'x': self.value()}),
            'resumed_keys': self.ordered({}),
        }
        parts = {
            'meta': self.or_else(self.ordered({**numbers, **config})),
            'state_dict': self.or_else(self.ordered({'weight': self.tensor()})),
            'message_hub': self.or_else(self.ordered(hub, 0.1)),
            'optimizer': self.value(),
        }
        made = self.ordered(parts, 0.5) if self.maybe(0.3) else mapping(parts)
        return b'\x80\x02' + made + b'.'


def zipped(pickled: bytes, storages: dict[str, bytes], compress: bool = False) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w') as archive:
        how = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
        archive.writestr('x/data.pkl', pickled, how)
        archive.writestr('x/byteorder', b'little')
        for key, data in storages.items():
            archive.writestr(f'x/data/{key}', data, how)
        archive.writestr('x/version', b'3\n')
    return buffer.getvalue()


def legacy(pickled: bytes, storages: dict[str, bytes]) -> bytes:
    """Encode in the format that preceded zip archives."""
    heads = [0x1950A86A20F9469CFC6C, 1001, {'little_endian': True}]
    parts = [pickle.dumps(head, protocol=2) for head in heads]
    parts += [pickled, pickle.dumps(sorted(storages), protocol=2)]
    for key in sorted(storages):
        parts += [struct.pack('<q', len(storages[key]) // 4), storages[key]]
    return b''.join(parts)


def training_checkpoint() -> dict:
    """Return a small version of what a training writes."""
    history = HistoryBuffer([1.0, 2.0], [1, 1])
    weights = OrderedDict(weight=torch.arange(12.0).reshape(3, 4), bias=torch.ones(3))
    weights._metadata = OrderedDict({'': {'version': 1}})
    state = {0: {'step': torch.tensor(4.0), 'exp_avg': torch.zeros(3, 4)}}
    return {
        'meta': {'epoch': 1, 'iter': 4, 'seed': 1, 'dataset_meta': {'classes': ('a',)}},
        'state_dict': weights,
        'message_hub': {
            'log_scalars': {'train/loss': history},
            'runtime_info': {'iter': 4, 'best': np.float64(0.5)},
            'resumed_keys': {'train/loss': True},
        },
        'optimizer': {'state': state, 'param_groups': [{'lr': 0.1, 'params': [0]}]},
        'param_schedulers': [{'milestones': Counter({2: 1, 3: 1}), 'last_step': 4}],
    }


def real_file(zip_format: bool = True) -> bytes:
    buffer = io.BytesIO()
    checkpoint = training_checkpoint()
    torch.save(checkpoint, buffer, _use_new_zipfile_serialization=zip_format)
    return buffer.getvalue()


def change(draw: random.Random, data: bytes) -> bytes:
    """Replace, delete, duplicate or move bytes in a few places."""
    changed = bytearray(data)
    for _ in range(draw.randint(1, 3)):
        at, length = draw.randrange(len(changed)), draw.randint(1, 12)
        part = bytes(changed[at : at + length])
        kind = draw.randrange(4)
        if kind == 0:
            changed[at] = draw.choice(b'bRQ\x81.ahqrstuceJKNX}])\x85\x86\x87(\x8f\x8a')
        elif kind == 1:
            changed[at] = draw.randrange(256)
        elif kind == 2:
            del changed[at : at + length]
        else:
            to = draw.randrange(len(changed))
            changed[to:to] = part
        changed = changed or bytearray(b'.')
    return bytes(changed)


def example(seed: int, number: int, canary: str, real: bytes) -> tuple[bytes, str]:
    """Draw one file.

    Args:
        seed, number: the same pair gives the same file.
        canary: path of a file that the drawn file tries to write.
        real: bytes of a checkpoint that torch wrote as a zip archive.

    Returns:
        The file's bytes, and its kind: 'program', 'changed' (the pickle of a real one)
        or 'turned' (bits of a real one).
    """
    draw = random.Random(f'{seed} {number}')
    kind = draw.choices(['program', 'changed', 'turned'], [6, 3, 1])[0]
    if kind == 'turned':
        turned = bytearray(real)
        for _ in range(draw.randint(1, 2)):
            turned[draw.randrange(len(turned))] ^= 1 << draw.randrange(8)
        return bytes(turned), kind
    old = draw.random() < 0.15
    if kind == 'changed':
        with zipfile.ZipFile(io.BytesIO(real)) as archive:
            records = {n.partition('/')[2]: archive.read(n) for n in archive.namelist()}
        pickled = change(draw, records['data.pkl'])
        storages = {n[5:]: data for n, data in records.items() if n.startswith('data/')}
    else:
        grammar = Grammar(draw, canary)
        old = grammar.legacy
        pickled, storages = grammar.checkpoint(), grammar.storages
        if draw.random() < 0.1:
            pickled = change(draw, pickled)
    if old:
        return legacy(pickled, storages), kind
    return zipped(pickled, storages, compress=draw.random() < 0.02), kind
