"""Backbones built from a config load a file whose extents and counts were learned."""

import pytest
import torch
from torch import nn

from dcls_mm.backbones import ConvNeXtDCLS, ReplacedConvBackbone
from dcls_mm.checkpoint import ContentError
from dcls_mm.layers.resizing import (
    Rearrangement,
    layers_by_positions,
    rearrange_elements,
    resize_extent,
)

SIZES = dict(
    arch=dict(depths=[2, 1], dims=[4, 8]),
    out_indices=(0, 1),
    depthwise_cfg=dict(type='DCLSConv2d', kernel_count=5, dilated_kernel_size=9),
)


def build(**init_cfg):
    init_cfg = dict(type='Pretrained', **init_cfg) if init_cfg else None
    backbone = ConvNeXtDCLS(**SIZES, init_cfg=init_cfg)
    backbone.init_weights()
    return backbone


def adapted():
    backbone = build()
    for number, layers in enumerate(layers_by_positions(backbone).values()):
        for layer in layers:
            resize_extent(layer, 13 + 2 * number)
        count = 7 - 3 * number
        shape = (*layers[0].P.shape[1:-1], count)
        index = torch.arange(count).clamp(max=4).expand(shape)
        fresh = torch.zeros(shape, dtype=torch.bool)
        rearrange_elements(layers, Rearrangement(index, fresh))
        for layer in layers:
            nn.init.normal_(layer.P, std=3.0)
    return backbone


@pytest.mark.parametrize('prefix', [None, 'backbone.'])
def test_pretrained_takes_the_sizes_of_the_file(tmp_path, prefix):
    source = adapted().eval()
    whole = nn.ModuleDict({'backbone': source}) if prefix else source
    file = str(tmp_path / 'adapted.pth')
    torch.save({'state_dict': whole.state_dict(), 'meta': {}}, file)
    loaded = build(checkpoint=file, prefix=prefix).eval()
    shapes = [
        (la[0].extent, la[0].kernel_count)
        for la in layers_by_positions(loaded).values()
    ]
    assert shapes == [((13, 13), 7), ((15, 15), 4)]
    images = torch.randn(1, 3, 32, 32)
    for mine, wanted in zip(loaded(images), source(images)):
        assert torch.equal(mine, wanted)


def test_a_replaced_backbone_does_too(tmp_path):
    config = dict(
        backbone=dict(
            type='mmdet.ResNet',
            depth=18,
            num_stages=1,
            strides=(1,),
            dilations=(1,),
            out_indices=(0,),
            base_channels=4,
            stem_channels=4,
        ),
        layer=dict(type='DCLSConv2d', kernel_count=5, dilated_kernel_size=5),
        start='fresh',
        share_positions=r'layer(\d)',
        kernel_size=3,
    )
    source = ReplacedConvBackbone(**config).eval()
    for layers in layers_by_positions(source).values():
        for layer in layers:
            resize_extent(layer, 11)
    again = ReplacedConvBackbone(**config).eval()
    again.load_state_dict(source.state_dict())
    images = torch.randn(1, 3, 32, 32)
    assert torch.equal(again(images)[0], source(images)[0])


def test_a_file_without_the_note_is_refused(tmp_path):
    state = adapted().state_dict()
    for notes in state._metadata.values():
        notes.pop('adapted', None)
    file = str(tmp_path / 'plain.pth')
    torch.save(state, file)
    with pytest.raises(ContentError):
        build(checkpoint=file)
