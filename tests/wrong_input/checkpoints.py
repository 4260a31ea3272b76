"""Checkpoint files that are damaged, hostile, or in another form."""

import io
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import torch

from dcls_mm.checkpoint import (
    CheckpointError,
    DamagedCheckpointError,
    MissingCheckpointError,
    read_checkpoint,
    weights_of,
)
from dcls_mm.checkpoint.content import check_content, check_training
from dcls_mm.checkpoint.errors import ContentError

from . import ROOT, wrong

sys.path.insert(0, str(ROOT / 'benchmarks'))
from checkpoint_grammar import call, integer, legacy, mapping, name, text  # noqa: E402

ONE = torch.ones(1)
ORDERED = call('collections.OrderedDict')
ARRAY_MAKER = name('numpy._core.multiarray._reconstruct')
F8 = call('numpy.dtype', text('f8'), b'\x89', b'\x88')
NOT_WRITTEN = 'which mmengine does not write'


def read(data, **options):
    """Write the bytes to a file and read it."""
    Path('x.pth').write_bytes(data)
    return read_checkpoint('x.pth', **options)


def zipped(pickled, **records):
    """Return the bytes of an archive; ``records`` replace or add some."""
    buffer = io.BytesIO()
    written = {
        'data.pkl': pickled,
        'byteorder': b'little',
        'version': b'3\n',
        **records,
    }
    with zipfile.ZipFile(buffer, 'w') as archive:
        for record, data in written.items():
            if data is not None:
                archive.writestr(f'x/{record}', data)
    return buffer.getvalue()


def saved(content, **options):
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def hostile(value, *says):
    """Make a row for a file with the result of this pickle program."""
    pickled = b'\x80\x02}' + text('x') + value + b's.'
    return wrong(
        lambda: read(zipped(pickled)),
        CheckpointError,
        'x.pth holds',
        NOT_WRITTEN,
        *says,
    )


def damaged(make, *says):
    """Make a row for a file with the bytes that ``make`` returns."""
    return wrong(
        lambda: read(make()), DamagedCheckpointError, 'x.pth is damaged', *says
    )


def no_weights(content, *says):
    return wrong(
        lambda: weights_of(content, 'a.pth'),
        ContentError,
        'a.pth holds no weights',
        *says,
    )


def form(check, content, *says):
    return wrong(lambda: check(content, 'a.pth'), ContentError, 'a.pth', *says)


def array(shape=b'(K\x02t', dtype=F8, data=None, column_major=b'\x89', start=None):
    start = start or call(
        'numpy._core.multiarray._reconstruct', name('numpy.ndarray'), b'(K\x00t'
    )
    data = data or raw(16)
    return start + b'(K\x01' + shape + dtype + column_major + data + b'tb'


def raw(count):
    return call('_codecs.encode', text('A' * count), text('latin1'))


def storage(kind='torch.FloatStorage', count=2, key='0'):
    parts = [text('storage'), name(kind), text(key), text('cpu'), integer(count)]
    return b'(' + b''.join(parts) + b'tQ'


def tensor(size=b'(K\x02t', stride=b'(K\x01t', offset=b'K\x00', rest=b'\x89'):
    parts = [storage(), offset, size, stride, rest, ORDERED]
    made = call('torch._utils._rebuild_tensor_v2', *parts)
    return b'\x80\x02}' + text('x') + made + b's.'


def hostile_tensor(says, **parts):
    data = {'data/0': bytes(8)}
    return wrong(
        lambda: read(zipped(tensor(**parts), **data)),
        CheckpointError,
        NOT_WRITTEN,
        says,
    )


def history(**parts):
    items = {'_log_history': array(), '_count_history': array(), **parts}
    items.setdefault('max_length', b'K\x09')
    made = name('mmengine.logging.history_buffer.HistoryBuffer') + b')\x81'
    return made + mapping({k: v for k, v in items.items() if v}) + b'b'


def with_attributes(**attributes):
    return ORDERED + mapping(attributes) + b'b'


def turned(data, part):
    data = bytearray(data)
    at = data.index(part)
    data[at] ^= 1
    return bytes(data)


def marked_as_folder(data):
    """Set the bit in the last record's directory entry that means a folder."""
    data = bytearray(data)
    data[data.rindex(b'PK\x01\x02') + 38] |= 0x10
    return bytes(data)


TRAINING = {
    'meta': {'epoch': 1, 'iter': 4},
    'state_dict': {'a': ONE},
    'message_hub': {'log_scalars': {}, 'runtime_info': {}, 'resumed_keys': {}},
    'optimizer': {},
}
FORGED_DTYPE = with_attributes(dtype=text('O'))
METADATA = OrderedDict(a=ONE)
METADATA._metadata = {'': 3}
VERSION = OrderedDict(a=ONE)
VERSION._metadata = {'': {'version': 'x'}}

ROWS = [
    # Names that no file may use.
    hostile(call('posix.system', text('touch canary')), 'posix.system'),
    hostile(call('builtins.eval', text('1')), 'builtins.eval'),
    hostile(call('__builtin__.exec', text('1')), '__builtin__.exec'),
    hostile(name('os.system'), 'os.system'),
    hostile(call('copy_reg._reconstructor'), 'copy_reg._reconstructor'),
    hostile(name('~umpy.dtype'), '~umpy.dtype'),
    hostile(call('torch._utils._rebuild_sparse_tensor'), '_rebuild_sparse_tensor'),
    hostile(call('torch._tensor._rebuild_from_type_v2'), '_rebuild_from_type_v2'),
    hostile(call('builtins.bytearray', integer(2**40)), 'builtins.bytearray'),
    # Names that a file may use, but differently.
    hostile(call('numpy.ndarray', b'K\x01'), 'a call of numpy.ndarray'),
    hostile(name('numpy.dtype') + b')\x81', 'an instance of numpy.dtype'),
    hostile(b'K\x01)R', 'a call of a value of int'),
    hostile(ARRAY_MAKER + b']R', 'a call with an object of list as arguments'),
    hostile(name('torch.float32') + b')R', 'a call of torch.float32'),
    hostile(ARRAY_MAKER, 'numpy.ndarray'),
    hostile(call('builtins.bytes', integer(2**40)), 'builtins.bytes with arguments'),
    hostile(call('_codecs.encode', text('a'), text('zlib')), 'not encoded as latin1'),
    hostile(
        call(
            'builtins.getattr',
            name('mmengine.logging.history_buffer.HistoryBuffer'),
            text('__init__'),
        ),
        'builtins.getattr',
    ),
    hostile(call('builtins.set', b'](])\x85e'), 'a set with items other'),
    hostile(call('builtins.complex', text('1')), 'an incomplete complex number'),
    hostile(call('torch.Size', b'(Nt'), 'a torch.Size with items other'),
    hostile(call('torch.device', b'K\x01'), 'a torch.device'),
    hostile(call('collections.Counter', b'K\x05'), 'a collections.Counter'),
    # Attributes in place of methods.
    hostile(
        with_attributes(pop=ARRAY_MAKER), "an OrderedDict with the attribute 'pop'"
    ),
    hostile(with_attributes(get=name('numpy.dtype')), "with the attribute 'get'"),
    hostile(with_attributes(__class__=text('x')), "with the attribute '__class__'"),
    hostile(b'}}b', 'an object of dict with a state'),
    hostile(b']}b', 'an object of list with a state'),
    hostile(F8 + b'(K\x03' + text('<') + b'tb' + b'(K\x03' + text('<') + b'tb', 'two'),
    # Containers that are nested too deeply, or unsafe to hash.
    hostile(b')' + b'\x85' * 200, 'tuples nested more than 100 levels deep'),
    hostile(b']' * 201 + b'a' * 200, 'values nested more than 100 levels deep'),
    hostile(b']q\x01h\x01a', 'a value that contains itself'),
    hostile(b'}q\x01' + text('me') + b'h\x01s', 'a value that contains itself'),
    hostile(
        b'(]q\xfc' + b'](h\xfch\xfceq\xfc' * 40 + b't',
        'nested lists with over 10000000 items',
    ),
    hostile(b'})\x85Ns', 'a dict with a tuple as a key'),
    hostile(b'}]Ns', 'a dict with an object of list as a key'),
    hostile(b'K\x01]a', 'items appended to a value of int'),
    hostile(b')K\x01K\x02s', 'items set in a tuple'),
    # numpy's arrays and numbers.
    hostile(
        array(dtype=FORGED_DTYPE), 'numpy.ndarray of dtype collections.OrderedDict'
    ),
    hostile(array(dtype=text('O')), 'a numpy.ndarray of dtype builtins.str'),
    hostile(array(dtype=call('numpy.dtype', text('O'))), "numpy.dtype('O')"),
    hostile(array(dtype=call('numpy.dtype', text('f8,O'))), "numpy.dtype('f8,O')"),
    hostile(array(shape=b'(K\x64t'), 'whose shape does not fit its data'),
    hostile(array(shape=b'(J\xfe\xff\xff\xfft'), 'whose shape does not fit its data'),
    hostile(array(shape=b']'), 'whose shape does not fit its data'),
    hostile(array(data=text('A' * 16)), 'whose data are builtins.str'),
    hostile(array(data=b']'), 'whose data are builtins.list'),
    hostile(call('numpy._core.multiarray._reconstruct'), 'an incomplete numpy.ndarray'),
    hostile(call('numpy._core.multiarray.scalar', F8, raw(4)), 'a numpy number'),
    hostile(
        call('numpy._core.multiarray.scalar', text('O'), raw(8)),
        'an incomplete numpy number',
    ),
    # Logged values.
    hostile(history(_count_history=None), 'a HistoryBuffer without its values'),
    hostile(history(_log_history=b']'), 'a HistoryBuffer without its values'),
    hostile(history(max_length=b'G' + bytes(8)), 'a HistoryBuffer without its values'),
    hostile(
        history(_log_history=array(b'(K\x01t', data=raw(8))), 'whose values do not ma'
    ),
    # Tensors.
    hostile_tensor('a tensor that is larger than its storage', size=b'(K\x03t'),
    hostile_tensor('a tensor that is larger than its storage', offset=b'K\x01'),
    hostile_tensor('whose size is not a tuple of numbers', size=b']'),
    hostile_tensor('whose size is not a tuple of numbers', offset=text('0')),
    hostile_tensor(
        'whose size is not a tuple of numbers', stride=b'(J\xff\xff\xff\xfft'
    ),
    hostile_tensor('whose size and stride differ in length', stride=b')'),
    hostile_tensor('an incomplete tensor', rest=b'N'),
    hostile(call('torch._utils._rebuild_tensor_v2', b'N'), 'an incomplete tensor'),
    hostile(storage('torch.float32'), 'a reference to', 'torch.float32'),
    hostile(storage(count=-1), 'a reference to'),
    hostile(b'K\x01Q', 'a reference that is not to a storage'),
    # Archives.
    damaged(lambda: b'', 'cut off'),
    damaged(lambda: b'<html>', 'opcode'),
    damaged(lambda: saved({'a': ONE})[:-5], 'not a zip file'),
    damaged(lambda: turned(saved({'a': ONE}), b'\x80?'), 'data/0 is not as it was'),
    damaged(lambda: marked_as_folder(saved({'a': ONE})), 'is marked as a folder'),
    damaged(lambda: zipped(None), 'a zip archive without x/data.pkl'),
    damaged(lambda: zipped(tensor()), 'the record x/data/0 has the wrong size'),
    damaged(lambda: zipped(b'\x80\x02}'), 'cut off'),
    damaged(lambda: zipped(b'\x80\x02h\x05.'), 'incomplete pickle'),
    damaged(lambda: zipped(b'\x80\x02\x93.'), r"opcode b'\x93'"),
    damaged(
        lambda: legacy(b'\x80\x02}.', {'0': bytes(4)}), 'bytes, but with its tensors'
    ),
    wrong(
        lambda: read(zipped(b'\x80\x02}.', **{'constants.pkl': b''})),
        CheckpointError,
        'a TorchScript program',
    ),
    wrong(
        lambda: read(zipped(b'\x80\x02}.', **{'DATA.PKL': b''})),
        CheckpointError,
        'two records with the same name',
    ),
    wrong(
        lambda: read(saved({'a': ONE}), sha256='00'),
        DamagedCheckpointError,
        'x.pth has the SHA-256',
        'expected 00',
    ),
    wrong(
        lambda: read_checkpoint('absent.pth'),
        MissingCheckpointError,
        'checkpoint absent.pth does not exist',
    ),
    wrong(
        lambda: read_checkpoint('http://127.0.0.1:9/x.pth'),
        CheckpointError,
        'could not be downloaded',
        'give the path of the file',
    ),
    wrong(
        lambda: read_checkpoint('mmcls://no_such_model'),
        CheckpointError,
        'mmengine knows no such name',
    ),
    # Contents that don't have the form of a checkpoint.
    no_weights([ONE], 'only a list'),
    no_weights(ONE, 'only a Tensor'),
    no_weights({'state_dict': None}, 'None as state_dict'),
    no_weights({'state_dict': 'weights'}, "'weights' as state_dict"),
    no_weights({'state_dict': {}}, 'state_dict with nothing'),
    no_weights({'state_dict': {1: ONE}}, 'the key 1, which is not the name'),
    no_weights({'epoch': 3}, 'only epoch'),
    no_weights({'model': {'a': ONE}}, 'only model'),
    form(weights_of, METADATA, '_metadata of its state_dict must be a dict of dicts'),
    form(weights_of, VERSION, '_metadata of its state_dict', 'an integer as version'),
    form(
        check_content, {**TRAINING, 'meta': [1]}, 'its meta must be a dict, got a list'
    ),
    form(
        check_content,
        {**TRAINING, 'meta': {3: 1}},
        'the keys of its meta must be strings',
    ),
    form(
        check_content,
        {**TRAINING, 'meta': {'CLASSES': [1]}},
        'meta CLASSES must be class names',
    ),
    form(
        check_content,
        {**TRAINING, 'meta': {'dataset_meta': 'coco'}},
        'its dataset_meta must be a dict, got a str',
    ),
    form(check_content, {**TRAINING, 'ema_state_dict': 3}, '3 as state_dict'),
    form(
        check_training, {'a': ONE}, 'holds no meta, message_hub, optimizer', 'load_from'
    ),
    form(
        check_training,
        {**TRAINING, 'meta': {'iter': 4}},
        'meta epoch must be a count, got None',
    ),
    form(
        check_training,
        {**TRAINING, 'meta': {'epoch': 1, 'iter': -1}},
        'meta iter must be a count, got -1',
    ),
    form(
        check_training,
        {**TRAINING, 'message_hub': {'log_scalars': {}}},
        'its runtime_info must be a dict, got nothing',
    ),
    *(
        form(
            check_training,
            {**TRAINING, 'meta': {**TRAINING['meta'], 'seed': seed}},
            *('meta seed must be from 0 to 2**32 - 1', f'got {seed!r}'),
        )
        for seed in ('x', -1, 2**32, True)
    ),
    form(
        check_training,
        {
            **TRAINING,
            'message_hub': {**TRAINING['message_hub'], 'runtime_info': {5: 1}},
        },
        'the keys of its runtime_info must be strings, got 5',
    ),
    form(
        check_training,
        {
            **TRAINING,
            'message_hub': {**TRAINING['message_hub'], 'resumed_keys': {'loss': 'x'}},
        },
        "its resumed_keys must be True or False, got 'x' for 'loss'",
    ),
    form(
        check_training,
        {**TRAINING, 'param_schedulers': 3},
        'its param_schedulers must be a list or dict, got a int',
    ),
]
