"""The optimizer's parameter groups: depth, positions, sigma, shared parameters."""

from pathlib import Path

import pytest
from mmdet.engine.optimizers import LearningRateDecayOptimizerConstructor
from mmengine.config import Config, ConfigDict
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper
from mmengine.registry import HOOKS, init_default_scope
from torch import nn

from dcls_mm.backbones import ConvNeXtDCLS
from dcls_mm.engine.optimizers import DCLSOptimizerConstructor

SCHEDULES = Path(__file__).parents[2] / 'configs/_base_/schedules'
LR, DECAY = 1e-3, 0.05
ARCH = dict(depths=(1, 2, 1, 1), dims=(8, 12, 16, 24))
LEARNED = dict(type='DCLSConv2d', kernel_count=5, dilated_kernel_size=7)


class Detector(nn.Module):
    def __init__(self, arch=ARCH, **depthwise_cfg):
        super().__init__()
        self.backbone = ConvNeXtDCLS(arch=arch, depthwise_cfg=depthwise_cfg)
        self.head = nn.Linear(24, 2)


def table(model, paramwise_cfg=None, constructor=DCLSOptimizerConstructor):
    """Return {parameter: (learning rate, weight decay)}; each must be listed once."""
    MMLogger.get_instance('test_optim')
    optimizer = dict(type='AdamW', lr=LR, weight_decay=DECAY)
    wrapper = constructor(dict(optimizer=optimizer), paramwise_cfg)(model)
    groups = wrapper.optimizer.param_groups
    listed = [p for group in groups for p in group['params']]
    assert len(listed) == len(set(listed))
    rates = {p: (g['lr'], g['weight_decay']) for g in groups for p in g['params']}
    return {name: rates[p] for name, p in model.named_parameters() if p in rates}


@pytest.mark.parametrize('decay_type', ['layer_wise', 'stage_wise'])
@pytest.mark.parametrize('num_layers', [6, 12])
def test_plain_convnext_learns_as_with_the_stock_constructor(decay_type, num_layers):
    model = Detector(
        arch=dict(depths=(3, 3, 9, 3), dims=(4, 4, 4, 24)),
        type='Conv2d',
        kernel_size=7,
    )
    cfg = dict(decay_type=decay_type, decay_rate=0.7, num_layers=num_layers)
    stock = table(model, cfg, LearningRateDecayOptimizerConstructor)
    assert len(set(stock.values())) > 6
    rates = table(model, cfg)
    assert rates.keys() == stock.keys()
    for name in stock:
        assert rates[name] == pytest.approx(stock[name]), name


def test_without_decay_only_weights_decay():
    rates = table(Detector(**LEARNED))
    assert rates['backbone.stages.0.0.dwconv.weight'] == (LR, DECAY)
    assert rates['backbone.stages.0.0.dwconv.P'] == (LR, 0)
    assert rates['backbone.stages.0.0.dwconv.bias'] == (LR, 0)
    assert rates['backbone.stages.0.0.gamma'] == (LR, 0)
    assert rates['head.weight'] == (LR, DECAY)
    assert rates['head.bias'] == (LR, 0)


def test_masks_and_filters_of_flexconv_are_not_decayed():
    model = Detector(type='FlexConv2d', dilated_kernel_size=7)
    rates = table(model, dict(mask_lr_mult=0.1))
    conv = 'backbone.stages.0.0.dwconv.'
    of_conv = {
        name[len(conv) :]: rate for name, rate in rates.items() if name.startswith(conv)
    }
    places = {'mask_mean', 'mask_width'}
    assert {n for n, rate in of_conv.items() if rate == (0.1 * LR, 0)} == places
    filters = {n for n in of_conv if n.startswith('net.filters')}
    assert {n.split('.')[-1] for n in filters} == {'weight', 'bias', 'gamma', 'mu'}
    assert {of_conv[n] for n in filters} == {(LR, 0)}
    for name in ('net.output.weight', 'net.linears.0.weight'):
        assert of_conv[name] == (LR, DECAY)


@pytest.mark.parametrize('sigma_lr_mult', [None, 0.5])
def test_positions_and_sigma_have_rates_of_their_own(sigma_lr_mult):
    cfg = dict(
        decay_type='stage_wise', decay_rate=0.5, num_layers=4, position_lr_mult=5.0
    )
    if sigma_lr_mult is not None:
        cfg['sigma_lr_mult'] = sigma_lr_mult
    rates = table(Detector(**LEARNED, interpolation='gauss'), cfg)
    for stage in range(4):
        scale = 0.5 ** (4 - stage)
        conv = f'backbone.stages.{stage}.0.dwconv'
        assert rates[f'{conv}.weight'] == pytest.approx((LR * scale, DECAY))
        assert rates[f'{conv}.P'] == pytest.approx((5 * LR * scale, 0))
        sigma = (sigma_lr_mult or 5.0) * LR * scale
        assert rates[f'{conv}.SIG'] == pytest.approx((sigma, 0))


def test_shared_positions_count_once_in_their_first_layer():
    arch = dict(depths=(1, 1, 4, 1), dims=(8, 12, 16, 24))
    model = Detector(arch, **LEARNED)
    cfg = dict(decay_type='layer_wise', decay_rate=0.5, num_layers=5)
    rates = table(model, cfg)
    conv = 'backbone.stages.2.{}.dwconv.{}'
    shared = model.backbone.stages[2][3].dwconv.P
    assert shared is model.backbone.stages[2][0].dwconv.P
    assert rates[conv.format(0, 'P')] == pytest.approx((LR / 8, 0))
    assert conv.format(3, 'P') not in rates
    assert rates[conv.format(3, 'weight')] == pytest.approx((LR / 4, DECAY))


def test_frozen_parameters_are_left_out():
    model = Detector(**LEARNED)
    model.backbone.stages[0][0].dwconv.freeze_positions()
    rates = table(model, dict(position_lr_mult=5.0))
    assert 'backbone.stages.0.0.dwconv.P' not in rates
    assert rates['backbone.stages.1.0.dwconv.P'] == (5 * LR, 0)


def test_custom_keys_stand_above_the_kind_of_parameter():
    cfg = dict(
        decay_type='stage_wise',
        decay_rate=0.5,
        num_layers=4,
        position_lr_mult=5.0,
        custom_keys={
            'stages.3': dict(lr_mult=2.0),
            'stages.3.0.dwconv.P': dict(lr_mult=3.0, decay_mult=0.1),
            'head': dict(decay_mult=0.0),
            'decay': dict(lr_mult=7.0),  # matches no parameter's name
        },
    )
    rates = table(Detector(**LEARNED), cfg)
    stage = 'backbone.stages.3.0'
    assert rates[f'{stage}.gamma'] == pytest.approx((2 * LR / 2, DECAY))
    assert rates[f'{stage}.dwconv.P'] == pytest.approx((3 * LR / 2, 0.1 * DECAY))
    assert rates['head.weight'] == (LR, 0)
    assert rates['backbone.stages.2.0.dwconv.P'] == pytest.approx((5 * LR / 4, 0))


def test_without_a_weight_decay_the_optimizers_own_applies():
    MMLogger.get_instance('test_optim')
    constructor = DCLSOptimizerConstructor(dict(optimizer=dict(type='AdamW', lr=LR)))
    decays = {
        group['group_name']: group['weight_decay']
        for group in constructor(Detector(**LEARNED)).optimizer.param_groups
    }
    assert decays == {'decay': 0.01, 'no_decay': 0, 'position': 0}


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg'])
def test_a_config_reaches_it_under_either_scope(scope):
    init_default_scope(scope)
    MMLogger.get_instance('test_optim')
    cfg = ConfigDict(
        type='OptimWrapper',
        optimizer=dict(type='SGD', lr=LR, weight_decay=DECAY),
        constructor='DCLSOptimizerConstructor',
        paramwise_cfg=dict(position_lr_mult=5.0),
    )
    groups = build_optim_wrapper(Detector(**LEARNED), cfg).optimizer.param_groups
    rates = {group['group_name']: group['lr'] for group in groups}
    assert rates == {'decay': LR, 'no_decay': LR, 'position': 5 * LR}


def test_a_backbone_that_does_not_tell_its_depth_is_refused():
    model = nn.Module()
    model.backbone = nn.Conv2d(3, 8, 3)
    cfg = dict(decay_type='layer_wise', decay_rate=0.7, num_layers=6)
    with pytest.raises(ValueError, match=r'cfg\.decay_type .*Conv2d.*layer_id'):
        table(model, cfg)


def test_more_layers_than_said_are_refused():
    model = Detector(dict(depths=(1, 1, 12, 1), dims=(4, 4, 4, 24)), **LEARNED)
    cfg = dict(decay_type='layer_wise', decay_rate=0.7, num_layers=4)
    with pytest.raises(ValueError, match=r'num_layers must be at least 5.*got 4'):
        table(model, cfg)


DECAYED = dict(decay_type='layer_wise', decay_rate=0.7, num_layers=6)


@pytest.mark.parametrize(
    'key, cfg',
    [
        ('norm_decay_mul', dict(norm_decay_mul=0.0)),
        ('norm_decay_mult', dict(norm_decay_mult=-0.5)),
        ('bypass_duplicate', dict(bypass_duplicate='no')),
        ('position_lr_mult', dict(position_lr_mult=-1)),
        ('position_lr_mult', dict(position_lr_mult='5')),
        ('position_lr_mult', dict(position_lr_mult=True)),
        ('sigma_lr_mult', dict(sigma_lr_mult=float('nan'))),
        ('decay_type', {**DECAYED, 'decay_type': 'block_wise'}),
        ('decay_rate', {**DECAYED, 'decay_rate': 0.0}),
        ('decay_rate', {**DECAYED, 'decay_rate': 1.1}),
        ('decay_rate', dict(decay_type='layer_wise', num_layers=6)),
        ('decay_rate', dict(decay_rate=0.7)),
        ('num_layers', {**DECAYED, 'num_layers': 6.0}),
        ('num_layers', dict(decay_type='layer_wise', decay_rate=0.7)),
        ("custom_keys['head'].lr_mul", dict(custom_keys={'head': dict(lr_mul=0.5)})),
        ("custom_keys['head'].lr_mult", dict(custom_keys={'head': dict(lr_mult=-1)})),
    ],
)
def test_bad_values_are_named(key, cfg):
    with pytest.raises(ValueError) as error:
        table(Detector(**LEARNED), cfg)
    assert str(error.value).startswith(f'optim_wrapper.paramwise_cfg.{key} ')


def test_the_learning_rate_is_required():
    with pytest.raises(ValueError, match=r'optim_wrapper\.optimizer\.lr must be given'):
        DCLSOptimizerConstructor(dict(optimizer=dict(type='AdamW')))


CONFIG = """
_base_ = [
    '{schedules}/schedule_3x.py',
    '{schedules}/position_learning.py',
    '{schedules}/../mmdet_runtime.py',
]
optim_wrapper = dict(
    paramwise_cfg=dict(decay_type='layer_wise', decay_rate=0.7, num_layers=6)
)
"""
DOCUMENTED = """
optim_wrapper['paramwise_cfg'].update(_base_.position_learning.paramwise_cfg)
custom_hooks = [_base_.clamp_positions]
"""


@pytest.mark.parametrize(
    'recipe, factor, hooks',
    [('', 1.0, []), (DOCUMENTED, 5.0, ['ClampPositionsHook'])],
    ids=['as published', 'as documented'],
)
def test_the_two_recipes_over_a_schedule(tmp_path, recipe, factor, hooks):
    path = tmp_path / 'config.py'
    path.write_text(CONFIG.format(schedules=SCHEDULES) + recipe)
    cfg = Config.fromfile(path)
    assert [hook['type'] for hook in cfg.get('custom_hooks', [])] == hooks
    assert all(hook in HOOKS for hook in hooks)
    assert cfg.optim_wrapper.optimizer.lr == 2e-4
    assert cfg.optim_wrapper.constructor == 'DCLSOptimizerConstructor'

    cfg.optim_wrapper.type = 'OptimWrapper'  # AMP needs a GPU
    model = Detector(**LEARNED)
    groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    rates = {p: (g['lr'], g['weight_decay']) for g in groups for p in g['params']}
    for stage, scale in enumerate([0.7**6, 0.7**5, 0.7**4, 0.7]):
        conv = model.backbone.stages[stage][0].dwconv
        assert rates[conv.weight] == pytest.approx((2e-4 * scale, 0.05))
        assert rates[conv.P] == pytest.approx((factor * 2e-4 * scale, 0))


def test_the_schedule_of_training_from_scratch(tmp_path):
    path = tmp_path / 'config.py'
    path.write_text(
        f"_base_ = ['{SCHEDULES}/adamw.py', '{SCHEDULES}/position_learning.py']\n"
        'optim_wrapper = _base_.position_learning\n'
    )
    cfg = Config.fromfile(path)
    MMLogger.get_instance('test_optim')
    model = Detector(**LEARNED, interpolation='gauss')
    groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    rates = {p: (g['lr'], g['weight_decay']) for g in groups for p in g['params']}
    block = model.backbone.stages[2][0]
    assert rates[block.dwconv.P] == rates[block.dwconv.SIG] == (5e-3, 0)
    assert rates[block.dwconv.weight] == (1e-3, 0.05)
    assert rates[block.dwconv.bias] == rates[block.gamma] == (1e-3, 0)
    assert rates[block.norm.weight] == (1e-3, 0)


@pytest.mark.parametrize(
    'name',
    [
        'upernet/convnext{}-atto_upernet_1xb4-1k_camvid-256x256.py',
        'cascade_mask_rcnn/cascade-mask-rcnn_convnext{}-atto_fpn_1xb4-15e_nuclei.py',
    ],
)
def test_what_is_compared_has_one_recipe(name):
    """Positions, sigma and masks are excepted, as not all models have them."""
    kinds = {'-dcls': LEARNED, '-flex': dict(type='FlexConv2d', dilated_kernel_size=7)}
    kinds[''] = dict(type='Conv2d', kernel_size=7)
    init_default_scope('mmdet')
    MMLogger.get_instance('test_optim')
    recipes = {}
    for kind, layer in kinds.items():
        cfg = Config.fromfile(SCHEDULES.parents[1] / name.format(kind))
        cfg.optim_wrapper.pop('type')
        model = Detector(**layer)
        groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
        rates = {p: (g['lr'], g['weight_decay']) for g in groups for p in g['params']}
        recipes[kind] = {n: rates[p] for n, p in model.named_parameters() if p in rates}
    common = set.intersection(*(set(recipe) for recipe in recipes.values()))
    assert {'backbone.stages.0.0.gamma', 'backbone.stages.0.0.dwconv.bias'} <= common
    for parameter in common:
        assert len({recipe[parameter] for recipe in recipes.values()}) == 1, parameter
