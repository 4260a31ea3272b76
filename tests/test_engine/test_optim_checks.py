"""Settings of optimizers that can't be intended, under any constructor."""

import pytest
from mmengine.config import Config
from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS, init_default_scope
from positions_toy import PositionsToy
from torch import nn
from toy import write_config

from dcls_mm.apis import train as training
from dcls_mm.apis.command import run
from dcls_mm.checks.errors import ConfigError
from dcls_mm.engine.optimizers.optim_checks import check_optimizer
from dcls_mm.layers import DCLSConv1d

DECAYED = dict(decay_type='layer_wise', decay_rate=0.7, num_layers=6)


def check(paramwise_cfg, constructor=None, model=None, scope='mmdet', **optimizer):
    init_default_scope(scope)
    settings = dict(type='AdamW', lr=0.1, weight_decay=0.1)
    wrapper = dict(
        type='OptimWrapper',
        optimizer=dict(settings, **optimizer),
        paramwise_cfg=paramwise_cfg,
    )
    if constructor:
        wrapper['constructor'] = constructor
    model = nn.ModuleDict({'head': nn.Linear(2, 2)}) if model is None else model
    return check_optimizer(Config(dict(optim_wrapper=wrapper)), model)


@OPTIM_WRAPPER_CONSTRUCTORS.register_module(force=True)
class PeoplesConstructor(DefaultOptimWrapperConstructor):
    def add_params(self, params, module, **kwargs):
        scale = self.paramwise_cfg.get('people_mult', 1.0)
        for parameter in module.parameters():
            params.append(dict(params=[parameter], lr=scale * self.base_lr))


def test_what_is_right_passes():
    assert check(None) == check({}) == []
    assert check(dict(norm_decay_mult=0.0, custom_keys={'head': dict(lr_mult=2)})) == []
    assert check(DECAYED, 'LearningRateDecayOptimizerConstructor') == []
    assert check(DECAYED, 'LearningRateDecayOptimizerConstructor', scope='mmseg') == []
    assert check(dict(position_lr_mult=5.0), 'DCLSOptimizerConstructor') == []
    assert check(dict(people_mult=5.0), 'PeoplesConstructor') == []


@pytest.mark.parametrize(
    'constructor, scope, paramwise_cfg, key',
    [
        (None, 'mmdet', dict(norm_decay_mul=0.0), 'norm_decay_mul'),
        (None, 'mmdet', dict(position_lr_mult=5.0), 'position_lr_mult'),
        (
            'LearningRateDecayOptimizerConstructor',
            'mmdet',
            dict(DECAYED, norm_decay_mult=0.0),
            'norm_decay_mult',
        ),
        (
            'LearningRateDecayOptimizerConstructor',
            'mmseg',
            dict(DECAYED, custom_keys={'head': dict(lr_mult=2.0)}),
            'custom_keys',
        ),
        (
            'ForceDefaultOptimWrapperConstructor',
            'mmseg',
            dict(forced_default_settings=True),
            'forced_default_settings',
        ),
    ],
)
def test_keys_that_a_constructor_passes_over(constructor, scope, paramwise_cfg, key):
    with pytest.raises(ConfigError, match=rf'paramwise_cfg\.{key} is unknown to \w+'):
        check(paramwise_cfg, constructor, scope=scope)


def test_of_other_constructors_a_notice():
    notices = check(dict(peoples_mult=5.0), 'PeoplesConstructor')
    assert len(notices) == 1
    assert notices[0].startswith(
        'optim_wrapper.paramwise_cfg.peoples_mult is not named'
    )


def test_custom_keys_that_fit_no_parameter():
    notices = check(dict(custom_keys={'haed': dict(lr_mult=2.0), 'head': {}}))
    assert notices == [
        "optim_wrapper.paramwise_cfg.custom_keys: 'haed' matches no parameter"
    ]


def test_settings_that_an_optimizer_passes_over():
    """mmseg's own config of DNLNet has such a key, from mmseg 0."""
    notices = check(dict(custom_keys={'head': dict(wd_mult=0.0, betas=(0.5, 0.9))}))
    assert len(notices) == 1
    assert "custom_keys['head'].wd_mult is unknown" in notices[0]


@pytest.mark.parametrize('constructor', [None, 'ForceDefaultOptimWrapperConstructor'])
def test_shared_positions_under_a_constructor_that_lists_them_twice(constructor):
    model = PositionsToy()
    cfg = dict(norm_decay_mult=0.0)
    if constructor is None:
        message = (
            r'net\.0\.P is net\.1\.P too.*DCLSOptimizerConstructor.*bypass_duplicate'
        )
        with pytest.raises(ConfigError, match=message):
            check(cfg, constructor, model)
    check(dict(cfg, bypass_duplicate=True), constructor, model, scope='mmseg')
    check({}, constructor, model, scope='mmseg')  # lists all parameters once
    check(cfg, 'DCLSOptimizerConstructor', model)
    model.requires_grad_(False)
    check(cfg, constructor, model, scope='mmseg')


@pytest.mark.parametrize('constructor', [None, 'ForceDefaultOptimWrapperConstructor'])
def test_a_key_that_cannot_reach_our_depthwise_layers(constructor):
    places = dict(kernel_count=3, dilated_kernel_size=5)
    model = nn.Sequential(
        nn.Conv2d(2, 2, 3, groups=2), DCLSConv1d(2, 2, groups=2, **places)
    )
    cfg = dict(dwconv_decay_mult=0.0)
    notices = check(cfg, constructor, model, 'mmseg')
    assert len(notices) == 1
    assert 'dwconv_decay_mult does not apply to 1 and similar' in notices[0]
    assert check(cfg, constructor, model[:1], 'mmseg') == []
    assert check(cfg, 'DCLSOptimizerConstructor', model) == []


def test_a_layer_under_two_names_in_one_parent_is_listed_once():
    """mmengine's constructor treats it so."""
    model = nn.ModuleDict({'a': nn.Linear(2, 2)})
    model.b = model.a
    check(dict(norm_decay_mult=0.0), model=model)


def command(tmp_path, **changes):
    """Return what the command logs, or the error it ends with."""
    no_test = {
        f'{stage}_{part}': None
        for stage in ('val', 'test')
        for part in ('dataloader', 'cfg', 'evaluator')
    }
    wrapper = dict(optimizer=dict(type='AdamW', lr=0.1, weight_decay=0.1), **changes)
    config = write_config(
        tmp_path / 'toy.py',
        model={'type': 'PositionsToy', 'interpolation': 'gauss'},
        optim_wrapper=wrapper,
        param_scheduler=None,
        train_cfg={'by_epoch': True, 'max_epochs': 1},
        **no_test,
    )
    options = {'config': config, 'work_dir': str(tmp_path / 'work')}
    try:
        run(training.train, options)
    except SystemExit as error:
        return error.code
    return ''.join(path.read_text() for path in (tmp_path / 'work').rglob('*.log'))


def test_the_command_says_it_before_training(tmp_path):
    custom = {'.P': {'decay_mult': 0.0}}
    said = command(tmp_path, paramwise_cfg={'custom_keys': custom})
    assert said.startswith('error: ') and 'DCLSOptimizerConstructor' in said
    assert not list((tmp_path / 'work').glob('*.pth'))


def test_the_command_sets_and_logs_the_travel_of_positions(tmp_path):
    paramwise_cfg = {'position_travel': 1.0}
    said = command(
        tmp_path, constructor='DCLSOptimizerConstructor', paramwise_cfg=paramwise_cfg
    )
    line = 'positions of position can travel at most 1 pixels in 4 steps, 20% of '
    assert said.count(f'{line}their extent of 5') == 1


@pytest.mark.parametrize(
    'changes, count',
    [
        ({}, 4),
        (
            {
                'paramwise_cfg': {
                    'bypass_duplicate': True,
                    'custom_keys': {'.P': {'decay_mult': 0.0}},
                }
            },
            2,
        ),
        ({'constructor': 'DCLSOptimizerConstructor'}, 0),
    ],
    ids=['no paramwise_cfg', 'P alone', 'ours'],
)
def test_the_command_tells_of_places_that_decay(tmp_path, changes, count):
    said = command(tmp_path, **changes)
    assert (f'pulls {count} parameters to zero' in said) == bool(count)
    assert ('pulls' in said) == bool(count)
    assert (tmp_path / 'work' / 'epoch_1.pth').exists()
