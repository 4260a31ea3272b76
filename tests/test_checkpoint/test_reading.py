"""What mmengine writes loads; anything else is refused, and none of it runs."""

import copy
import hashlib
import http.server
import os
import pickle
import shutil
import struct
import threading
import zipfile
from pathlib import Path

import mmengine.runner.checkpoint as runner_checkpoint
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader, Runner
from toy import toy_config  # noqa: E402

from dcls_mm import checkpoint  # noqa: E402
from dcls_mm.checkpoint import (
    CheckpointError,
    DamagedCheckpointError,
    MissingCheckpointError,
    read_checkpoint,
)
from dcls_mm.checkpoint.mmengine_loaders import as_data

SCHEDULERS = [
    {'type': 'LinearLR', 'start_factor': 0.1, 'by_epoch': False, 'end': 4},
    {'type': 'MultiStepLR', 'milestones': [1, 2]},
    {'type': 'CosineAnnealingLR', 'T_max': 3},
    {'type': 'CosineRestartLR', 'periods': [2], 'restart_weights': [1], 'eta_min': 0},
    {'type': 'PolyLR', 'power': 0.9},
    {'type': 'ReduceOnPlateauLR', 'monitor': 'score'},
    {'type': 'MultiStepMomentum', 'milestones': [1]},
    {'type': 'OneCycleLR', 'eta_max': 0.1, 'total_steps': 20},
]
METAINFO = {
    'classes': ('a', 'b'),
    'palette': np.arange(6, dtype=np.uint8).reshape(3, 2).T,  # column-major
    'number': np.float32(0.5),
    'flag': np.bool_(True),
}


class Keep(Hook):
    """A copy of the checkpoint that is about to be written."""

    priority = 'LOWEST'

    def before_save_checkpoint(self, runner, checkpoint):
        self.checkpoint = copy.deepcopy(checkpoint)


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """Return the file that a training wrote, and what it should contain."""
    folder = tmp_path_factory.mktemp('trained')
    config = toy_config(
        default_scope='mmengine',
        custom_imports=None,
        work_dir=str(folder),
        train_cfg={'by_epoch': True, 'max_epochs': 1},
        param_scheduler=SCHEDULERS,
        custom_hooks=[{'type': 'EMAHook'}],
        default_hooks={'checkpoint': {'type': 'CheckpointHook', 'save_best': 'score'}},
    )
    config['default_hooks']['checkpoint']['rule'] = 'greater'
    runner = Runner.from_cfg(Config(config))
    runner.train_dataloader.dataset.metainfo = METAINFO
    keep = Keep()
    runner.register_hook(keep)
    runner.train()
    return folder / 'epoch_1.pth', keep.checkpoint


def same(a, b):
    """Return whether two checkpoints are equal, including the types."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, (np.ndarray, np.generic)):
        return a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(a, HistoryBuffer):
        return same(list(a.data), list(b.data)) and a.max_length == b.max_length
    return a == b


def rename_globals(source, target, names):
    """Copy a checkpoint file with the names of globals in its pickle replaced."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, 'w') as new:
        for entry in old.namelist():
            data = old.read(entry)
            if entry.endswith('data.pkl'):
                for name, replacement in names.items():
                    data = data.replace(name, replacement)
            new.writestr(entry, data)


def test_a_training_checkpoint_loads_as_it_was_written(trained):
    path, expected = trained
    assert same(read_checkpoint(str(path)), expected)


@pytest.mark.parametrize('old, new', [(b'_core', b'core'), (b'core', b'_core')])
def test_names_of_either_numpy_load(trained, tmp_path, old, new):
    path, expected = trained
    names = {b'numpy.' + old + b'.multiarray': b'numpy.' + new + b'.multiarray'}
    rename_globals(path, tmp_path / 'other.pth', names)
    assert same(read_checkpoint(str(tmp_path / 'other.pth')), expected)


def test_loaded_values_are_writable_and_big_endian_ones_convert(tmp_path):
    values = {'a': np.arange(3, dtype='>f8'), 'empty': np.zeros((0, 2), 'int16')}
    torch.save(values, tmp_path / 'x.pth')
    loaded = read_checkpoint(str(tmp_path / 'x.pth'))
    loaded['a'] += 1
    assert loaded['a'].tolist() == [1, 2, 3]
    assert loaded['empty'].shape == (0, 2)


def test_mmengine_itself_loads_through_it(trained):
    path, expected = trained
    assert same(CheckpointLoader.load_checkpoint(str(path)), expected)


class Call:
    """An object that pickles as a function call."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


class State:
    """An object that pickles as a function call followed by a state."""

    def __init__(self, function, arguments, state):
        self.parts = (function, arguments, state)

    def __reduce__(self):
        return self.parts


def attacks(canary):
    array = np.zeros(1).__reduce__()
    return {
        'os': Call(os.system, f'touch {canary}'),
        'eval': Call(eval, f'open({str(canary)!r}, "w")'),
        'getattr': Call(getattr, HistoryBuffer, '__init__'),
        # Objects in an array are pointers, which these would let a file choose.
        'object dtype': np.array([None], dtype=object),
        'object array': Call(np.ndarray, (1,), np.dtype('O'), bytearray(8)),
        'structure': np.zeros(1, dtype=[('a', 'O')]),
        'size': State(array[0], array[1], (1, (100,), np.dtype('f8'), False, b'12')),
        'custom': Custom(),
    }


class Custom:
    pass


@pytest.mark.parametrize('name', attacks('x'))
def test_anything_else_is_refused_and_not_run(name, tmp_path):
    canary = tmp_path / 'canary'
    path = str(tmp_path / 'attack.pth')
    torch.save({'state_dict': {}, 'extra': attacks(canary)[name]}, path)
    with pytest.raises(CheckpointError, match='attack.pth'):
        read_checkpoint(path)
    assert not canary.exists()


def test_the_error_says_what_was_refused(tmp_path):
    path = str(tmp_path / 'custom.pth')
    torch.save({'extra': Custom()}, path)
    with pytest.raises(CheckpointError, match=r'holds \S*test_reading\.Custom, wh'):
        read_checkpoint(path)


def test_flags_of_a_dtype_are_not_taken_from_the_file(tmp_path):
    """With flags like these, numpy takes numbers for pointers to objects."""
    dtype = State(np.dtype, ('f8', False, True), (3, '<', None, None, None, -1, -1, 27))
    create, arguments, state = np.zeros(1).__reduce__()
    array = State(create, arguments, (1, (1,), dtype, False, bytes(8)))
    torch.save({'array': array}, tmp_path / 'x.pth')
    loaded = read_checkpoint(str(tmp_path / 'x.pth'))
    assert not loaded['array'].dtype.hasobject


def test_a_file_can_not_replace_the_statistics_of_all_histories(tmp_path, monkeypatch):
    """HistoryBuffer unpickles a table of functions into its class."""
    before = dict(HistoryBuffer._statistics_methods)
    history = HistoryBuffer([1.0], [1])
    state = {**history.__getstate__(), 'statistics_methods': {'mean': np.ndarray}}
    with monkeypatch.context() as patch:
        patch.setattr(HistoryBuffer, '__getstate__', lambda self: state)
        torch.save({'h': history}, tmp_path / 'x.pth')
    loaded = read_checkpoint(str(tmp_path / 'x.pth'))
    assert HistoryBuffer._statistics_methods == before
    assert loaded['h'].mean() == 1


def test_resuming_does_not_get_a_config_to_run(tmp_path):
    """Runner.resume runs meta['config'] as Python."""
    path = str(tmp_path / 'x.pth')
    torch.save({'meta': {'config': 'import os', 'epoch': 1}}, path)
    assert read_checkpoint(path) == {'meta': {'epoch': 1}}


def test_the_environment_can_not_switch_it_off(tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    path = str(tmp_path / 'x.pth')
    torch.save({'extra': Custom()}, path)
    with pytest.raises(CheckpointError):
        read_checkpoint(path)
    assert os.environ['TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'] == '1'
    assert 'TORCH_FORCE_WEIGHTS_ONLY_LOAD' not in os.environ


def test_types_that_the_program_allowed_stay_allowed(trained, tmp_path):
    path = str(tmp_path / 'x.pth')
    torch.save({'extra': Custom()}, path)
    with torch.serialization.safe_globals([Custom, np.dtype, np.ndarray]):
        before = set(torch.serialization.get_safe_globals())
        assert isinstance(read_checkpoint(path)['extra'], Custom)
        assert same(read_checkpoint(str(trained[0])), trained[1])
        assert set(torch.serialization.get_safe_globals()) == before


@pytest.mark.parametrize('zipped', [True, False])
@pytest.mark.parametrize('part', [0.0, 0.01, 0.5, 0.99])
def test_a_file_that_was_cut_off(tmp_path, zipped, part):
    path = tmp_path / 'x.pth'
    weights = {str(i): torch.rand(100) for i in range(5)}
    torch.save(weights, path, _use_new_zipfile_serialization=zipped)
    assert same(read_checkpoint(str(path)), weights)
    data = path.read_bytes()
    path.write_bytes(data[: int(part * len(data))])
    with pytest.raises(DamagedCheckpointError, match=r'x\.pth is damaged'):
        read_checkpoint(str(path))


@pytest.mark.parametrize(
    'content',
    [b'version https://git-lfs.github.com/spec/v1\n', b'<html>', bytes(5000)],
    ids=['git lfs pointer', 'web page', 'zeros'],
)
def test_a_file_that_is_no_checkpoint(tmp_path, content):
    (tmp_path / 'x.pth').write_bytes(content)
    with pytest.raises(DamagedCheckpointError, match='or not a checkpoint'):
        read_checkpoint(str(tmp_path / 'x.pth'))


def test_a_file_that_is_not_there():
    with pytest.raises(MissingCheckpointError, match=r'a/b\.pth does not exist'):
        read_checkpoint('a/b.pth')
    assert issubclass(MissingCheckpointError, FileNotFoundError)


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Serve a folder over HTTP and return its URL."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch_home'))
    folder = tmp_path / 'served'
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=folder)

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield folder, f'http://127.0.0.1:{running.server_port}'
        running.shutdown()
        thread.join()


def test_downloads_are_not_unpickled_either(trained, server, tmp_path):
    folder, url = server
    canary = tmp_path / 'canary'
    torch.save(Call(os.system, f'touch {canary}'), folder / 'attack.pth')
    (folder / 'good.pth').write_bytes(trained[0].read_bytes())
    with as_data():
        with pytest.raises(CheckpointError, match=r'holds posix\.system'):
            CheckpointLoader.load_checkpoint(f'{url}/attack.pth')
        assert not canary.exists()
        assert same(CheckpointLoader.load_checkpoint(f'{url}/good.pth'), trained[1])


def test_a_failed_download_is_told_in_a_sentence():
    closed = 'http://127.0.0.1:9/weights.pth'
    with pytest.raises(CheckpointError, match=f'{closed} could not be downloaded'):
        read_checkpoint(closed)


def test_the_attacks_would_work(tmp_path):
    """Otherwise the tests above would prove nothing."""
    canary = tmp_path / 'canary'
    pickle.loads(pickle.dumps(attacks(canary)['os']))
    assert canary.exists()


def turn_a_bit(path, name):
    """Flip a bit in the last byte of a record of a zip archive."""
    with zipfile.ZipFile(path) as archive:
        entry = archive.getinfo(name)
    data = bytearray(path.read_bytes())
    lengths = struct.unpack_from('<2H', data, entry.header_offset + 26)
    data[entry.header_offset + 30 + sum(lengths) + entry.file_size - 1] ^= 4
    path.write_bytes(data)


def test_the_record_with_a_turned_bit_is_named(trained, tmp_path):
    with zipfile.ZipFile(trained[0]) as archive:
        names = [entry.filename for entry in archive.infolist() if entry.file_size]
    assert len(names) > 8
    for name in names:
        path = Path(shutil.copy(trained[0], tmp_path / 'turned.pth'))
        turn_a_bit(path, name)
        with pytest.raises(DamagedCheckpointError, match=f'record {name} is not'):
            read_checkpoint(str(path))


def test_files_without_checksums_load(trained, tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(trained[1], tmp_path / 'x.pth')
    finally:
        torch.serialization.set_crc32_options(True)
    assert same(read_checkpoint(str(tmp_path / 'x.pth')), trained[1])


def test_an_archive_that_grows_is_refused_before_it_does(tmp_path):
    with zipfile.ZipFile(tmp_path / 'x.pth', 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('x/data.pkl', b'\x80\x02}.')
        with archive.open('x/data/0', 'w') as record:
            for _ in range(64):
                record.write(bytes(1 << 20))
    assert (tmp_path / 'x.pth').stat().st_size < 100_000
    with pytest.raises(CheckpointError, match=r'the compressed record x/data\.pkl'):
        read_checkpoint(str(tmp_path / 'x.pth'))


@pytest.mark.parametrize('zipped', [True, False])
def test_the_former_format_and_shared_and_odd_tensors(tmp_path, zipped):
    base = torch.arange(12.0).reshape(3, 4)
    values = {
        'base': base,
        'part': base[1:, ::2],
        'scalar': torch.tensor(3),
        'empty': torch.zeros(0, 4),
        'half': torch.ones(2, dtype=torch.bfloat16),
        'wide': torch.ones(3).expand(5, 3),
        'parameter': torch.nn.Parameter(torch.ones(2), requires_grad=False),
        'complex': [1 + 2j, torch.ones(1, dtype=torch.complex64)],
        'device': [torch.device('cpu'), torch.float16, torch.Size([2, 3])],
        'set': {'a', 1},
        'bytes': [b'', b'\xff'],
        'numbers': [2**70, -1, 1e-300],
    }
    torch.save(values, tmp_path / 'x.pth', _use_new_zipfile_serialization=zipped)
    loaded = read_checkpoint(str(tmp_path / 'x.pth'))
    assert same(loaded, values)
    loaded['base'][1, 0] = 7
    assert loaded['part'][0, 0] == 7


def test_the_former_format_has_no_more_and_no_less_than_its_tensors(tmp_path):
    path = tmp_path / 'x.pth'
    weights = {'a': torch.ones(3)}
    torch.save(weights, path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    for data in (whole + b'x', whole[:-1]):
        path.write_bytes(data)
        with pytest.raises(DamagedCheckpointError, match=f'it has {len(data)} bytes'):
            read_checkpoint(str(path))


def test_the_checksum_is_compared_before_anything_else(trained, monkeypatch):
    def never(*arguments, **options):
        raise AssertionError('was read')

    monkeypatch.setattr(checkpoint.reading.archive, 'check', never)
    monkeypatch.setattr(torch, 'load', never)
    with pytest.raises(DamagedCheckpointError, match='has the SHA-256 .*, expected 00'):
        read_checkpoint(str(trained[0]), sha256='0' * 64)


def test_the_checksum_of_a_download_is_compared_before_it_is_read(
    server, tmp_path, monkeypatch
):
    folder, url = server
    canary = tmp_path / 'canary'
    torch.save(Call(os.system, f'touch {canary}'), folder / 'attack.pth')
    digest = hashlib.sha256((folder / 'attack.pth').read_bytes()).hexdigest()
    with pytest.raises(DamagedCheckpointError, match=f'SHA-256 {digest}, expected 11'):
        read_checkpoint(f'{url}/attack.pth', sha256='1' * 64)
    with pytest.raises(CheckpointError, match=r'holds posix\.system'):
        read_checkpoint(f'{url}/attack.pth', sha256=digest.upper())
    assert not canary.exists()


def test_names_of_model_zoos_lead_to_files(trained, server, monkeypatch):
    folder, url = server
    (folder / 'good.pth').write_bytes(trained[0].read_bytes())
    known = {'a': f'{url}/good.pth'}
    monkeypatch.setattr(runner_checkpoint, 'get_torchvision_models', lambda: known)
    monkeypatch.setattr(runner_checkpoint, 'get_mmcls_models', lambda: known)
    assert same(read_checkpoint('torchvision://a'), trained[1])
    with pytest.raises(CheckpointError, match='b: mmengine knows no such'):
        read_checkpoint('torchvision://b')


def test_many_threads_at_once(trained, tmp_path):
    """Other threads load with an allow-list of their own at the same time."""
    torch.save({'extra': Custom()}, tmp_path / 'custom.pth')
    array = np.arange(3)
    torch.save({'array': array}, tmp_path / 'array.pth')
    theirs = [Custom, np.ndarray, np.dtype, type(array.dtype), array.__reduce__()[0]]
    problems = []

    def read():
        for _ in range(8):
            if not same(read_checkpoint(str(trained[0])), trained[1]):
                problems.append('another checkpoint')

    def read_as_others_do():
        for _ in range(40):
            loaded = torch.load(tmp_path / 'array.pth', weights_only=True)
            if type(loaded['array']) is not np.ndarray:
                problems.append(type(loaded['array']))
            torch.load(tmp_path / 'custom.pth', weights_only=True)

    def run(function):
        try:
            function()
        except Exception as error:
            problems.append(error)

    with torch.serialization.safe_globals(theirs):
        before = set(torch.serialization.get_safe_globals())
        works = [read, read_as_others_do] * 4
        threads = [threading.Thread(target=run, args=[work]) for work in works]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert set(torch.serialization.get_safe_globals()) == before
    assert not problems


def test_no_bit_of_the_directory_is_turned_unnoticed(tmp_path):
    """Its entries have no checksum; one flipped bit made torch skip a record."""
    path = tmp_path / 'x.pth'
    weights = {'a': torch.arange(1.0, 9.0)}
    torch.save(weights, path)
    whole = path.read_bytes()
    refused = 0
    for position in range(whole.index(b'PK\x01\x02'), len(whole)):
        for bit in {4, position % 8}:
            turned = bytearray(whole)
            turned[position] ^= 1 << bit
            path.write_bytes(turned)
            try:
                assert same(read_checkpoint(str(path)), weights), (position, bit)
            except CheckpointError:
                refused += 1
    assert refused > 250
