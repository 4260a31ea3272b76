"""What a layer notes about its parameters, through mmengine's saving and loading."""

import copy
from collections import OrderedDict

import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from mmengine.runner import Runner
from mmengine.runner.checkpoint import _load_checkpoint_with_prefix
from torch import nn
from toy import toy_config, write_config

import dcls_mm  # noqa: F401
from dcls_mm.apis import command, train
from dcls_mm.apis.trained import read_trained
from dcls_mm.checkpoint import CheckpointError
from dcls_mm.checkpoint.matching import load_matching
from dcls_mm.checkpoint.mmengine_loaders import as_data
from dcls_mm.engine.hooks.checkpoint_match_hook import CheckpointMatchHook
from dcls_mm.engine.hooks.load_from_hook import LoadFromHook
from dcls_mm.layers import DCLSConv2d, FlexConv2d


@MODELS.register_module(force=True)
class NotedToy(BaseModel):
    """A layer that has another order when published, and a continuous kernel."""

    def __init__(self, extent=5, init_cfg=None):
        super().__init__(init_cfg=init_cfg)
        options = dict(dilated_kernel_size=extent, padding='same')
        self.net = nn.Sequential(
            DCLSConv2d(1, 2, kernel_count=3, interpolation='gauss', **options),
            FlexConv2d(2, 1, 3, kernel_net='siren', **options),
        )

    def forward(self, x, y, mode='tensor'):
        x = torch.stack(list(x)).unsqueeze(1).unsqueeze(1)
        error = self.net(x).mean((1, 2, 3)) - torch.stack(list(y)).squeeze(1)
        return {'loss': error.square().mean()}


def runner(work_dir, epochs, **changes):
    nothing = {
        f'{stage}_{part}': None
        for stage in ('val', 'test')
        for part in ('dataloader', 'cfg', 'evaluator')
    }
    config = toy_config(
        **nothing,
        model=dict(type='NotedToy', extent=changes.pop('extent', 5)),
        work_dir=str(work_dir),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        param_scheduler=None,
        custom_hooks=[dict(type='EMAHook', momentum=0.5)],
        **changes,
    )
    return Runner.from_cfg(Config(config))


def test_own_checkpoints_go_on(tmp_path):
    """The notes survive saving with averages, resuming, and loading by the tools."""
    runner(tmp_path, 1).train()
    file = str(tmp_path / 'epoch_1.pth')
    checkpoint = read_trained(file)
    for key, name in (('state_dict', 'net.0'), ('ema_state_dict', 'module.net.0')):
        notes = checkpoint[key]._metadata[name]
        assert (notes['extent'], notes['interpolation']) == ((5, 5), 'gauss')
    resumed = runner(tmp_path, 2, resume=True, load_from=file)
    resumed.register_hook(CheckpointMatchHook(file))
    resumed.train()
    assert (tmp_path / 'epoch_2.pth').exists()
    model = NotedToy()
    load_matching(model, read_trained(str(tmp_path / 'epoch_2.pth')), 'epoch_2.pth')


def parallel(weights):
    """Return the state_dict of a DistributedDataParallel, notes included."""
    wrapped = nn.ModuleDict({'module': NotedToy()})
    wrapped['module'].load_state_dict(weights)
    state_dict = wrapped.state_dict()
    assert state_dict._metadata['module.net.0']['position_axes'] == (0, 1)
    assert set(state_dict) == {f'module.{key}' for key in weights}
    return state_dict


@pytest.mark.parametrize('around', [lambda w: w, lambda w: {'state_dict': w}])
@pytest.mark.parametrize('hook', [LoadFromHook, CheckpointMatchHook])
def test_weights_of_a_parallel_model(tmp_path, monkeypatch, hook, around):
    """mmengine strips the prefix from their keys, but not from the notes' names."""
    weights = NotedToy().state_dict()
    file = str(tmp_path / 'parallel.pth')
    torch.save(around(parallel(weights)), file)
    assert load_matching(NotedToy(), read_trained(file), file).keys() == weights.keys()
    running = runner(tmp_path, 1, load_from=file)
    running.register_hook(hook(file))
    loaded = {}

    def train_step(data, optim_wrapper):
        ema = next(h for h in running.hooks if type(h).__name__ == 'EMAHook')
        for model in (running.model, ema.ema_model.module):
            loaded[model is running.model] = copy.deepcopy(model.state_dict())
        raise KeyboardInterrupt

    monkeypatch.setattr(running.model, 'train_step', train_step)
    with pytest.raises(KeyboardInterrupt):
        running.train()
    assert set(loaded) == {True, False}
    for state_dict in loaded.values():
        assert all(torch.equal(state_dict[key], weights[key]) for key in weights)


@pytest.mark.parametrize('around', [lambda w: w, lambda w: {'state_dict': w}])
def test_weights_of_a_parallel_model_by_init_cfg(tmp_path, around):
    """mmengine reads them under our tools; a part is read by its whole prefix."""
    weights = NotedToy().state_dict()
    file = str(tmp_path / 'parallel.pth')
    torch.save(around(parallel(weights)), file)
    with as_data():
        whole = NotedToy(init_cfg=dict(type='Pretrained', checkpoint=file))
        whole.init_weights()
        part = _load_checkpoint_with_prefix('module.net.', file)
    loaded = whole.state_dict()
    assert all(torch.equal(loaded[key], weights[key]) for key in weights)
    assert part.keys() == {key.removeprefix('net.') for key in weights}


def test_what_a_layer_says_against_a_file_is_a_sentence(tmp_path):
    with pytest.raises(CheckpointError) as caught:
        load_matching(NotedToy(7), NotedToy(5).state_dict(), 'x.pth')
    assert str(caught.value).startswith(
        'checkpoint x.pth: net.0.P: the state_dict is of a layer of extent (5, 5), '
        'this one has (7, 7): give dilated_kernel_size=(5, 5), or'
    )


def test_a_command_ends_with_what_a_layer_says(tmp_path):
    """mmengine itself loads the file that a model's init_cfg names."""
    file = str(tmp_path / 'x.pth')
    torch.save(NotedToy(5).state_dict(), file)
    config = write_config(
        tmp_path / 'toy.py',
        model=dict(
            type='NotedToy',
            extent=7,
            init_cfg=dict(type='Pretrained', checkpoint=file),
        ),
    )
    options = dict(config=config, work_dir=str(tmp_path / 'work'))
    with pytest.raises(SystemExit, match='^error: net.0.P: .* extent .5, 5., this one'):
        command.run(train.train, options)


@pytest.mark.parametrize('resume', [True, False])
def test_another_extent_stops_every_training(tmp_path, resume):
    """This includes mmengine's own, which would log the error and train on."""
    runner(tmp_path, 1).train()
    other = runner(
        tmp_path, 2, extent=7, resume=resume, load_from=str(tmp_path / 'epoch_1.pth')
    )
    with pytest.raises(RuntimeError, match=r'net\.0\.P: .* extent \(5, 5\), this one'):
        other.train()


def test_published_order_stops_load_from(tmp_path):
    state_dict = NotedToy().state_dict()
    state_dict._metadata = OrderedDict(
        (name, dict(version=1)) for name in state_dict._metadata
    )
    torch.save({'state_dict': state_dict}, tmp_path / 'published.pth')
    with pytest.raises(RuntimeError, match=r'net\.0\.P: .*from_published'):
        runner(tmp_path, 1, load_from=str(tmp_path / 'published.pth')).train()
