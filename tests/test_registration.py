"""The registered names work wherever OpenMMLab builds a convolution."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmcv.cnn import ConvModule, build_conv_layer, build_upsample_layer
from mmengine.registry import MODELS, init_default_scope
from torch import nn

import dcls_mm  # noqa: F401
from dcls_mm.layers import (
    DCLSConv1d,
    DCLSConv2d,
    DCLSConv3d,
    DCLSConvTranspose1d,
    DCLSConvTranspose2d,
    DCLSConvTranspose3d,
)

CONV_CFG = dict(type='DCLSConv2d', dilated_kernel_size=7)


@pytest.mark.parametrize('layer', [DCLSConv1d, DCLSConv2d, DCLSConv3d])
def test_build_conv_layer(layer):
    cfg = dict(type=layer.__name__, dilated_kernel_size=5, interpolation='gauss')
    built = build_conv_layer(cfg, 4, 6, 3, padding=1)
    assert type(built) is layer
    assert built.extent == (5,) * layer.ndim


@pytest.mark.parametrize(
    'layer', [DCLSConvTranspose1d, DCLSConvTranspose2d, DCLSConvTranspose3d]
)
@pytest.mark.parametrize('scope', ['mmdet', 'mmseg'])
def test_build_upsample_layer(layer, scope):
    pytest.importorskip(scope)
    init_default_scope(scope)
    cfg = dict(type=layer.__name__, kernel_size=4, stride=2, padding=1)
    built = build_upsample_layer(
        dict(cfg, dilated_kernel_size=6), in_channels=4, out_channels=6
    )
    assert type(built) is layer
    assert built(torch.randn(1, 4, *(5,) * layer.ndim)).shape[2:] == (10,) * layer.ndim


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg'])
def test_conv_module_in_any_scope(scope):
    pytest.importorskip(scope)
    init_default_scope(scope)
    module = ConvModule(4, 8, 3, padding=1, conv_cfg=CONV_CFG, norm_cfg=dict(type='BN'))
    assert isinstance(module.conv, DCLSConv2d)
    assert module.conv.bias is None
    assert module(torch.randn(2, 4, 9, 9)).shape == (2, 8, 9, 9)


def test_neck_of_mmdet():
    pytest.importorskip('mmdet')
    init_default_scope('mmdet')
    neck = MODELS.build(
        dict(
            type='FPN',
            in_channels=[4, 8],
            out_channels=6,
            num_outs=3,
            conv_cfg=CONV_CFG,
        )
    )
    neck.init_weights()
    outputs = neck([torch.randn(1, 4, 16, 16), torch.randn(1, 8, 8, 8)])
    assert [tuple(y.shape) for y in outputs] == [(1, 6, s, s) for s in (16, 8, 4)]
    assert not any(isinstance(m, nn.Conv2d) for m in neck.modules())
    sum(y.sum() for y in outputs).backward()
    assert all(p.grad is not None for p in neck.parameters())


def test_head_of_mmseg():
    pytest.importorskip('mmseg')
    init_default_scope('mmseg')
    head = MODELS.build(
        dict(
            type='FCNHead',
            in_channels=4,
            channels=6,
            num_classes=3,
            conv_cfg=CONV_CFG,
            norm_cfg=dict(type='BN'),
        )
    )
    assert head([torch.randn(1, 4, 16, 16)]).shape == (1, 3, 16, 16)
    assert sum(isinstance(m, DCLSConv2d) for m in head.modules()) == 3


WITHOUT_OPENMMLAB = """
import sys
sys.modules.update(mmengine=None, mmcv=None)  # importing them now fails
import torch
from dcls_mm.functional import construct_kernel
from dcls_mm.layers import DCLSConv2d
layer = DCLSConv2d(4, 4, 3, padding=1, dilated_kernel_size=9)
assert layer(torch.randn(1, 4, 8, 8)).shape == (1, 4, 8, 8)
"""


def test_layers_and_maths_work_without_openmmlab():
    done = subprocess.run(
        [sys.executable, '-c', WITHOUT_OPENMMLAB],
        cwd=Path(__file__).parents[1],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert 'mmengine and mmcv not found: dcls_mm.layers and' in done.stderr
