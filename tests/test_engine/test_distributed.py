"""Two processes against one: ConvNeXt-dcls in a segmentor, through tools/train.py."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from processes import free_port
from scenes import write_demo

from dcls_mm.apis import launchers, train
from dcls_mm.checkpoint import read_checkpoint

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


def train_in_two(config, work_dir, *arguments):
    done = subprocess.run(
        ['bash', ROOT / 'tools' / 'dist_train.sh', config, '2']
        + ['--work-dir', work_dir, *arguments],
        env={
            **os.environ,
            'PYTHON': sys.executable,
            'PYTHONPATH': os.pathsep.join([str(HERE.parent), str(HERE)]),
            'PORT': free_port(),
            'OMP_NUM_THREADS': '1',
            'CUDA_VISIBLE_DEVICES': '-1',
        },
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert not done.returncode, done.stderr
    return done.stdout + done.stderr


def segmentor(folder, norm, **changes):
    """Write the demo's config for four scenes in order, without randomness."""
    config, _ = write_demo(folder, 'mmseg', count=4)
    cfg = Config.fromfile(config)
    cfg.custom_imports.imports.append('ranks')
    cfg.model.data_preprocessor.size = (96, 96)  # no padding
    cfg.model.backbone.drop_path_rate = 0.0
    for head in (cfg.model.decode_head, cfg.model.auxiliary_head):
        head.update(norm_cfg=norm, dropout_ratio=0.0)
        head.loss_decode.pop('class_weight')
    load, annotations, *_, pack = cfg.train_dataloader.dataset.pipeline
    dataset = dict(cfg.test_dataloader.dataset, pipeline=[load, annotations, pack])
    cfg.train_dataloader = dict(
        cfg.test_dataloader, dataset=dict(dataset, test_mode=False)
    )
    cfg.train_cfg = dict(by_epoch=True, max_epochs=1)
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.param_scheduler = []
    cfg.default_hooks.checkpoint = dict(type='AtomicCheckpointHook', interval=1)
    cfg.custom_hooks = [dict(type='SaveRankHook')]
    cfg.merge_from_dict(changes)
    cfg.dump(config)
    return config


def test_gradients_are_those_of_the_joint_batch(tmp_path):
    """The reference is one process, also with accumulation; SGD's step shows them."""
    config = segmentor(
        tmp_path,
        dict(type='GN', num_groups=4),
        optim_wrapper=dict(
            _delete_=True, type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1)
        ),
        randomness=dict(seed=0),
    )
    settings = {
        'joint': {'train_dataloader.batch_size': 4},
        'accumulated': {
            'train_dataloader.batch_size': 2,
            'optim_wrapper.accumulative_counts': 2,
        },
    }
    sys.path.insert(0, str(HERE))
    for name, options in settings.items():
        work_dir = str(tmp_path / name)
        options['experiment_name'] = name  # runners of the same name share state
        train.train(config=config, work_dir=work_dir, cfg_options=options)
    options = ['--cfg-options', 'train_dataloader.batch_size=2']
    train_in_two(config, tmp_path / 'two', *options)

    joint = torch.load(tmp_path / 'joint' / 'rank_0.pth')
    moved = 0
    for run in ('accumulated/rank_0', 'two/rank_0', 'two/rank_1'):
        other = torch.load(tmp_path / f'{run}.pth')
        for name, value in joint.items():
            torch.testing.assert_close(other[name], value, rtol=1e-4, atol=1e-6)
            moved += not torch.equal(other[name], value)
    assert moved, 'two different computations agree to the last bit'


def test_processes_stay_equal_and_resume(tmp_path):
    """With SyncBN (replaced by BN), averaged weights and clamped, shared positions."""
    config = segmentor(
        tmp_path,
        dict(type='SyncBN'),
        custom_hooks=[
            dict(type='SaveRankHook'),
            dict(type='ClampPositionsHook'),
            dict(type='EMAHook'),
        ],
        train_dataloader=dict(batch_size=2),
    )
    work_dir = tmp_path / 'work'
    out = train_in_two(config, work_dir)
    assert 'SyncBN needs a GPU' in out
    more = ['--resume', '--cfg-options', 'train_cfg.max_epochs=2']
    assert f'resumes from {work_dir}/epoch_1.pth' in train_in_two(
        config, work_dir, *more
    )

    checkpoint = read_checkpoint(str(work_dir / 'epoch_2.pth'))
    assert checkpoint['meta']['iter'] == 2  # one per epoch: each process has two scenes
    averaged = checkpoint['ema_state_dict']['module.backbone.stages.2.0.dwconv.P']
    position = checkpoint['state_dict']['backbone.stages.2.0.dwconv.P']
    assert not torch.equal(averaged, position)
    ranks = [torch.load(work_dir / f'rank_{rank}.pth') for rank in (0, 1)]
    for name, value in ranks[0].items():
        assert torch.equal(value, ranks[1][name]), name
    for rank in (0, 1):  # one copy each, and the file is read only once
        assert (work_dir / f'opened_{rank}.txt').read_text() == 'epoch_1.pth'


@pytest.mark.parametrize('kind', ['SyncBN', 'BN'])
def test_sync_bn_is_replaced_by_name(kind):
    model = dict(a=[dict(norm_cfg=dict(type=kind))], b=dict(type=kind, eps=1e-3))
    cfg = Config(dict(model=model))
    assert launchers.replace_sync_bn(cfg.model) == (2 if kind == 'SyncBN' else 0)
    assert cfg.model.a[0].norm_cfg.type == cfg.model.b.type == 'BN'
    assert cfg.model.b.eps == 1e-3
