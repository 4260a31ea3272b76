"""Wrong models, options and files for folding, fold.py and export.py."""

from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import nn

import dcls_mm  # noqa: F401
from dcls_mm.apis.export import export_model
from dcls_mm.checks.channels import input_channels
from dcls_mm.checks.errors import ConfigError
from dcls_mm.deploy.config_file import write_config
from dcls_mm.layers import DCLSConv1d, DCLSConv2d, FlexConv2d
from dcls_mm.layers.folding import fold, switch_to_deploy

from . import command, wrong

DCLS = dict(type='DCLSConv2d', kernel_count=3, dilated_kernel_size=5)
GAUSS = dict(DCLS, interpolation='gauss')


class _Doubled(DCLSConv2d):
    def forward(self, x):
        return 2 * super().forward(x)


class _OfItsInput(DCLSConv2d):
    def kernel(self):
        raise NotImplementedError('its kernel depends on the input')


def _layer(**options):
    return DCLSConv2d(2, 2, 3, **options)


def _changed(change):
    """Return a layer after ``change``."""
    layer = _layer()
    change(layer)
    return layer


def _set_forward(layer):
    layer.forward = lambda x: x


def _nested(layer):
    return nn.ModuleDict({'stem': nn.Conv2d(2, 2, 1), 'body': nn.Sequential(layer)})


def _wide():
    layer = _layer(interpolation='max')
    nn.init.constant_(layer.SIG, 0.5)
    return layer


def _folded_twice(make):
    network = make()
    network.switch_to_deploy()
    network.switch_to_deploy()


def _backbone(**options):
    return dict(
        type='ConvNeXtDCLS',
        arch=dict(depths=[1, 1, 1, 1], dims=[4, 4, 4, 4]),
        depthwise_cfg=options.pop('depthwise_cfg', DCLS),
        **options,
    )


def _build(cfg):
    return MODELS.build(cfg)


def _write(checkpoint=None, head=None, sections=None, **model):
    """Write model.py, a small segmentor's config, and model.pth."""
    head = dict(type='FCNHead', in_channels=4, channels=4, num_classes=2, **head or {})
    model = {
        'type': 'EncoderDecoder',
        'backbone': _backbone(),
        'decode_head': dict(head, in_index=3, num_convs=1),
        'test_cfg': dict(mode='whole'),
        **model,
    }
    cfg = {'default_scope': 'mmseg', 'model': model, **(sections or {})}
    cfg['custom_imports'] = dict(imports=['dcls_mm'], allow_failed_imports=False)
    Path('model.py').write_text(''.join(f'{k} = {v!r}\n' for k, v in cfg.items()))
    init_default_scope('mmseg')
    if checkpoint is None:
        checkpoint = {
            'state_dict': _build(Config(dict(model=model)).model).state_dict()
        }
    torch.save(checkpoint, 'model.pth')


def _fold(*options, out='out', config='model.py', checkpoint='model.pth'):
    tool = 'tools/deploy/fold.py'
    command(tool, config, checkpoint, '--out', out, *options)


def _export(*options, out='m.pt', format='torchscript', config='model.py'):
    tool, form = 'tools/deploy/export.py', f'--format={format}'
    command(tool, config, 'model.pth', '--out', out, form, *options)


WEIGHT = {'state_dict': {'w': torch.ones(1)}}


def _given(call, checkpoint=None, **model):
    """Return a call of a command on the small segmentor with these changes."""

    def written():
        _write(checkpoint, **model)
        call()
        raise AssertionError('the command succeeded')

    return written


def _there(*names, call):
    def written():
        for name in names:
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).touch()
        call()

    return written


def _config(**content):
    write_config(Path('config.py'), content)


def _named(key):
    write_config(Path('config.py'), {key: 1})


def _api(**options):
    export_model('model.py', 'model.pth', **{'out': 'm.pt', **options})


FOLDING = [
    wrong(lambda: switch_to_deploy(None), TypeError, 'model must be a', 'got None'),
    wrong(lambda: switch_to_deploy({'a': 1}), TypeError, 'torch.nn.Module', "{'a': 1}"),
    wrong(lambda: switch_to_deploy(DCLSConv2d), TypeError, 'model must be', 'class'),
    wrong(
        lambda: switch_to_deploy(nn.Sequential(nn.Conv2d(1, 1, 1))),
        *(ValueError, 'the model has no DCLS layers to fold'),
    ),
    wrong(lambda: switch_to_deploy(_layer()), ValueError, 'itself a layer', 'fold('),
    wrong(
        lambda: switch_to_deploy(_nested(_layer()), round_positions='no'),
        *(TypeError, 'round_positions must be True or False', "'no'"),
    ),
    wrong(
        lambda: switch_to_deploy(_nested(_layer()), round_positions=1),
        *(TypeError, 'round_positions', 'got 1'),
    ),
    wrong(
        lambda: switch_to_deploy(_nested(_OfItsInput(2, 2, 3))),
        *(ValueError, "body.0 can't be folded", 'depends on the input'),
    ),
    wrong(
        lambda: switch_to_deploy(_nested(_Doubled(2, 2, 3))),
        *(ValueError, "body.0 can't be folded", 'forward pass', 'class _Doubled'),
    ),
    wrong(
        lambda: switch_to_deploy(_nested(_layer(interpolation='gauss')), True),
        *(ValueError, "body.0 can't be folded", 'can be rounded', "got 'gauss'"),
    ),
    wrong(lambda: fold(None), TypeError, 'layer must be a dcls_mm layer', 'got None'),
    wrong(lambda: fold(nn.Conv2d(1, 1, 1)), TypeError, 'makes its kernel', 'Conv2d(1'),
    wrong(
        lambda: fold(nn.Sequential(_layer())),
        *(TypeError, 'layer must be', 'fold a model with switch_to_deploy'),
    ),
    wrong(
        lambda: fold(_layer(), round_positions=None),
        *(TypeError, 'round_positions must be True or False', 'None'),
    ),
    wrong(
        lambda: fold(DCLSConv1d(2, 2, 3, interpolation='gauss'), round_positions=True),
        *(ValueError, 'only elements that stay on one tap', "'gauss'"),
    ),
    wrong(
        lambda: switch_to_deploy(_nested(_layer()), form='x'),
        *(ValueError, "form must be one of ['dense', 'sparse']", "got 'x'"),
    ),
    wrong(lambda: fold(_layer(), form=None), ValueError, 'form must be', 'None'),
    wrong(
        lambda: fold(_layer(), form='sparse'),
        *(ValueError, "form must be 'dense'", 'not depthwise'),
    ),
    wrong(
        lambda: switch_to_deploy(_nested(_layer()), form='sparse'),
        *(ValueError, 'no layer can be sparse: body.0: it is not depthwise'),
    ),
    wrong(lambda: fold(_wide(), True), ValueError, 'sigma 0', "got 'max'"),
    wrong(
        lambda: fold(_changed(lambda m: m.register_forward_hook(print))),
        *(ValueError, 'forward hooks (print)', 'remove them first'),
    ),
    wrong(
        lambda: fold(_changed(lambda m: m.register_forward_pre_hook(max))),
        *(ValueError, 'forward hooks (max)'),
    ),
    wrong(
        lambda: fold(nn.utils.spectral_norm(_layer())),
        *(ValueError, 'forward hooks (SpectralNorm)', 'remove_spectral_norm'),
    ),
    wrong(
        lambda: fold(_changed(_set_forward)),
        *(ValueError, 'forward pass is not that of a layer of dcls_mm', 'DCLSConv2d'),
    ),
    wrong(lambda: fold(_Doubled(2, 2, 3)), ValueError, 'class _Doubled'),
    wrong(
        lambda: _folded_twice(lambda: _build(_backbone())),
        *(ValueError, 'no DCLS layers to fold'),
    ),
    wrong(
        lambda: fold(_changed(lambda m: m.register_forward_hook(nn.Identity()))),
        *(ValueError, 'forward hooks (Identity)'),
    ),
    wrong(
        lambda: switch_to_deploy(_nested(nn.utils.spectral_norm(_layer()))),
        *(ValueError, 'body.0', 'SpectralNorm'),
    ),
    wrong(
        lambda: fold(_changed(lambda m: setattr(m, 'forward', None))),
        *(ValueError, 'forward pass is not that'),
    ),
    wrong(
        lambda: switch_to_deploy([FlexConv2d(2, 2, 3)]),
        *(TypeError, 'model must be a torch.nn.Module', 'FlexConv2d'),
    ),
]

CONFIGS = [
    wrong(
        lambda: _config(model={'a': [1, torch.ones(2)]}),
        *(ConfigError, 'model.a.1 is tensor', '--cfg-options model.a.1='),
    ),
    wrong(
        lambda: _config(model={'lr': np.float64(1.0)}),
        *(ConfigError, 'model.lr is', 'a float64'),
    ),
    wrong(
        lambda: _config(model={'lr': np.ones(2)}),
        *(ConfigError, 'model.lr is', 'a ndarray'),
    ),
    wrong(
        lambda: _config(model={'dtype': torch.float16}),
        *(ConfigError, 'model.dtype is torch.float16'),
    ),
    wrong(
        lambda: _config(model={'norm': nn.LayerNorm}),
        *(ConfigError, 'model.norm is', 'LayerNorm', "can't express"),
    ),
    wrong(
        lambda: _config(model={'type': lambda: 0}),
        *(ConfigError, 'model.type is', 'lambda', 'at the top level of a module'),
    ),
    wrong(
        lambda: _config(data_root=Path('images')),
        *(ConfigError, 'data_root is', 'PosixPath', 'plain numbers, strings'),
    ),
    wrong(lambda: _config(scale=1j), ConfigError, 'scale is 1j', 'a complex'),
    wrong(
        lambda: _config(model={Path('a'): 1}),
        *(ConfigError, 'model.a is', 'PosixPath'),
    ),
    wrong(lambda: _named('_base_'), ConfigError, "'_base_' can't be a variable"),
    wrong(lambda: _named('__x'), ConfigError, "'__x' can't be a variable"),
    wrong(lambda: _named('text'), ConfigError, "'text' can't be a variable"),
    wrong(lambda: _named('lambda'), ConfigError, "'lambda' can't be a variable"),
    wrong(lambda: _named('a b'), ConfigError, "'a b' can't be a variable"),
    wrong(lambda: _named("x'+f()+'"), ConfigError, "can't be a variable"),
    wrong(lambda: _named(1), ConfigError, "1 can't be a variable of a config"),
]

FOLD_COMMAND = [
    wrong(
        lambda: command('tools/deploy/fold.py', 'model.py', 'model.pth'),
        *(SystemExit, 'status 2', 'required: --out'),
    ),
    wrong(lambda: _fold(out=''), SystemExit, '--out must be the name of a'),
    wrong(
        _there('out/config.py', call=_fold),
        *(SystemExit, 'error: --out: out/config.py exists; remove it'),
    ),
    wrong(
        _there('out/backbone.pt', call=_fold),
        *(SystemExit, 'out/backbone.pt exists', 'another --out'),
    ),
    wrong(_fold, SystemExit, 'config model.py does not exist'),
    wrong(
        _there('model.py', call=_fold),
        *(SystemExit, 'model.py: default_scope must be one of mmdet, mmrotate, mmseg'),
    ),
    wrong(
        _given(lambda: _fold('--round-positions=yes')),
        *(SystemExit, 'status 2', 'ignored explicit argument'),
    ),
    wrong(
        _given(lambda: _fold('--cfg-options', 'foo')),
        *(SystemExit, "expected KEY=VALUE, got 'foo'"),
    ),
    wrong(
        _given(lambda: _fold('--cfg-options', 'modle.x=1')),
        *(SystemExit, '--cfg-options modle.x', 'did you mean model?'),
    ),
    wrong(
        _given(lambda: _fold(checkpoint='absent.pth')),
        *(SystemExit, 'error: ', 'absent.pth'),
    ),
    wrong(
        _given(_fold, WEIGHT),
        *(SystemExit, 'error: checkpoint model.pth', 'belongs to another model'),
    ),
    wrong(
        _given(_fold, WEIGHT, sections={'model': {}}),
        *(SystemExit, 'model.py: the config has no model'),
    ),
    wrong(
        _given(
            _fold,
            backbone=_backbone(depthwise_cfg=dict(type='Conv2d', kernel_size=3)),
        ),
        *(SystemExit, 'model.py: the model has no DCLS layers to fold'),
    ),
    wrong(
        _given(_fold, head={'conv_cfg': dict(type='DCLSConv2d')}),
        *(SystemExit, 'outside the backbone', 'decode_head', 'export.py'),
    ),
    wrong(
        _given(
            _fold,
            neck=dict(
                type='FPN',
                in_channels=[4] * 4,
                out_channels=4,
                num_outs=4,
                conv_cfg=dict(type='DCLSConv2d'),
            ),
        ),
        *(SystemExit, 'neck.lateral_convs.0.conv (a DCLSConv2d)', 'and 5 more'),
    ),
    wrong(
        _given(
            lambda: _fold('--round-positions'),
            backbone=_backbone(depthwise_cfg=GAUSS),
        ),
        *(SystemExit, "can't be folded", "got 'gauss'"),
    ),
    wrong(
        _given(
            _fold,
            sections={
                'test_dataloader': dict(
                    dataset=dict(pipeline=[dict(type='CorruptImage')])
                )
            },
        ),
        *(
            SystemExit,
            'test_dataloader.dataset.pipeline.0 is a CorruptImage of dcls_mm',
        ),
    ),
    wrong(
        _given(_fold, sections={'test_cfg': {'scale': 1j}}),
        *(SystemExit, 'test_cfg.scale is 1j', "can't express"),
    ),
]

EXPORT = [
    wrong(
        lambda: command('tools/deploy/export.py', 'model.py', 'model.pth'),
        *(SystemExit, 'status 2', '--out, --format'),
    ),
    wrong(
        lambda: _export(format='tensorrt'),
        *(SystemExit, 'status 2', "invalid choice: 'tensorrt'", 'onnx'),
    ),
    wrong(
        lambda: _export('--part', 'neck'),
        *(SystemExit, 'status 2', "invalid choice: 'neck'", 'backbone'),
    ),
    wrong(lambda: _export(out='new/'), SystemExit, '--out new/: must be the name of a'),
    wrong(lambda: _export(out=''), SystemExit, '--out : must be the name of a file'),
    wrong(
        _there('m.pt', call=_export), SystemExit, 'm.pt exists; remove it', 'another'
    ),
    wrong(
        _there('m/a', call=lambda: _export(out='m')),
        *(SystemExit, '--out', 'm exists; remove it'),
    ),
    wrong(_export, SystemExit, 'config model.py does not exist'),
    wrong(
        _given(_export, WEIGHT),
        *(SystemExit, 'error: checkpoint model.pth', 'belongs to another model'),
    ),
    wrong(
        _given(_export, WEIGHT, sections={'model': {}}),
        *(SystemExit, 'the config has no model'),
    ),
    wrong(
        lambda: _api(format='pt'),
        *(ConfigError, '--format must be one of onnx, torchscript', "got 'pt'"),
    ),
    wrong(
        lambda: _api(format='torchscript', part='head'),
        *(ConfigError, '--part must be one of backbone, model', "got 'head'"),
    ),
    wrong(
        lambda: _api(format='torchscript', form='thin'),
        *(ConfigError, '--form must be one of dense, sparse', "got 'thin'"),
    ),
    wrong(
        lambda: _export('--form=sparse', format='onnx', out='m.onnx'),
        *(SystemExit, '--format onnx has no operator for --form sparse', 'leave out'),
    ),
    wrong(
        _given(lambda: _export('--cfg-options', 'model.decode_head.in_index=7')),
        *(SystemExit, 'the model of the EncoderDecoder does not run alone: IndexError'),
    ),
    wrong(
        lambda: input_channels(nn.Sequential(nn.Flatten(), nn.Linear(3, 3))),
        *(RuntimeError, 'shapes cannot be multiplied'),
    ),
    wrong(
        lambda: input_channels(nn.Sequential(nn.ChannelShuffle(1), nn.MaxUnpool2d(2))),
        *(TypeError, 'indices'),
    ),
    wrong(
        lambda: input_channels(
            nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(10, 1, 1))
        ),
        *(ConfigError, 'takes 10 channels', 'gets 12 from images with 3'),
    ),
]

ROWS = [*FOLDING, *CONFIGS, *FOLD_COMMAND, *EXPORT]
