"""Two layers that learn known kernels, and short trainings in which they adapt."""

import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, HOOKS, MODELS
from mmengine.runner import Runner
from torch.utils.data import Dataset
from toy import toy_config

from dcls_mm.checkpoint.matching import unwrapped
from dcls_mm.layers import DCLSConv1d

# Tap -> weight of the kernels to be learned: a wide one and a small one.
TARGETS = {'far': {-10: 1.0, -6: 0.9, 0: 1.1, 5: 0.9, 10: 1.0}, 'near': {0: 1.0}}
SIZE = 41


def dense(taps):
    kernel = torch.zeros(1, 1, SIZE)
    for place, value in taps.items():
        kernel[0, 0, SIZE // 2 + place] = value
    return kernel


@DATASETS.register_module(force=True)
class SmoothSignals(Dataset):
    """Smooth noise, in which neighbouring values are alike, as in images."""

    def __len__(self):
        return 32

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        noise = torch.randn(1, 1, 96, generator=generator)
        smooth = torch.exp(-(torch.arange(-8.0, 9.0) ** 2) / 8)
        return {'inputs': F.conv1d(noise, smooth[None, None], padding=8)[0]}


@MODELS.register_module(force=True)
class AdaptingToy(BaseModel):
    """Layers of one channel that are to become the two kernels.

    With ``shared``, a third one shares the positions of ``far`` and learns the negative
    of its kernel.
    """

    def __init__(self, count=3, extent=5, shared=False, **options):
        super().__init__()
        arguments = dict(kernel_count=count, dilated_kernel_size=extent, bias=False)
        arguments = dict(padding=extent // 2, **arguments, **options)
        self.far = DCLSConv1d(1, 1, **arguments)
        self.near = DCLSConv1d(1, 1, **arguments)
        self.also = None
        if shared:
            self.also = DCLSConv1d(1, 1, **arguments)
            self.also.share_positions(self.far)

    def forward(self, inputs, mode='tensor'):
        x = torch.stack(list(inputs))
        losses = {}
        for name, sign in (('far', 1), ('near', 1), ('also', -1)):
            layer = getattr(self, name)
            if layer is not None:
                taps = TARGETS[name if name in TARGETS else 'far']
                wanted = sign * F.conv1d(x, dense(taps), padding=SIZE // 2)
                error = (layer(x) - wanted)[..., 20:-20]
                losses[f'loss_{name}'] = error.square().mean()
        return losses


@HOOKS.register_module(force=True)
class AdaptingRecorder(Hook):
    """A record of each iteration's sizes, taken when all other hooks are done."""

    priority = 'LOWEST'

    def before_train(self, runner):
        self.rows = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        model = unwrapped(runner.model)
        layers = [layer for layer in (model.far, model.near, model.also) if layer]
        self.rows.append(
            dict(
                weights=sum(layer.weight.numel() for layer in layers),
                extents=[layer.extent[0] for layer in layers],
                counts=[layer.kernel_count for layer in layers],
                parameters={n: p.detach().clone() for n, p in model.named_parameters()},
                outputs=outputs,  # with its graph
            )
        )


def config_of(work_dir, *hooks, iterations=60, wrapper=None, lr=0.1, **changes):
    """Return the config of a training; ``changes`` are arguments of the model."""
    nothing = {
        f'{stage}_{part}': None
        for stage in ('val', 'test')
        for part in ('dataloader', 'cfg', 'evaluator')
    }
    keys = ('resume', 'load_from', 'model_wrapper_cfg', 'launcher')
    top = {key: changes.pop(key) for key in keys if key in changes}
    return Config(
        toy_config(
            **nothing,
            **top,
            model=dict(type='AdaptingToy', **changes),
            work_dir=str(work_dir),
            train_cfg=dict(type='IterBasedTrainLoop', max_iters=iterations),
            train_dataloader=dict(
                batch_size=8,
                num_workers=0,
                dataset=dict(type='SmoothSignals'),
                sampler=dict(type='InfiniteSampler', shuffle=False),
            ),
            param_scheduler=None,
            optim_wrapper=dict(
                optimizer=dict(type='Adam', lr=lr),
                constructor='DCLSOptimizerConstructor',
                paramwise_cfg=dict(position_lr_mult=2.0),
                **(wrapper or {}),
            ),
            default_hooks=dict(
                checkpoint=dict(type='CheckpointHook', interval=30, by_epoch=False),
                logger=dict(type='LoggerHook', interval=1000),
            ),
            custom_hooks=[*hooks, dict(type='AdaptingRecorder')],
        )
    )


def train(work_dir, *hooks, **changes):
    """Train, and return the runner and the recorder's rows."""
    runner = Runner.from_cfg(config_of(work_dir, *hooks, **changes))
    runner.train()
    return runner, runner.hooks[-1].rows


def adapting(**arguments):
    """Return a config of the hook with visits every 10 iterations."""
    return dict(
        type='AdaptKernelsHook', **{'interval': 10, 'turnover': 0.4, **arguments}
    )
