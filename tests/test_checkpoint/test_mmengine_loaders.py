"""Importing dcls_mm takes nothing from other programs; our tools only read data."""

import os
import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import CheckpointLoader, Runner
from toy import toy_config, write_config

from dcls_mm.apis import command, train
from dcls_mm.checkpoint import CheckpointError, read_checkpoint
from dcls_mm.checkpoint.mmengine_loaders import as_data, hand_on

load = CheckpointLoader.load_checkpoint


class Custom:
    """A class of another library, with its own state."""

    def __init__(self, value=1):
        self.value = value


class Call:
    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


class Items:
    """An object that pickles as an OrderedDict with attributes."""

    def __init__(self, items, attributes):
        self.parts = (OrderedDict, (), attributes, None, iter(items.items()))

    def __reduce__(self):
        return self.parts


@pytest.fixture
def custom(tmp_path):
    torch.save({'extra': Custom(3), 'array': np.arange(3)}, tmp_path / 'custom.pth')
    return str(tmp_path / 'custom.pth')


def test_types_that_another_library_allowed_load_as_before(custom):
    array = np.arange(3)
    theirs = [Custom, np.ndarray, np.dtype, type(array.dtype), array.__reduce__()[0]]
    with torch.serialization.safe_globals(theirs):
        loaded = load(custom)
    assert loaded['extra'].value == 3
    assert type(loaded['array']) is np.ndarray


def test_a_program_that_unpickles_everything_still_does(custom, monkeypatch):
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    assert load(custom)['extra'].value == 3
    monkeypatch.delenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD')
    original = torch.load

    def unpickle(*arguments, **options):  # as many projects patch torch.load
        return original(*arguments, **{'weights_only': False, **options})

    monkeypatch.setattr(torch, 'load', unpickle)
    assert load(custom)['extra'].value == 3
    with as_data(), pytest.raises(CheckpointError, match=r'holds \S+\.Custom'):
        load(custom)


def test_what_torch_refuses_it_refuses_in_its_own_words(custom, tmp_path):
    canary = tmp_path / 'canary'
    torch.save(Call(os.system, f'touch {canary}'), tmp_path / 'attack.pth')
    for path in (custom, str(tmp_path / 'attack.pth')):
        with pytest.raises(pickle.UnpicklingError, match='Weights only load failed'):
            load(path)
    assert not canary.exists()


def test_errors_of_other_kinds_are_those_of_mmengine(tmp_path):
    with pytest.raises(FileNotFoundError, match='can not be found'):
        load(str(tmp_path / 'absent.pth'))


def test_a_loader_that_a_program_registers_stays_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(CheckpointLoader, '_schemes', dict(CheckpointLoader._schemes))
    CheckpointLoader.register_scheme('mine://', lambda name, place=None: [name], True)
    assert load('mine://x') == ['mine://x']
    with as_data():
        assert load('mine://x') == ['mine://x']


def test_tools_read_what_mmengine_reads_only_with_weights(tmp_path):
    torch.save([1], tmp_path / 'list.pth')
    assert load(str(tmp_path / 'list.pth')) == [1]
    with as_data(), pytest.raises(CheckpointError, match='no weights, only a list'):
        load(str(tmp_path / 'list.pth'))
    assert load(str(tmp_path / 'list.pth')) == [1]


def test_what_is_handed_on_is_loaded_once(tmp_path):
    path = str(tmp_path / 'x.pth')
    first, second = ({'state_dict': {'a': torch.full((1,), value)}} for value in (1, 2))
    torch.save(second, path)
    hand_on(path, first)  # nobody takes it
    with as_data():
        assert load(path)['state_dict']['a'] == 2
        hand_on(path, first)
        with as_data():  # its own block
            assert load(path)['state_dict']['a'] == 2
        assert load(path) is first
        assert load(path)['state_dict']['a'] == 2
        hand_on(path, first)
    with as_data():
        assert load(path)['state_dict']['a'] == 2


def test_a_stock_training_with_the_plugin_goes_on_from_its_own_checkpoint(tmp_path):
    def train(epochs):
        config = toy_config(
            default_scope='mmengine',
            custom_imports=None,
            work_dir=str(tmp_path),
            train_cfg={'by_epoch': True, 'max_epochs': epochs},
            default_hooks={'checkpoint': {'type': 'CheckpointHook'}},
            resume=True,
        )
        runner = Runner.from_cfg(Config(config))
        seen = []
        runner.register_hook(Seen(seen))
        runner.train()
        return seen

    assert train(1) == [0, 1, 2, 3]
    assert train(2) == [4, 5, 6, 7]
    with pytest.raises(pickle.UnpicklingError):  # torch alone can't load it
        torch.load(tmp_path / 'epoch_1.pth', weights_only=True)


class Seen(Hook):
    """A record of the iterations."""

    def __init__(self, seen):
        self.seen = seen

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.seen.append(runner.iter)


@pytest.fixture
def attack(tmp_path):
    """Write a checkpoint with a config in ``meta``; also return what that creates."""
    config = toy_config(
        default_scope='mmengine',
        custom_imports=None,
        work_dir=str(tmp_path / 'trained'),
        train_cfg={'by_epoch': True, 'max_epochs': 1},
    )
    Runner.from_cfg(Config(config)).train()
    checkpoint = read_checkpoint(str(tmp_path / 'trained' / 'epoch_1.pth'))
    canary = tmp_path / 'canary'
    meta = {**checkpoint['meta'], 'config': f'open({str(canary)!r}, "w")'}
    make_array = np.zeros(1).__reduce__()[0]
    # It replaces the method that would remove the config.
    torch.save(
        {**checkpoint, 'meta': Items(meta, {'pop': make_array})}, tmp_path / 'x.pth'
    )
    return str(tmp_path / 'x.pth'), canary


def test_nothing_runs_through_resume(attack, tmp_path):
    path, canary = attack
    config = write_config(tmp_path / 'toy.py', work_dir=str(tmp_path / 'work'))
    with pytest.raises(SystemExit, match="an OrderedDict with the attribute 'pop'"):
        command.run(train.train, {'config': config, 'resume': path})
    # Even without the earlier check, mmengine's loader refuses it.
    runner = Runner.from_cfg(Config.fromfile(config))
    with as_data(), pytest.raises(CheckpointError, match="the attribute 'pop'"):
        runner.resume(path)
    assert not canary.exists()


def test_the_attack_would_work(attack, tmp_path):
    """Otherwise the test above would prove nothing; Runner.resume does the same."""
    path, canary = attack
    meta = torch.load(path, weights_only=False)['meta']
    Config.fromstring(meta['config'], file_format='.py')
    assert canary.exists()


def test_reading_leaves_other_schemes_to_their_loaders(monkeypatch):
    monkeypatch.setattr(CheckpointLoader, '_schemes', dict(CheckpointLoader._schemes))
    CheckpointLoader.register_scheme('mine://', lambda name, place=None: [name], True)
    with as_data():
        assert read_checkpoint('mine://x') == ['mine://x']
        with pytest.raises(CheckpointError, match='nobodys://x does not exist'):
            read_checkpoint('nobodys://x')
        with pytest.raises(CheckpointError, match='nobodys://x does not exist'):
            load('nobodys://x')
