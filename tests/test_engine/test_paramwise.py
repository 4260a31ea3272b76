"""mmengine's paramwise_cfg keys in DCLSOptimizerConstructor."""

import copy
import itertools

import pytest
import torch
from mmcv.ops import ModulatedDeformConv2dPack
from mmengine.config import ConfigDict
from mmengine.logging import MMLogger
from mmengine.optim import DefaultOptimWrapperConstructor, build_optim_wrapper
from torch import nn

from dcls_mm.checks.errors import ConfigError
from dcls_mm.engine.optimizers import DCLSOptimizerConstructor
from dcls_mm.layers import DCLSConv1d, DCLSConv2d, FlexConv2d, LargeKernelConv2d

LR, DECAY = 0.5, 0.25
OPTIMIZER = dict(type='AdamW', lr=LR, weight_decay=DECAY)
MULTIPLIERS = dict(
    bias_lr_mult=2.0,
    dcn_offset_lr_mult=3.0,
    norm_decay_mult=5.0,
    bias_decay_mult=7.0,
    dwconv_decay_mult=11.0,
    flat_decay_mult=13.0,
)
CUSTOM = {
    'stem': dict(lr_mult=17.0),
    'stem.norm': dict(decay_mult=19.0),
    'head.bias': dict(lr_mult=0.5, decay_mult=0.0, betas=(0.5, 0.75)),
    'absent': dict(lr_mult=23.0),
}


class Plain(nn.Module):
    """Every kind of parameter that mmengine distinguishes."""

    def __init__(self):
        super().__init__()
        self.pos_embed = nn.Parameter(torch.zeros(1, 2, 3))
        self.stem = nn.Module()
        self.stem.conv = nn.Conv2d(4, 8, 3)
        self.stem.norm = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, groups=8)
        self.depthwise_1d = nn.Conv1d(8, 8, 3, groups=8)
        self.norms = nn.ModuleList(
            [nn.LayerNorm(8), nn.GroupNorm(2, 8), nn.InstanceNorm1d(8, affine=True)]
        )
        self.gamma = nn.Parameter(torch.ones(8))
        self.deformable = ModulatedDeformConv2dPack(8, 8, 3)
        self.head = nn.Linear(8, 8)
        self.tied = nn.Linear(8, 8)
        self.tied.weight = self.head.weight
        self.again = self.depthwise
        self.frozen = nn.Linear(2, 2).requires_grad_(False)
        self.table = nn.Module()
        self.table.bias = nn.Parameter(torch.zeros(2, 3))


def groups_of(constructor, model, paramwise_cfg):
    """Return {parameter: its group} for the learned ones; each must be listed once.

    mmengine 0.10.3 lists the frozen ones as well.
    """
    MMLogger.get_instance('test_paramwise')
    wrapper = constructor(dict(optimizer=OPTIMIZER), paramwise_cfg)(model)
    names = names_of_learned(model)
    groups = wrapper.optimizer.param_groups
    parameters = [(p, group) for group in groups for p in group['params']]
    listed = [(names[p], group) for p, group in parameters if p.requires_grad]
    assert len(listed) == len(dict(listed)) == len(names)
    return dict(listed)


def names_of_learned(model):
    return {p: name for name, p in model.named_parameters() if p.requires_grad}


def stock_groups(model, paramwise_cfg):
    """Return mmengine's groups, with the keys that it set in each of them."""
    cfg = dict(paramwise_cfg, bypass_duplicate=True)
    constructor = DefaultOptimWrapperConstructor(dict(optimizer=OPTIMIZER), cfg)
    params = []
    constructor.add_params(params, model)
    names = names_of_learned(model)
    parameters = [(group['params'][0], group) for group in params]
    return {names[p]: group for p, group in parameters if p.requires_grad}


@pytest.mark.parametrize('custom_keys', [{}, CUSTOM], ids=['plain', 'custom'])
def test_every_combination_gives_what_mmengine_gives(custom_keys):
    """Parameters to which no given key applies keep the published weight decay."""
    model, differing = Plain(), set()
    for count in range(len(MULTIPLIERS) + 1):
        for keys in itertools.combinations(MULTIPLIERS, count):
            cfg = {key: MULTIPLIERS[key] for key in keys}
            if custom_keys:
                cfg['custom_keys'] = custom_keys
            before = copy.deepcopy(cfg)
            found = groups_of(DCLSOptimizerConstructor, model, cfg)
            stock = stock_groups(model, before)
            assert cfg == before
            assert found.keys() == stock.keys()
            for name, group in stock.items():
                value = dict(model.named_parameters())[name]
                settings = {
                    key: value
                    for key, value in group.items()
                    if key not in ('params', 'lr_mult', 'decay_mult')
                }
                decay = DECAY
                if value.ndim == 1 or name in ('table.bias', 'pos_embed'):
                    decay = 0.0
                expected = {'lr': LR, 'weight_decay': decay, **settings}
                differing.add((name, *expected.items()))
                for key, setting in expected.items():
                    assert found[name][key] == setting, (name, key, cfg)
    assert len(differing) > 40, 'the combinations hardly differ'


def test_with_both_keys_for_flat_parameters_nothing_is_left_to_our_default():
    """Except the bias of a deformable convolution's offsets, which mmengine decays."""
    model = Plain()
    cfg = dict(bias_decay_mult=1.0, flat_decay_mult=1.0, bypass_duplicate=True)
    found = groups_of(DCLSOptimizerConstructor, model, cfg)
    stock = groups_of(DefaultOptimWrapperConstructor, model, cfg)
    assert {
        name
        for name in stock
        if stock[name]['weight_decay'] != found[name]['weight_decay']
    } == {'pos_embed', 'deformable.conv_offset.bias'}


def depthwise_layers():
    places = dict(kernel_count=3, dilated_kernel_size=5)
    return nn.ModuleDict(
        {
            'dcls': DCLSConv2d(4, 4, 3, groups=4, interpolation='gauss', **places),
            'dcls_1d': DCLSConv1d(4, 8, 3, groups=4, **places),
            'large': LargeKernelConv2d(4, 4, 7, groups=4),
            'flex': FlexConv2d(4, 4, 5, groups=4),
            'dense': DCLSConv2d(4, 4, 3, **places),
            'plain': nn.Conv2d(4, 4, 3, groups=4),
        }
    )


def decays(**cfg):
    groups = groups_of(DCLSOptimizerConstructor, depthwise_layers(), cfg)
    return {name: group['weight_decay'] for name, group in groups.items()}


def test_depthwise_layers_of_ours_count_as_depthwise():
    values = decays(dwconv_decay_mult=2.0)
    doubled = {name for name, value in values.items() if value == 2 * DECAY}
    assert {f'{n}.weight' for n in ('dcls', 'dcls_1d', 'large', 'plain')} <= doubled
    assert {f'{n}.bias' for n in ('dcls', 'dcls_1d', 'large', 'plain')} <= doubled
    assert {'flex.bias', 'flex.net.output.weight', 'flex.net.output.bias'} <= doubled
    assert values['dense.weight'] == DECAY
    assert values['dense.bias'] == 0
    for name in ('dcls.P', 'dcls.SIG', 'dcls_1d.P', 'flex.mask_mean'):
        assert values[name] == 0
    filters = [name for name in values if '.filters.' in name and 'bias' not in name]
    assert filters and all(values[name] == 0 for name in filters)


def test_a_biass_own_key_stands_above_its_layers():
    values = decays(dwconv_decay_mult=0.0, bias_decay_mult=3.0, flat_decay_mult=5.0)
    for name in ('dcls', 'large', 'plain'):
        assert values[f'{name}.weight'] == 0
        assert values[f'{name}.bias'] == 3 * DECAY
    assert values['dcls.P'] == values['dcls.SIG'] == 0


def test_depth_counts_for_every_kind_but_an_lr_of_its_own():
    class Backbone(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(2, 2), nn.Linear(2, 2)

        def layer_id(self, name, num_layers, decay_type):
            return 1

    model = nn.ModuleDict({'backbone': Backbone(), 'head': nn.Linear(2, 2)})
    cfg = dict(
        decay_type='layer_wise',
        decay_rate=0.5,
        num_layers=2,
        bias_lr_mult=3.0,
        custom_keys={'b.weight': dict(lr=0.125), 'b.bias': dict(lr_mult=7.0)},
    )
    found = groups_of(DCLSOptimizerConstructor, model, cfg)
    rates = {name: group['lr'] for name, group in found.items()}
    assert rates == {
        'backbone.a.weight': LR / 4,
        'backbone.a.bias': 3 * LR / 4,
        'backbone.b.weight': 0.125,
        'backbone.b.bias': 7 * LR / 4,
        'head.weight': LR,
        'head.bias': 3 * LR,
    }
    for name, group in found.items():
        assert group['lr_scale'] == group['lr'] / LR, name


def test_the_config_stays_as_it_was():
    cfg = ConfigDict(
        type='OptimWrapper',
        optimizer=dict(OPTIMIZER),
        constructor='DCLSOptimizerConstructor',
        paramwise_cfg=dict(custom_keys=CUSTOM, norm_decay_mult=0.0),
    )
    before = copy.deepcopy(cfg)
    MMLogger.get_instance('test_paramwise')
    for _ in range(2):
        build_optim_wrapper(Plain(), cfg)
    assert cfg == before


@pytest.mark.parametrize('key', [*MULTIPLIERS, 'custom_keys'])
def test_a_decay_that_is_multiplied_must_be_given(key):
    cfg = {key: {'head': dict(decay_mult=2.0)} if key == 'custom_keys' else 2.0}
    optimizer = dict(type='AdamW', lr=LR)
    if key.endswith('lr_mult'):
        DCLSOptimizerConstructor(dict(optimizer=optimizer), cfg)
        return
    with pytest.raises(ConfigError, match=f'optimizer.weight_decay .* as .*{key}'):
        DCLSOptimizerConstructor(dict(optimizer=optimizer), cfg)
