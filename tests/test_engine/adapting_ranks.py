"""One of two processes that adapt kernels, by DDP: python ... RANK PORT FOLDER."""

import sys
from unittest import mock

import torch
from adapting_toy import adapting, config_of
from mmengine.runner import Runner

from dcls_mm.checkpoint.matching import unwrapped


def main(rank, port, folder):
    torch.distributed.init_process_group(
        'gloo', init_method=f'tcp://127.0.0.1:{port}', rank=int(rank), world_size=2
    )
    config = config_of(folder, adapting(move_counts=False, meet=1.0), iterations=60)
    config.launcher = 'pytorch'
    config.model_wrapper_cfg = dict(type='MMDistributedDataParallel', device_ids=None)
    runner = Runner.from_cfg(config)
    runner.train()
    rows = [(row['extents'], row['parameters']) for row in runner.hooks[-1].rows]
    assert unwrapped(runner.model) is not runner.model
    torch.save(rows, f'{folder}/rank_{rank}.pth')


if __name__ == '__main__':
    with mock.patch('mmengine.runner.runner.collect_env', dict):
        main(*sys.argv[1:])
