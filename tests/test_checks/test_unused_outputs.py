"""Backbone outputs that nothing reads are reported when a training starts."""

from pathlib import Path

import pytest
from mmengine.config import Config

import dcls_mm  # noqa: F401
from dcls_mm.backbones import ConvNeXtDCLS
from dcls_mm.checks.errors import ConfigError
from dcls_mm.checks.unused_outputs import check_outputs

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'


def config(launcher='none', backbone='ConvNeXtDCLS', outputs=(), **model) -> Config:
    backbone = dict(type=backbone, **dict(outputs))
    return Config(dict(model=dict(backbone=backbone, **model), launcher=launcher))


FPN = dict(type='FPN', start_level=1)


@pytest.mark.parametrize(
    ('arguments', 'unread', 'right'),
    [
        (dict(neck=FPN), 'norm0', '(1, 2, 3)'),
        (dict(neck=[dict(FPN, start_level=2), dict()]), 'norm0, norm1', '(2, 3)'),
        (dict(neck=FPN, outputs=dict(out_indices=(1, 2, 3))), 'norm1', '(2, 3)'),
        (dict(neck=FPN, backbone=ConvNeXtDCLS), 'norm0', '(1, 2, 3)'),
        (
            dict(decode_head=dict(in_index=3), auxiliary_head=dict(in_index=2)),
            *('norm0, norm1', '(2, 3)'),
        ),
        (dict(decode_head=[dict(in_index=[0, 1]), dict(in_index=-1)]), 'norm2', '3)'),
    ],
)
def test_unread_outputs(arguments, unread, right):
    (notice,) = check_outputs(config(**arguments))
    assert f'nothing uses the output of {unread}' in notice
    assert f'{right} and adapt' in notice
    with pytest.raises(ConfigError, match='or set find_unused_parameters=True'):
        check_outputs(config(launcher='pytorch', **arguments))
    looking = config(launcher='pytorch', **arguments)
    looking.find_unused_parameters = True
    assert check_outputs(looking) == [notice]


@pytest.mark.parametrize(
    'arguments',
    [
        dict(neck=dict(type='FPN', start_level=0)),
        dict(neck=dict(type='FPN')),
        dict(neck=FPN, backbone='ResNet'),
        dict(decode_head=dict(in_index=[0, 1, 2, 3])),
        dict(decode_head=dict()),
        dict(outputs=dict(out_indices=-1), decode_head=dict(in_index=0)),
        dict(),
    ],
)
def test_nothing_to_say(arguments):
    assert check_outputs(config(launcher='pytorch', **arguments)) == []


def test_our_retinanet_reads_all_outputs():
    """Its neck takes the last three stages."""
    (path,) = (CONFIGS / 'retinanet').glob('*.py')
    cfg = Config.fromfile(path)
    cfg.launcher = 'pytorch'
    assert cfg.model.neck.type == 'FPN' and cfg.model.backbone.type == 'ConvNeXtDCLS'
    assert check_outputs(cfg) == []
    cfg.model.backbone.pop('out_indices')
    cfg.model.neck.start_level = 1
    with pytest.raises(
        ConfigError, match=r'output of norm0, .*out_indices=\(1, 2, 3\)'
    ):
        check_outputs(cfg)


def test_inside_a_replaced_backbone():
    backbone = dict(type='ReplacedConvBackbone', backbone=dict(type='ConvNeXtDCLS'))
    assert check_outputs(Config(dict(model=dict(backbone=backbone, neck=FPN))))
