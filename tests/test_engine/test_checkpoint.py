"""What mmengine writes loads; anything else is refused, and nothing of it run."""

import copy
import http.server
import os
import pickle
import threading
import zipfile

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader, Runner
from toy import toy_config

from dcls_mm.engine.checkpoint import (
    CheckpointError,
    DamagedCheckpointError,
    MissingCheckpointError,
    as_data,
    load_checkpoint_file,
)

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
    """Keeps what is about to be written."""

    priority = 'LOWEST'

    def before_save_checkpoint(self, runner, checkpoint):
        self.checkpoint = copy.deepcopy(checkpoint)


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """The file that a training wrote, and what it was to hold."""
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
    """Whether two checkpoints are equal, down to the types."""
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
    """Copies a checkpoint file, with other names of globals in its pickle."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, 'w') as new:
        for entry in old.namelist():
            data = old.read(entry)
            if entry.endswith('data.pkl'):
                for name, replacement in names.items():
                    data = data.replace(name, replacement)
            new.writestr(entry, data)


def test_a_training_checkpoint_loads_as_it_was_written(trained):
    path, expected = trained
    assert same(load_checkpoint_file(str(path)), expected)


@pytest.mark.parametrize('old, new', [(b'_core', b'core'), (b'core', b'_core')])
def test_names_of_either_numpy_load(trained, tmp_path, old, new):
    path, expected = trained
    names = {b'numpy.' + old + b'.multiarray': b'numpy.' + new + b'.multiarray'}
    rename_globals(path, tmp_path / 'other.pth', names)
    assert same(load_checkpoint_file(str(tmp_path / 'other.pth')), expected)


def test_loaded_values_are_writable_and_big_endian_ones_convert(tmp_path):
    values = {'a': np.arange(3, dtype='>f8'), 'empty': np.zeros((0, 2), 'int16')}
    torch.save(values, tmp_path / 'x.pth')
    loaded = load_checkpoint_file(str(tmp_path / 'x.pth'))
    loaded['a'] += 1
    assert loaded['a'].tolist() == [1, 2, 3]
    assert loaded['empty'].shape == (0, 2)


def test_mmengine_itself_loads_through_it(trained):
    path, expected = trained
    assert same(CheckpointLoader.load_checkpoint(str(path)), expected)


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


class State:
    """Pickles as an object that a function makes, with a state given to it."""

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
        load_checkpoint_file(path)
    assert not canary.exists()


def test_the_error_says_what_was_refused(tmp_path):
    path = str(tmp_path / 'custom.pth')
    torch.save({'extra': Custom()}, path)
    with pytest.raises(CheckpointError, match=r'holds \S*test_checkpoint\.Custom, wh'):
        load_checkpoint_file(path)


def test_flags_of_a_dtype_are_not_taken_from_the_file(tmp_path):
    """With flags like these, numpy takes numbers for pointers to objects."""
    dtype = State(np.dtype, ('f8', False, True), (3, '<', None, None, None, -1, -1, 27))
    create, arguments, state = np.zeros(1).__reduce__()
    array = State(create, arguments, (1, (1,), dtype, False, bytes(8)))
    torch.save({'array': array}, tmp_path / 'x.pth')
    loaded = load_checkpoint_file(str(tmp_path / 'x.pth'))
    assert not loaded['array'].dtype.hasobject


def test_a_file_can_not_replace_the_statistics_of_all_histories(tmp_path, monkeypatch):
    """HistoryBuffer unpickles a table of functions into its class."""
    before = dict(HistoryBuffer._statistics_methods)
    history = HistoryBuffer([1.0], [1])
    state = {**history.__getstate__(), 'statistics_methods': {'mean': np.ndarray}}
    with monkeypatch.context() as patch:
        patch.setattr(HistoryBuffer, '__getstate__', lambda self: state)
        torch.save({'h': history}, tmp_path / 'x.pth')
    loaded = load_checkpoint_file(str(tmp_path / 'x.pth'))
    assert HistoryBuffer._statistics_methods == before
    assert loaded['h'].mean() == 1


def test_resuming_does_not_get_a_config_to_run(tmp_path):
    """Runner.resume runs meta['config'] as Python."""
    path = str(tmp_path / 'x.pth')
    torch.save({'meta': {'config': 'import os', 'epoch': 1}}, path)
    assert load_checkpoint_file(path) == {'meta': {'epoch': 1}}


def test_the_environment_can_not_switch_it_off(tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    path = str(tmp_path / 'x.pth')
    torch.save({'extra': Custom()}, path)
    with pytest.raises(CheckpointError):
        load_checkpoint_file(path)
    assert os.environ['TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'] == '1'
    assert 'TORCH_FORCE_WEIGHTS_ONLY_LOAD' not in os.environ


def test_types_that_the_program_allowed_stay_allowed(trained, tmp_path):
    path = str(tmp_path / 'x.pth')
    torch.save({'extra': Custom()}, path)
    with torch.serialization.safe_globals([Custom, np.dtype, np.ndarray]):
        before = set(torch.serialization.get_safe_globals())
        assert isinstance(load_checkpoint_file(path)['extra'], Custom)
        assert same(load_checkpoint_file(str(trained[0])), trained[1])
        assert set(torch.serialization.get_safe_globals()) == before


@pytest.mark.parametrize('zipped', [True, False])
@pytest.mark.parametrize('part', [0.0, 0.01, 0.5, 0.99])
def test_a_file_that_was_cut_off(tmp_path, zipped, part):
    path = tmp_path / 'x.pth'
    weights = {str(i): torch.rand(100) for i in range(5)}
    torch.save(weights, path, _use_new_zipfile_serialization=zipped)
    assert same(load_checkpoint_file(str(path)), weights)
    data = path.read_bytes()
    path.write_bytes(data[: int(part * len(data))])
    with pytest.raises(DamagedCheckpointError, match=r'x\.pth is damaged'):
        load_checkpoint_file(str(path))


@pytest.mark.parametrize(
    'content',
    [b'version https://git-lfs.github.com/spec/v1\n', b'<html>', bytes(5000)],
    ids=['git lfs pointer', 'web page', 'zeros'],
)
def test_a_file_that_is_no_checkpoint(tmp_path, content):
    (tmp_path / 'x.pth').write_bytes(content)
    with pytest.raises(DamagedCheckpointError, match='is no checkpoint'):
        load_checkpoint_file(str(tmp_path / 'x.pth'))


def test_a_file_that_is_not_there():
    with pytest.raises(MissingCheckpointError, match=r'a/b\.pth does not exist'):
        load_checkpoint_file('a/b.pth')
    assert issubclass(MissingCheckpointError, FileNotFoundError)


@pytest.fixture
def server(tmp_path, monkeypatch):
    """The URL of a folder, served over HTTP."""
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
        load_checkpoint_file(closed)


def test_the_attacks_would_work(tmp_path):
    """Else the tests above would show nothing."""
    canary = tmp_path / 'canary'
    pickle.loads(pickle.dumps(attacks(canary)['os']))
    assert canary.exists()
