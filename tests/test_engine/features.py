"""Features of a training, each implemented once by config and once by hand."""

import contextlib
import copy
import math

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import MODELS, OPTIM_WRAPPERS
from mmengine.runner import Runner
from torch import nn
from toy import ToyDataset, toy_config

from dcls_mm.backbones import ReplacedConvBackbone
from dcls_mm.checkpoint.matching import unwrapped
from dcls_mm.engine.hooks import AliasLossHook
from dcls_mm.functional.repulsion import repulsion
from dcls_mm.layers import DCLSConv2d, FlexConv2d

LR, DECAY, MOMENTUM, EPOCHS, BATCH = 0.05, 0.1, 0.9, 2, 8
LEARNED = dict(dilated_kernel_size=5, interpolation='gauss')
LIMIT = 2.0  # of positions in that extent


class PlainStages(BaseModel):
    """The backbone that ReplacedConvBackbone wraps."""

    def __init__(self):
        super().__init__()
        self.layer1 = nn.Sequential(*(nn.Conv2d(2, 2, 3, padding=1) for _ in range(2)))
        self.layer2 = nn.Sequential(nn.Conv2d(2, 2, 3, padding=1))

    def forward(self, x):
        return (self.layer2(self.layer1(x)),)


MODELS.register_module(module=PlainStages, force=True)


class Stages(nn.Module):
    """The same stages, built directly from layers that share their positions."""

    def __init__(self):
        super().__init__()
        first, second, third = (
            DCLSConv2d(2, 2, 3, padding=1, **LEARNED) for _ in range(3)
        )
        second.share_positions(first)
        self.layer1, self.layer2 = nn.Sequential(first, second), nn.Sequential(third)

    def forward(self, x):
        return (self.layer2(self.layer1(x)),)


@MODELS.register_module(force=True)
class FeaturesToy(BaseModel):
    """Layers with positions (some shared), one with a MAGNet, and a norm."""

    def __init__(self, replaced=False, frozen=False, norm=True):
        super().__init__()
        self.stages = (
            ReplacedConvBackbone(
                backbone=dict(type='PlainStages'),
                layer=dict(type='DCLSConv2d', **LEARNED),
                start='fresh',
                share_positions=r'layer(\d)',
            )
            if replaced
            else Stages()
        )
        self.flex = FlexConv2d(2, 2, 5, padding=2)
        self.norm = nn.BatchNorm2d(2) if norm else nn.Identity()
        if frozen:
            self.flex.requires_grad_(False)
            for name, parameter in self.stages.named_parameters():
                parameter.requires_grad_('layer1' not in name)

    def forward(self, x, y, mode='tensor'):
        x = torch.stack(list(x)).view(-1, 1, 2, 2).expand(-1, 2, -1, -1)
        output = self.norm(self.flex(self.stages(x)[0])).square().mean((1, 2, 3))
        error = output - torch.stack(list(y)).squeeze(1)
        return {'loss_fit': error.square().mean()}


@OPTIM_WRAPPERS.register_module(force=True)
class CPUAmpWrapper(OptimWrapper):
    """AmpOptimWrapper on a CPU, without loss scaling."""

    @contextlib.contextmanager
    def optim_context(self, model):
        with super().optim_context(model), torch.autocast('cpu', torch.bfloat16):
            yield


@MMENGINE_HOOKS.register_module(force=True)
class KeepStart(Hook):
    """A copy of the model before training."""

    priority = 'HIGHEST'
    model = None

    def before_train(self, runner):
        if KeepStart.model is None:
            KeepStart.model = copy.deepcopy(unwrapped(runner.model))


HOOKS = {
    'clamp': dict(type='ClampPositionsHook'),
    'repulsion': dict(type='RepulsionLossHook', begin=0),
    'alias': dict(type='AliasLossHook', weight=0.5),
    'freeze': dict(type='FreezePositionsHook', begin=1),
    'annealing': dict(type='SigmaAnnealingHook', initial=1.0, final=0.5, end=1),
    'pictures': dict(type='PositionsVisualizationHook', interval=2),
    'seed': dict(type='EpochSeedHook'),
    'finite': dict(type='FiniteLossHook'),
    'ema': dict(
        type='EMAHook', ema_type='ExpMomentumEMA', momentum=0.2, update_buffers=True
    ),
    'swa': dict(type='EMAHook', ema_type='StochasticWeightAverage'),
}
SETTINGS = ('amp', 'accumulate', 'resume', 'replaced', 'frozen')  # besides 'ddp'


def config_of(features, work_dir, max_epochs=EPOCHS, resume=False, **changes):
    """Return the config of a training with features; hooks keep their given order."""
    wrapper = dict(
        type='CPUAmpWrapper' if 'amp' in features else 'OptimWrapper',
        optimizer=dict(type='SGD', lr=LR, momentum=MOMENTUM, weight_decay=DECAY),
        constructor='DCLSOptimizerConstructor',
        paramwise_cfg=dict(position_lr_mult=20.0),
        accumulative_counts=2 if 'accumulate' in features else 1,
    )
    loader = dict(
        batch_size=BATCH,
        num_workers=0,
        dataset=dict(type='ToyDataset'),
        sampler=dict(type='DefaultSampler', shuffle=False),
    )
    config = toy_config(
        model=dict(
            type='FeaturesToy',
            replaced='replaced' in features,
            frozen='frozen' in features,
            norm='ddp' not in features,  # each process would normalise its own batch
        ),
        work_dir=str(work_dir),
        resume=resume,
        train_dataloader=loader,
        train_cfg=dict(by_epoch=True, max_epochs=max_epochs),
        optim_wrapper=wrapper,
        param_scheduler=None,
        custom_hooks=[
            dict(type='KeepStart'),
            *(dict(HOOKS[name]) for name in features if name in HOOKS),
        ],
        visualizer=dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')]),
        log_level='ERROR',
        **{
            f'{stage}_{part}': None
            for stage in ('val', 'test')
            for part in ('dataloader', 'cfg', 'evaluator')
        },
    )
    if 'resume' not in features:
        config['default_hooks'] = dict(checkpoint=None)
    if 'ddp' in features:  # the processes must have been joined
        config['launcher'] = 'pytorch'
        config['model_wrapper_cfg'] = dict(
            type='MMDistributedDataParallel', broadcast_buffers=False, device_ids=None
        )
    return Config({**config, **changes})


def train(features, work_dir):
    """Train by config; return the Runner and a copy of the initial model.

    With 'resume', the training is interrupted after the first epoch.
    """
    KeepStart.model = None
    if 'resume' in features:
        Runner.from_cfg(config_of(features, work_dir, max_epochs=1)).train()
    runner = Runner.from_cfg(config_of(features, work_dir, resume='resume' in features))
    runner.train()
    return runner, KeepStart.model


def train_by_hand(features, model, ranks=1):
    """Train ``model`` by hand, in place; return its averages.

    Args:
        features: names; repeated ones count twice.
        model: the initial model.
        ranks: number of processes that share the data; their gradients are averaged.
    """
    positions, sigmas = {}, {}
    for name, value in model.named_parameters():
        {'P': positions, 'SIG': sigmas}.get(name.split('.')[-1], {})[name] = value
    optimizer = torch.optim.SGD(_groups(model), momentum=MOMENTUM)
    accumulated = 2 if 'accumulate' in features else 1
    averages = {}
    step = 0
    for epoch in range(EPOCHS):
        kept = {
            value: value.detach().clone()
            for value in (*positions.values(), *sigmas.values())
        }
        for data in _batches(ranks):
            _anneal(features, sigmas, epoch)
            _loss(features, model, data, positions, epoch, accumulated).backward()
            step += 1
            if step % accumulated == 0:
                optimizer.step()
                optimizer.zero_grad()
            with torch.no_grad():
                if 'freeze' in features and epoch >= 1:
                    for value, before in kept.items():
                        value.copy_(before)
                _anneal(features, sigmas, epoch)
                if 'clamp' in features:
                    for value in positions.values():
                        value.clamp_(-LIMIT, LIMIT)
            _average(features, model, averages, step - 1)
    return averages


def _groups(model):
    undecayed = ('P', 'SIG', 'mask_mean', 'mask_width', 'bias', 'gamma', 'mu', 'theta')
    groups = []
    for name, value in model.named_parameters():
        last = name.split('.')[-1]
        is_filter = '.filters.' in name
        decays = value.ndim > 1 and last not in undecayed and not is_filter
        lr = LR * (20.0 if last in ('P', 'SIG') else 1.0)
        if value.requires_grad:
            groups.append(
                dict(params=[value], lr=lr, weight_decay=DECAY if decays else 0.0)
            )
    return groups


def _batches(ranks):
    dataset = ToyDataset()
    for start in range(0, len(dataset), BATCH * ranks):
        items = [dataset[i] for i in range(start, start + BATCH * ranks)]
        yield {key: [item[key] for item in items] for key in ('x', 'y')}


def _loss(features, model, data, positions, epoch, accumulated):
    with torch.autocast('cpu', torch.bfloat16, enabled='amp' in features):
        loss = model(**data, mode='loss')['loss_fit']
    for name in features:
        if name == 'repulsion' and epoch > 0:
            loss = loss + torch.stack([*map(repulsion, positions.values())]).mean() ** 2
        if name == 'alias':
            hook = AliasLossHook(weight=0.5)  # its formula is tested elsewhere
            hook.layers = [model.flex]
            loss = loss + hook.loss()
    return loss / accumulated


@torch.no_grad()
def _anneal(features, sigmas, epoch):
    if 'annealing' in features:
        for value in sigmas.values():
            value.fill_(1.0 - 0.5 * min(epoch, 1))


def _average(features, model, averages, step):
    shares = {
        'ema': 0.8 * math.exp(-(1 + step) / 2000) + 0.2,
        'swa': 1 / (step + 1),
    }
    for kind in set(shares) & set(features):
        average = averages.setdefault(kind, {})
        for name, value in (*model.named_parameters(), *model.named_buffers()):
            value = value.detach()
            copied = not value.is_floating_point() or (
                kind == 'swa' and name in dict(model.named_buffers())
            )
            if step == 0 or (copied and kind == 'swa'):
                average[name] = value.clone()
            elif not copied:
                average[name] = torch.lerp(average[name], value, shares[kind])


def averaged_models(runner, features):
    """Return {feature: average}, the last one if several hooks have the same kind."""
    kinds = {'ExpMomentumEMA': 'ema', 'StochasticWeightAverage': 'swa'}
    found = {}
    for hook in runner.hooks:
        if hasattr(hook, 'ema_model'):
            found[kinds[type(hook.ema_model).__name__]] = hook.ema_model.module
    return found


def tensors(model):
    """Return all parameters and buffers of a model by name."""
    named = (*model.named_parameters(), *model.named_buffers())
    return {name: value.detach() for name, value in named}
