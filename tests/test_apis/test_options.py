"""Options become a checked config, and mistakes an error message."""

import pytest
import torch
from mmengine.config import Config
from toy import toy_config, write_config

from dcls_mm.apis import command, configs, launchers, runner, train
from dcls_mm.apis import test as testing
from dcls_mm.checkpoint import CheckpointError, MissingCheckpointError
from dcls_mm.checks.errors import ConfigError


@pytest.fixture
def config(tmp_path, monkeypatch):
    """Return a function that writes toy_config with the given changes."""
    monkeypatch.chdir(tmp_path)

    def write(**changes):
        return write_config(tmp_path / 'toy.py', **changes)

    return write


@pytest.fixture(params=['cpu', 'cuda'])
def device(request, monkeypatch):
    monkeypatch.setattr(train, 'get_device', lambda: request.param)
    return request.param


def test_a_config_that_is_not_there(config):
    with pytest.raises(ConfigError, match=r'config no\.py does not exist \(looked in'):
        configs.load_config('no.py')
    with pytest.raises(ConfigError, match=r'toy\.py: .*base\.py'):
        configs.load_config(config(_base_='./base.py'))


@pytest.mark.parametrize('scope', ['mmpose', None])
def test_the_scope_must_be_one_of_two(config, scope):
    message = f'default_scope must be one of mmdet, mmrotate, mmseg, got {scope!r}'
    with pytest.raises(ConfigError, match=message):
        configs.load_config(config(default_scope=scope))


def test_a_scope_that_is_not_installed(config, monkeypatch):
    monkeypatch.setattr(configs, 'find_spec', lambda name: None)
    with pytest.raises(ConfigError, match='pip install mmsegmentation'):
        configs.load_config(config(default_scope='mmseg'))


def test_the_work_directory(config):
    assert configs.load_config(config()).work_dir == 'work_dirs/toy'
    assert configs.load_config(config(work_dir='a')).work_dir == 'a'
    assert configs.load_config(config(work_dir='a'), work_dir='b').work_dir == 'b'


def test_overrides_and_launcher(config):
    cfg = configs.load_config(
        config(), cfg_options={'train_cfg.max_epochs': 7}, launcher='pytorch'
    )
    assert cfg.train_cfg.max_epochs == 7
    assert cfg.launcher == 'pytorch'


def test_stock_configs_of_both_scopes(tmp_path, monkeypatch):
    """They know nothing of dcls_mm, and name data that do not exist here."""
    monkeypatch.chdir(tmp_path)
    for name, base, root in (
        ('det', 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', 'data/coco/'),
        ('seg', 'mmseg::fcn/fcn_r50-d8_4xb4-80k_ade20k-512x512.py', 'data/ade/ADE'),
    ):
        (tmp_path / f'{name}.py').write_text(f'_base_ = {base!r}')
        cfg = configs.load_config(f'{name}.py')
        assert cfg.default_scope == f'mm{name}'
        with pytest.raises(ConfigError, match=f"data_root: '{root}.*does not exist"):
            train.prepare_train(f'{name}.py')


def test_mixed_precision(config, device):
    if device == 'cpu':
        with pytest.raises(ConfigError, match='--amp: .* needs a GPU'):
            train.prepare_train(config(), amp=True)
        return
    cfg, _ = train.prepare_train(config(), amp=True)
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'
    assert cfg.optim_wrapper.loss_scale == 'dynamic'
    wrapper = {'type': 'AmpOptimWrapper', 'loss_scale': 512.0, 'optimizer': {}}
    cfg, _ = train.prepare_train(config(optim_wrapper=wrapper), amp=True)
    assert cfg.optim_wrapper.loss_scale == 512


def test_mixed_precision_of_another_wrapper(config):
    wrapper = {'type': 'ApexOptimWrapper', 'optimizer': {}}
    with pytest.raises(ConfigError, match=r'optim_wrapper\.type must .* got ApexOptim'):
        train.prepare_train(config(optim_wrapper=wrapper), amp=True)


def test_a_config_in_mixed_precision_runs_without_a_gpu(config, device):
    optimizer = {'type': 'SGD', 'lr': 0.1}
    wrapper = {
        'type': 'AmpOptimWrapper',
        'loss_scale': 'dynamic',
        'dtype': 'bfloat16',
        'optimizer': optimizer,
    }
    cfg, notices = train.prepare_train(config(optim_wrapper=wrapper))
    if device == 'cpu':
        assert cfg.optim_wrapper == {'type': 'OptimWrapper', 'optimizer': optimizer}
        assert 'no GPU for AmpOptimWrapper, trains in float32' in notices[0]
    else:
        assert cfg.optim_wrapper == wrapper


def test_scaling_the_learning_rate(config):
    with pytest.raises(ConfigError, match=r'no auto_scale_lr\.base_batch_size'):
        train.prepare_train(config(), auto_scale_lr=True)
    path = config(auto_scale_lr={'enable': False, 'base_batch_size': 16})
    assert train.prepare_train(path, auto_scale_lr=True)[0].auto_scale_lr.enable
    assert not train.prepare_train(path)[0].auto_scale_lr.enable


def test_a_config_that_is_not_for_the_task(config):
    with pytest.raises(ConfigError, match='no optim_wrapper'):
        train.prepare_train(config(optim_wrapper=None))
    torch.save({}, 'x.pth')
    with pytest.raises(ConfigError, match='no test_evaluator'):
        testing.prepare_test(config(test_evaluator=None), 'x.pth')


def checkpoint(path):
    content = {
        'meta': {'epoch': 1, 'iter': 4},
        'message_hub': {'log_scalars': {}, 'runtime_info': {}, 'resumed_keys': {}},
        'optimizer': {},
        'state_dict': {'weight': torch.ones(1)},
    }
    torch.save(content, path)
    return str(path)


def settled(path, resume):
    """Return the config of a resumed training, and the notices about it."""
    cfg, notices = train.prepare_train(path)
    return cfg, notices + train.settle_resume(cfg, resume)


def test_resuming_from_the_last_checkpoint(config, tmp_path):
    path = config(work_dir=str(tmp_path), load_from='pretrained.pth')
    cfg, (notice,) = settled(path, 'auto')
    assert (cfg.resume, cfg.load_from) == (False, 'pretrained.pth')
    assert 'no checkpoint in' in notice and 'from scratch' in notice
    last = checkpoint(tmp_path / 'epoch_1.pth')
    (tmp_path / 'epoch_2.pth').write_bytes(b'')
    cfg, (skipped, notice) = settled(path, 'auto')
    assert (cfg.resume, cfg.load_from) == (True, last)
    assert 'skips a checkpoint: ' in skipped and 'epoch_2.pth is damaged' in skipped
    assert notice == f'--resume: resumes from {last}'


def test_resuming_under_other_file_names(config, tmp_path):
    hooks = {'checkpoint': {'type': 'CheckpointHook', 'filename_tmpl': 'm{}.pth'}}
    last = checkpoint(tmp_path / 'm3.pth')
    path = config(work_dir=str(tmp_path), default_hooks=hooks)
    assert settled(path, 'auto')[0].load_from == last


def test_resuming_from_a_checkpoint(config, tmp_path):
    given = checkpoint(tmp_path / 'x.pth')
    cfg, _ = settled(config(load_from='pretrained.pth'), given)
    assert (cfg.resume, cfg.load_from) == (True, given)
    cfg, _ = settled(config(resume=True, load_from=given), None)
    assert (cfg.resume, cfg.load_from) == (True, given)
    with pytest.raises(MissingCheckpointError, match='missing.pth'):
        settled(config(), 'missing.pth')


def test_not_resuming(config):
    cfg, notices = train.prepare_train(config(load_from='x.pth'))
    assert (cfg.get('resume'), cfg.load_from, notices) == (None, 'x.pth', [])


def test_testing(config, tmp_path):
    with pytest.raises(MissingCheckpointError, match='missing.pth does not exist'):
        testing.prepare_test(config(), 'missing.pth')
    path = checkpoint(tmp_path / 'x.pth')
    cfg, notices = testing.prepare_test(config(resume=True), path, out='out.pkl')
    assert (cfg.resume, cfg.load_from) == (False, path)
    assert cfg.test_evaluator[1].out_file_path == 'out.pkl'
    cfg, _ = testing.prepare_test(config(), 'https://example.org/x.pth')
    assert cfg.load_from == 'https://example.org/x.pth'


def test_slurm_without_a_gpu(config):
    cfg = configs.load_config(config(), launcher='slurm')
    with pytest.raises(ConfigError, match='--launcher slurm: needs a GPU'):
        runner.build_runner(cfg, [], ['train'])


def test_strategies_without_a_gpu(config):
    strategies = {'strategy': {'type': 'FSDPStrategy'}, 'runner_type': None}
    for key, strategy in strategies.items():
        path = config(runner_type='FlexibleRunner', strategy=strategy)
        cfg = configs.load_config(path, launcher='pytorch')
        with pytest.raises(ConfigError, match=f'^{key}: .*needs a GPU'):
            runner.build_runner(cfg, [], ['train'])


@pytest.mark.parametrize('launcher', launchers.LAUNCHERS)
def test_processes_that_no_launcher_started(config, launcher, monkeypatch):
    monkeypatch.setattr(launchers, 'get_device', lambda: 'cuda')
    variables, command = launchers.LAUNCHERS[launcher]
    for name in variables[1:]:
        monkeypatch.setenv(name, '0')
    monkeypatch.delenv(variables[0], raising=False)
    cfg = configs.load_config(config(), launcher=launcher)
    message = rf'^--launcher {launcher}: the environment has no {variables[0]}; .*by '
    with pytest.raises(ConfigError, match=message + command):
        runner.build_runner(cfg, [], ['train'])
    monkeypatch.setenv(variables[0], '0')
    assert launchers.join_processes(cfg) == []


def test_sync_bn_by_both_settings_is_replaced_by_both(config, monkeypatch):
    """mmengine converts all batch norms if the config has sync_bn."""
    monkeypatch.setattr(torch.distributed, 'init_process_group', lambda backend: None)
    for name in launchers.LAUNCHERS['pytorch'][0]:
        monkeypatch.setenv(name, '0')
    model = {'type': 'ToyModel', 'norm_cfg': {'type': 'SyncBN'}}
    for changes in ({'sync_bn': 'torch'}, {'model': model}, {}):
        cfg = configs.load_config(config(**changes), launcher='pytorch')
        notices = launchers.join_processes(cfg)
        assert any('SyncBN needs a GPU' in text for text in notices) == bool(changes)
    both = {'sync_bn': 'torch', 'model': model}
    cfg = configs.load_config(config(**both), launcher='pytorch')
    launchers.join_processes(cfg)
    assert 'sync_bn' not in cfg and cfg.model.norm_cfg.type == 'BN'


def test_none_leaves_a_section_out(config):
    left_out = dict.fromkeys(
        ['auto_scale_lr', 'default_hooks', 'custom_hooks', 'visualizer', 'randomness']
        + ['env_cfg', 'log_processor', 'param_scheduler', 'resume', 'load_from']
        + ['val_dataloader', 'val_evaluator', 'val_cfg', 'model_wrapper_cfg']
    )
    path = config(train_cfg={'by_epoch': True, 'max_epochs': 1}, **left_out)
    cfg, notices = train.prepare_train(path)
    assert not notices and not left_out.keys() & cfg.keys()
    train.train(config=path, work_dir='work')
    testing.test(config=path, checkpoint='work/epoch_1.pth', work_dir='tested')


def test_workers_that_are_none(config):
    loader = toy_config()['train_dataloader']
    loader = {**loader, 'persistent_workers': True, 'prefetch_factor': 2}
    path = config(
        train_dataloader=loader,
        val_dataloader={**loader, 'num_workers': 1},
        train_cfg={'by_epoch': True, 'max_epochs': 1},
    )
    cfg, notices = train.prepare_train(path)
    assert [text.partition(' ')[0] for text in notices] == [
        'train_dataloader.persistent_workers',
        'train_dataloader.prefetch_factor',
    ]
    assert cfg.val_dataloader.persistent_workers
    train.train(config=path, work_dir='work')


@pytest.mark.parametrize('name', ["it's", 'two words', 'a"b', 'back\\slash'])
def test_names_with_quotes_stay_names(config, tmp_path, name):
    checkpoint = tmp_path / f'{name}.pth'
    torch.save({}, checkpoint)
    cfg, _ = testing.prepare_test(
        config(), str(checkpoint), work_dir=name, out=f'{name}.pkl'
    )
    written = Config.fromstring(cfg.pretty_text, '.py')
    assert written.test_evaluator[1].out_file_path == f'{name}.pkl'
    assert (written.work_dir, written.load_from) == (name, str(checkpoint))


@pytest.fixture
def no_rank(monkeypatch):
    """Undo at the end that ``run`` sets the rank."""
    monkeypatch.setenv('LOCAL_RANK', '')
    monkeypatch.delenv('LOCAL_RANK')


@pytest.mark.usefixtures('no_rank')
@pytest.mark.parametrize('error', [ConfigError('a: b'), CheckpointError('a: b')])
def test_mistakes_end_with_a_sentence(error):
    def fail():
        raise error

    with pytest.raises(SystemExit) as caught:
        command.run(fail, {'local_rank': 0})
    assert caught.value.code == 'error: a: b'


@pytest.mark.usefixtures('no_rank')
def test_other_errors_keep_their_traceback():
    def fail(**options):
        raise ValueError(str(options))

    with pytest.raises(ValueError, match="{'a': 1}"):
        command.run(fail, {'local_rank': 0, 'a': 1})


@pytest.mark.usefixtures('no_rank')
def test_an_interrupt_ends_with_its_status(capsys):
    def stop():
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as caught:
        command.run(stop, {})
    assert caught.value.code == 130
    assert 'interrupted' in capsys.readouterr().err
