"""Epochs draw the same random numbers, wherever a training was interrupted."""

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from toy import toy_config

from dcls_mm.apis.runner import build_runner
from dcls_mm.checks.errors import ConfigError


def config(tmp_path, epochs, **changes):
    cfg = Config(
        toy_config(
            train_cfg={'by_epoch': True, 'max_epochs': epochs},
            work_dir=str(tmp_path),
            custom_hooks=[{'type': 'EpochSeedHook'}],
            randomness={'seed': 3},
            **changes,
        )
    )
    cfg.launcher = 'none'
    return cfg


def numbers(cfg):
    """Return the random numbers drawn in each epoch."""
    drawn = {}
    runner = build_runner(cfg, [], ['train'])
    step = runner.model.train_step

    def train_step(data, optim_wrapper):
        drawn.setdefault(runner.epoch, []).append(torch.rand(()).item())
        return step(data, optim_wrapper)

    runner.model.train_step = train_step
    runner.train()
    return drawn


def test_resumed_epochs_draw_what_uninterrupted_ones_draw(tmp_path):
    whole = numbers(config(tmp_path / 'whole', 3))
    assert len(whole) == 3 and whole[0] != whole[1] != whole[2]
    numbers(config(tmp_path / 'parts', 2))
    cfg = config(tmp_path / 'parts', 3, resume=True)
    cfg.load_from = str(tmp_path / 'parts' / 'epoch_2.pth')
    assert numbers(cfg) == {2: whole[2]}
    other = config(tmp_path / 'parts', 3, resume=True)
    other.load_from = cfg.load_from
    other.randomness.seed = 4  # mmengine continues with the checkpoint's seed
    assert numbers(other) == {2: whole[2]}


@pytest.mark.parametrize(
    'changes, message',
    [
        ({'randomness': {'seed': None}}, 'a number as randomness.seed'),
        (
            {'train_cfg': {'by_epoch': False, 'max_iters': 4}, 'param_scheduler': []},
            'by_epoch=True, but the loop is IterBasedTrainLoop',
        ),
        (
            {
                'train_dataloader.num_workers': 1,
                'train_dataloader.persistent_workers': True,
            },
            'train_dataloader.persistent_workers=False',
        ),
    ],
)
def test_what_it_needs(changes, message, tmp_path):
    cfg = config(tmp_path, 1)
    for key in changes:
        if '.' not in key:
            cfg.pop(key, None)
    cfg.merge_from_dict(changes)
    runner = Runner.from_cfg(cfg)
    with pytest.raises(ConfigError, match=message):
        runner.train()
