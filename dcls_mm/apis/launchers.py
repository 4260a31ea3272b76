"""The processes of a distributed training: how they are started and joined."""

import os
from typing import Any

import torch.distributed
from mmengine.config import Config
from mmengine.device import get_device

from ..checks.config_tree import type_name
from ..checks.errors import ConfigError

# The variables that each launcher sets, the rank first, and the command to start it.
LAUNCHERS = {
    'pytorch': (
        ('RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT'),
        'torchrun, as tools/dist_train.sh does',
    ),
    'slurm': (
        ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_NODELIST'),
        'srun, as tools/slurm_train.sh does',
    ),
    'mpi': (
        ('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_LOCAL_RANK', 'OMPI_COMM_WORLD_SIZE'),
        'mpirun',
    ),
}

# Names in configs and in torch of batch norms that are synchronised across processes.
_SYNC_BN = ('SyncBN', 'MMSyncBN', 'SyncBatchNorm')


def is_first(launcher: str) -> bool:
    """Return whether this is the first process, even before they are joined."""
    return launcher == 'none' or os.environ.get(LAUNCHERS[launcher][0][0], '0') == '0'


def join_processes(cfg: Config) -> list[str]:
    """Join the processes where mmengine can't, and return what to log about it.

    mmengine's ``init_dist`` and its wrapper for distributed models assume a GPU, but
    leave alone what is already set up.

    Raises:
        ConfigError: a GPU is needed and there is none, or the launcher did not start
            this process.
    """
    launcher = cfg.launcher
    if launcher == 'none':
        return []
    on_cpu = get_device() == 'cpu'
    if on_cpu and launcher != 'pytorch':
        raise ConfigError(f'--launcher {launcher}: needs a GPU, and none was found')
    if on_cpu and (cfg.get('strategy') or cfg.get('runner_type') == 'FlexibleRunner'):
        key = 'strategy' if cfg.get('strategy') else 'runner_type'
        raise ConfigError(
            f'{key}: the FlexibleRunner needs a GPU for several processes, and none '
            'was found; leave out runner_type and strategy to train by DDP'
        )
    variables, command = LAUNCHERS[launcher]
    absent = [name for name in variables if name not in os.environ]
    if absent:
        raise ConfigError(
            f'--launcher {launcher}: the environment has no {", ".join(absent)}; start '
            f'the processes by {command}, or leave --launcher out for one process'
        )
    return _join_on_cpu(cfg) if on_cpu else []


def _join_on_cpu(cfg: Config) -> list[str]:
    torch.distributed.init_process_group('gloo')
    if 'model_wrapper_cfg' not in cfg:
        cfg.model_wrapper_cfg = {}
    wrapper = cfg.model_wrapper_cfg
    wrapper.setdefault('type', 'MMDistributedDataParallel')
    wrapper.setdefault('broadcast_buffers', False)
    unused = cfg.get('find_unused_parameters', False)
    wrapper.setdefault('find_unused_parameters', unused)
    wrapper['device_ids'] = None
    notices = ['--launcher pytorch: no GPU, the processes are joined by gloo']
    converted = cfg.pop('sync_bn', None)
    if replace_sync_bn(cfg.model) or converted:
        notices.append(
            'SyncBN needs a GPU: BN replaces it, and each process normalises by its '
            'own part of the batch'
        )
    return notices


def replace_sync_bn(node: Any) -> int:
    """Replace every SyncBN of a config, a name or a class, by 'BN'; return how many."""
    if isinstance(node, dict):
        here = type_name(node) in _SYNC_BN
        if here:
            node['type'] = 'BN'
        return here + sum(replace_sync_bn(value) for value in node.values())
    if isinstance(node, (list, tuple)):
        return sum(replace_sync_bn(value) for value in node)
    return 0
