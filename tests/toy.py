"""A model of a few weights, on random numbers, for training loops in tests."""

import itertools
import time

import torch
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, METRICS, MODELS
from torch import nn
from torch.utils.data import Dataset


@MODELS.register_module(force=True)
class ToyModel(BaseModel):
    def __init__(self, width=8):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(4, width), nn.BatchNorm1d(width), nn.Linear(width, 1)
        )

    def forward(self, x, y, mode='tensor'):
        output = self.net(torch.stack(list(x)))
        if mode == 'loss':
            return {'loss': (output - torch.stack(list(y))).square().mean()}
        return [{'prediction': value} for value in output]


@DATASETS.register_module(force=True)
class ToyDataset(Dataset):
    def __init__(self, pause=0.0, metainfo=None, **kwargs):
        self.pause = pause
        self.metainfo = metainfo or {}

    def __len__(self):
        return 16

    def __getitem__(self, index):
        time.sleep(self.pause)
        generator = torch.Generator().manual_seed(index)
        x = torch.rand(4, generator=generator)
        return {'x': x, 'y': x.sum(0, keepdim=True)}


@METRICS.register_module(force=True)
class ToyMetric(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results += [sample['prediction'].item() for sample in data_samples]

    def compute_metrics(self, results):
        return {'score': sum(results)}


_number = itertools.count()


def toy_config(**changes):
    """Return a config for ToyModel as a dict, with ``changes`` at the top level."""
    dataloader = {
        'batch_size': 4,
        'num_workers': 0,
        'dataset': {'type': 'ToyDataset'},
        'sampler': {'type': 'DefaultSampler', 'shuffle': True},
    }
    return {
        'default_scope': 'mmdet',
        'custom_imports': {'imports': ['toy'], 'allow_failed_imports': False},
        'model': {'type': 'ToyModel'},
        'train_dataloader': dataloader,
        'val_dataloader': dataloader,
        'test_dataloader': dataloader,
        'train_cfg': {'by_epoch': True, 'max_epochs': 3},
        'val_cfg': {},
        'test_cfg': {},
        'val_evaluator': {'type': 'ToyMetric'},
        'test_evaluator': {'type': 'ToyMetric'},
        'optim_wrapper': {'optimizer': {'type': 'AdamW', 'lr': 0.01}},
        'param_scheduler': [
            {'type': 'LinearLR', 'start_factor': 0.1, 'by_epoch': False, 'end': 4},
            {'type': 'MultiStepLR', 'milestones': [2, 3]},
        ],
        'default_hooks': {
            'checkpoint': {'type': 'AtomicCheckpointHook', 'interval': 1},
        },
        'randomness': {'seed': 1},
        # The default is the current second, but runners of the same name share state.
        'experiment_name': f'toy_{next(_number)}',
        **changes,
    }


def write_config(path, **changes):
    """Write a config for ToyModel to a file and return the name."""
    items = toy_config(**changes).items()
    path.write_text(''.join(f'{key} = {value!r}\n' for key, value in items))
    return str(path)
