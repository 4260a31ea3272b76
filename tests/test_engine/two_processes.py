"""One of two processes that train with the given features, by DDP.

python two_processes.py RANK PORT FOLDER FEATURE+FEATURE...
"""

import json
import math
import sys
from pathlib import Path
from unittest import mock

import torch
from features import FeaturesToy, averaged_models, config_of, tensors, train
from mmengine.dist import get_rank
from mmengine.registry import MODELS
from mmengine.runner import Runner

from dcls_mm.checkpoint.matching import unwrapped
from dcls_mm.engine.hooks.finite_loss_hook import NonFiniteLossError


@MODELS.register_module(force=True)
class BreakingFeaturesToy(FeaturesToy):
    """FeaturesToy whose loss is NaN in the second process after one iteration."""

    count = 0

    def forward(self, x, y, mode='tensor'):
        losses = super().forward(x, y, mode)
        self.count += 1
        if get_rank() == 1 and self.count > 1:
            losses['loss_fit'] = losses['loss_fit'] * math.nan
        return losses


def break_off(folder):
    """Let the loss become NaN in one process; return the error of the current one."""
    config = config_of(['ddp', 'finite'], folder, max_epochs=4)
    config.model.type = 'BreakingFeaturesToy'
    try:
        Runner.from_cfg(config).train()
    except NonFiniteLossError as error:
        return str(error)
    return 'no error'


def main(rank, port, folder, *pairs):
    torch.distributed.init_process_group(
        'gloo', init_method=f'tcp://127.0.0.1:{port}', rank=int(rank), world_size=2
    )
    for pair in pairs:
        features = [*pair.split('+'), 'ddp']
        runner, start = train(features, f'{folder}/{pair}')
        averages = averaged_models(runner, features)
        result = dict(
            start=start.state_dict(),
            end=tensors(unwrapped(runner.model)),
            averages={kind: tensors(model) for kind, model in averages.items()},
        )
        torch.save(result, f'{folder}/{pair}_{rank}.pth')
    Path(f'{folder}/said_{rank}.json').write_text(json.dumps(break_off(folder)))


if __name__ == '__main__':
    with mock.patch('mmengine.runner.runner.collect_env', dict):
        main(*sys.argv[1:])
