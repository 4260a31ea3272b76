"""Checkpoints are written whole, kept until replaced, and fit the model."""

import json
import os
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.fileio import get_file_backend
from mmengine.model import BaseTTAModel
from mmengine.runner import Runner
from toy import ToyModel, toy_config

from dcls_mm.engine.checkpoint import CheckpointError, load_checkpoint_file
from dcls_mm.engine.checkpoint_hooks import CheckpointMatchHook

HERE = Path(__file__).parent


def train(work_dir, hook, **changes):
    config = toy_config(default_scope='mmengine', custom_imports=None, **changes)
    config['default_hooks'] = {'checkpoint': {'type': 'AtomicCheckpointHook', **hook}}
    runner = Runner.from_cfg(Config({**config, 'work_dir': str(work_dir)}))
    runner.train()
    return runner


def names(folder):
    return sorted(path.name for path in folder.glob('*.pth*'))


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    backend = get_file_backend(str(tmp_path), backend_args={'backend': 'atomic'})
    path = tmp_path / 'folder' / 'x.pth'
    backend.put(b'old', str(path))

    def full(descriptor):
        raise OSError('no space left on device')

    with monkeypatch.context() as patch:
        patch.setattr(os, 'fsync', full)
        with pytest.raises(OSError, match='no space'):
            backend.put(b'new, and longer', str(path))
    assert path.read_bytes() == b'old'
    assert names(path.parent) == ['x.pth']
    backend.put(b'new', str(path))
    assert path.read_bytes() == b'new'


def test_the_hook_keeps_what_mmengines_would(tmp_path):
    hook = {'max_keep_ckpts': 2, 'save_best': 'score', 'rule': 'greater'}
    train(tmp_path / 'a', hook)
    train(tmp_path / 'b', {**hook, 'type': 'CheckpointHook'})
    assert names(tmp_path / 'a') == names(tmp_path / 'b')
    assert 'epoch_3.pth' in names(tmp_path / 'a')
    assert 'epoch_1.pth' not in names(tmp_path / 'a')
    note = (tmp_path / 'a' / 'last_checkpoint').read_text()
    assert note == str(tmp_path / 'a' / 'epoch_3.pth')


def test_the_hook_removes_what_a_killed_training_left_unfinished(tmp_path):
    (tmp_path / 'epoch_7.pth.tmp').write_bytes(b'half')
    train(tmp_path, {'interval': 3})
    assert names(tmp_path) == ['epoch_3.pth']


def test_a_backend_that_is_given_stays(tmp_path):
    runner = train(tmp_path, {'backend_args': {'backend': 'local'}})
    hook = next(hook for hook in runner.hooks if hasattr(hook, 'backend_args'))
    assert hook.backend_args == {'backend': 'local'}


def test_killed_at_any_moment_training_goes_on_from_the_last_checkpoint(tmp_path):
    environment = {
        **os.environ,
        'OMP_NUM_THREADS': '1',
        'PYTHONPATH': f'{HERE.parents[1]}{os.pathsep}{HERE}',
    }
    subprocess.run(
        [sys.executable, HERE / 'killed_training.py', tmp_path],
        env=environment,
        check=True,
        timeout=300,
    )
    results = json.loads((tmp_path / 'results.json').read_text())
    assert len(results) > 4
    for result in results:
        whole = [name for name in result['held'] if name.startswith('epoch')]
        whole = [name for name in whole if name.endswith('.pth')]
        assert result['resumed'] == (max(whole) if whole else None), result
        assert result['status'] == 0, result
        assert result['same'], result
    resumed = [result['resumed'] or '' for result in results]
    assert resumed == sorted(resumed), 'a later kill lost an earlier checkpoint'
    assert resumed[-1] == 'epoch_2.pth'


class Loaded:
    """As much of a runner as the hook looks at."""

    def __init__(self, model):
        self.model = model


class ToyTTA(BaseTTAModel):
    def merge_preds(self, data_samples_list):
        return data_samples_list


def check(model, state_dict):
    CheckpointMatchHook('x.pth').after_load_checkpoint(
        Loaded(model), {'state_dict': state_dict}
    )


@pytest.mark.parametrize('wrap', [lambda model: model, lambda model: ToyTTA(model)])
def test_a_checkpoint_of_the_model_passes(wrap):
    weights = ToyModel().state_dict()
    check(wrap(ToyModel()), weights)
    parallel = OrderedDict((f'module.{key}', value) for key, value in weights.items())
    check(wrap(ToyModel()), parallel)
    del weights['net.1.num_batches_tracked']
    check(wrap(ToyModel()), {**weights, 'ema.extra': torch.zeros(1)})


def test_a_checkpoint_of_another_width_is_an_error():
    message = r"another.*7 of 9 values don't fit \(net\.0\.weight \[9, 4\] instead of"
    with pytest.raises(CheckpointError, match=message):
        check(ToyModel(8), ToyModel(9).state_dict())


def test_a_checkpoint_with_other_keys_is_an_error():
    with pytest.raises(CheckpointError, match=r'8 of 9 values are missing \(net\.0'):
        check(ToyModel(), {'backbone.weight': torch.zeros(1)})
    message = 'holds no weights, only state_dict with model'
    with pytest.raises(CheckpointError, match=message):
        check(ToyModel(), {'model': ToyModel().state_dict()})


def test_the_hook_runs_when_a_runner_loads(tmp_path):
    runner = train(tmp_path, {'interval': 3})
    path = str(tmp_path / 'epoch_3.pth')
    assert 'net.0.weight' in load_checkpoint_file(path)['state_dict']
    runner.register_hook(CheckpointMatchHook(path))
    runner.load_checkpoint(path)
    runner.model = ToyModel(9)
    with pytest.raises(CheckpointError, match='another model'):
        runner.load_checkpoint(path)
