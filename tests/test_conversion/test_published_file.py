"""The checkpoints that the published ConvNeXt-dcls training itself writes.

Besides the weights, they hold the optimizer's state and the command's arguments, an
argparse.Namespace. Nothing reads these, and nothing may run because of them.
"""

import argparse
import runpy
import sys
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from conftest import assert_close

from dcls_mm.backbones import ConvNeXtDCLS
from dcls_mm.backbones.pretrained import load_pretrained
from dcls_mm.checkpoint import CheckpointError
from dcls_mm.conversion import to_convnext_dcls

TOOL = Path(__file__).resolve().parents[2] / 'tools' / 'model_converters' / 'convert.py'

ARGUMENTS = argparse.Namespace(
    model='convnext_dcls_tiny',
    lr=4e-3,
    opt_betas=[0.9, 0.999],
    clip_grad=None,
    use_amp=False,
    epochs=300,
    output_dir='results',
)


def build(interpolation='bilinear') -> ConvNeXtDCLS:
    return ConvNeXtDCLS(
        arch=dict(depths=[1, 2], dims=[8, 12]),
        depthwise_cfg=dict(
            type='DCLSConv2d',
            kernel_count=4,
            dilated_kernel_size=17,
            interpolation=interpolation,
        ),
        out_indices=(0, 1),
    )


def training_checkpoint(backbone: ConvNeXtDCLS, version: str, args=ARGUMENTS) -> dict:
    """Return what the published code saves, after one training step."""
    optimizer = torch.optim.AdamW(backbone.parameters())
    for parameter in backbone.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    weights = to_convnext_dcls(backbone.state_dict(), version=version)
    return dict(
        model=OrderedDict(weights.items()),
        optimizer=optimizer.state_dict(),
        epoch=12,
        scaler={},
        args=args,
    )


@pytest.mark.parametrize(
    ('version', 'interpolation'), [('v0', 'bilinear'), ('gauss', 'gauss')]
)
def test_a_backbone_loads_it(tmp_path, version, interpolation):
    trained, path = build(interpolation), tmp_path / 'checkpoint-12.pth'
    torch.save(training_checkpoint(trained, version), path)
    fresh = build(interpolation)
    load_pretrained(fresh, str(path), version=version)
    for key, value in trained.state_dict().items():
        assert_close(fresh.state_dict()[key], value)


def test_the_converter_takes_it(tmp_path, monkeypatch, capsys):
    trained, path = build('gauss'), tmp_path / 'checkpoint-12.pth'
    torch.save(training_checkpoint(trained, 'gauss'), path)
    arguments = [path, tmp_path / 'converted.pth', '--from=dcls', '--version=gauss']
    monkeypatch.setattr(sys, 'argv', [str(TOOL), *map(str, arguments)])
    runpy.run_path(str(TOOL), run_name='__main__')
    assert 'kernel_count=4' in capsys.readouterr().out
    # Only tensors and plain data are left, which torch itself can read.
    converted = torch.load(tmp_path / 'converted.pth', weights_only=True)
    assert sorted(converted) == ['meta', 'state_dict']
    fresh = build('gauss')
    fresh.load_state_dict(converted['state_dict'])
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for ours, theirs in zip(fresh.eval()(x), trained.eval()(x)):
            assert_close(ours, theirs, factor=10)


class Runs:
    """An object that would create a file if unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_what_such_arguments_hold_is_not_run(tmp_path):
    hostile = argparse.Namespace(model='tiny', data=Runs(tmp_path / 'ran'))
    path = tmp_path / 'checkpoint-12.pth'
    torch.save(training_checkpoint(build(), 'v0', hostile), path)
    with pytest.raises(CheckpointError, match='pathlib'):
        load_pretrained(build(), str(path), version='v0')
    assert not (tmp_path / 'ran').exists()
