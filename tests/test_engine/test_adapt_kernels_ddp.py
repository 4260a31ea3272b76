"""Two processes adapt their kernels alike, and refuse what DDP can't train."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapper
from processes import free_port, run_two_ranks
from torch import distributed, nn

from dcls_mm.checks.errors import ConfigError
from dcls_mm.engine.hooks import AdaptKernelsHook, PositionTravelHook
from dcls_mm.layers import DCLSConv1d

HERE = Path(__file__).resolve().parent


def test_two_processes_stay_in_step(tmp_path):
    run_two_ranks(tmp_path, [HERE / 'adapting_ranks.py'], free_port(), tmp_path)
    first, second = (
        torch.load(tmp_path / f'rank_{rank}.pth', weights_only=True) for rank in (0, 1)
    )
    assert first[0][0] == [5, 5] and first[-1][0] != [5, 5]
    for (extents, parameters), (others, copies) in zip(first, second):
        assert extents == others
        assert all(torch.equal(parameters[name], copies[name]) for name in parameters)


def test_counts_can_not_move():
    store = distributed.HashStore()
    distributed.init_process_group('gloo', store=store, rank=0, world_size=1)
    try:
        layer = DCLSConv1d(2, 2, padding=2, kernel_count=3, dilated_kernel_size=5)
        model = MMDistributedDataParallel(nn.Sequential(layer))
        wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
        hook = AdaptKernelsHook()
        runner = SimpleNamespace(model=model, hooks=[hook], optim_wrapper=wrapper)
        with pytest.raises(ConfigError, match='move_counts must be False with MMDis'):
            hook.before_train(runner)
    finally:
        distributed.destroy_process_group()


def test_counts_of_a_checkpoint_can_not_change_what_is_wrapped():
    store = distributed.HashStore()
    distributed.init_process_group('gloo', store=store, rank=0, world_size=1)
    try:
        build = dict(padding=2, dilated_kernel_size=5)
        model = MMDistributedDataParallel(
            nn.Sequential(DCLSConv1d(2, 2, kernel_count=3, **build))
        )
        hook = PositionTravelHook()
        hook.before_run(SimpleNamespace(model=model, hooks=[hook], _train_loop=None))
        hook.before_train(SimpleNamespace(model=model))
        adapted = nn.Sequential(DCLSConv1d(2, 2, kernel_count=4, **build))
        adapted[0].adapted = True
        model.module.load_state_dict(adapted.state_dict())
        with pytest.raises(ConfigError, match='0 must have kernel_count=4 .* got 3'):
            hook.before_train(SimpleNamespace(model=model))
    finally:
        distributed.destroy_process_group()
