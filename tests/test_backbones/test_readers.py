"""Neck and heads are compared with what the backbone returns, before anything runs."""

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from test_configs import BUILT, load

from dcls_mm.backbones.readers import check_inputs
from dcls_mm.checks.errors import ConfigError

TINY = [96, 192, 384, 768]


def config(model, **backbone):
    backbone = dict(type='ConvNeXtDCLS', **backbone)
    return Config(dict(model=dict(backbone=backbone, **model)))


def neck(channels, **others):
    return dict(neck=dict(type='FPN', in_channels=channels, **others))


def head(name='decode_head', **others):
    return {name: dict(type='SomeHead', **others)}


FITTING = [
    config(neck(TINY)),
    config(neck(tuple(TINY))),
    config(neck(TINY[1:]), out_indices=(1, 2, 3)),
    config(neck([40, 320]), arch='atto', out_indices=(0, -1)),
    config(dict(neck=[dict(in_channels=TINY), dict(in_channels=256)])),
    config(head(in_channels=TINY, in_index=[0, 1, 2, 3])),
    config(head(in_channels=[96, 384], in_index=[0, 2])),
    config(head(in_channels=768) | head('auxiliary_head', in_channels=384, in_index=2)),
    config(head('panoptic_head', in_channels=TINY, strides=[4, 8, 16, 32])),
    config(dict(bbox_head=dict(in_channels=256))),
    config(neck([8, 16, 24, 32]), arch=dict(depths=[1] * 4, dims=[8, 16, 24, 32])),
    config(neck([1, 2]), arch='giant'),  # which building it refuses
    Config(dict(model=dict(backbone=dict(type='ResNet'), **neck([1, 2])))),
    Config(dict()),
]


@pytest.mark.parametrize('cfg', FITTING)
def test_what_fits(cfg):
    check_inputs(cfg)


@pytest.mark.parametrize(
    ('cfg', 'says'),
    [
        (
            config(neck([256, 512, 1024, 2048])),
            r'model.neck.in_channels must be \[96, 192, 384, 768\], as model.backbone '
            r'has the outputs of stages 0, 1, 2, 3 .*, got \[256, 512, 1024, 2048\]',
        ),
        (config(neck(TINY), out_indices=(1, 2, 3)), r'must be \[192, 384, 768\]'),
        (
            config(dict(neck=[dict(in_channels=TINY[:3])])),
            r'model.neck\[0\].in_channels must be',
        ),
        (config(head(in_channels=512)), 'model.decode_head.in_channels must be 768'),
        (
            config(head('auxiliary_head', in_channels=1024, in_index=2)),
            'model.auxiliary_head.in_channels must be 384',
        ),
        (
            config(dict(decode_head=[dict(in_channels=96, in_index=1)])),
            r'model.decode_head\[0\].in_channels must be 192',
        ),
        (
            config(head('panoptic_head', in_channels=TINY, strides=[8, 16, 32, 64])),
            r'panoptic_head.strides must be \[4, 8, 16, 32\].*, got \[8, 16, 32, 64\]',
        ),
        (
            Config(
                dict(
                    model=dict(
                        backbone=dict(
                            type='ReplacedConvBackbone',
                            backbone=dict(type='ConvNeXtDCLS', arch='atto'),
                        ),
                        **neck(TINY),
                    )
                )
            ),
            r'must be \[40, 80, 160, 320\], as model.backbone.backbone has',
        ),
    ],
)
def test_what_does_not_fit(cfg, says):
    with pytest.raises(ConfigError, match=says):
        check_inputs(cfg)


@pytest.mark.parametrize('name', BUILT)
def test_our_configs_fit(name):
    check_inputs(load(name))


def test_it_is_what_the_backbone_returns():
    for arguments in (dict(arch='atto'), dict(arch='femto', out_indices=(1, -1))):
        backbone = MODELS.build(dict(type='ConvNeXtDCLS', **arguments))
        widths = [y.shape[1] for y in backbone(torch.zeros(1, 3, 64, 64))]
        check_inputs(config(neck(widths), **arguments))
        with pytest.raises(ConfigError):
            check_inputs(config(neck(widths[::-1]), **arguments))
