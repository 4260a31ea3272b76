"""A hook that writes what each process ends with."""

from pathlib import Path

import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from opened import CHECKPOINTS


@HOOKS.register_module(force=True)
class SaveRankHook(Hook):
    """A copy of each process's parameters, ``rank_N.pth`` in the work directory.

    ``opened_N.txt`` beside it names the checkpoints that the process read.
    """

    def after_train(self, runner) -> None:
        opened = Path(runner.work_dir, f'opened_{get_rank()}.txt')
        opened.write_text('\n'.join(CHECKPOINTS))
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        parameters = {name: p.detach() for name, p in model.named_parameters()}
        torch.save(parameters, f'{runner.work_dir}/rank_{get_rank()}.pth')
