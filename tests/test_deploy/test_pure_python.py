"""Configs in mmengine's pure Python style, classes as types, become stock configs."""

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from mmengine.runner import save_checkpoint
from predictions import predict

from dcls_mm.apis.fold import fold_checkpoint

CONFIG = """
from mmcv.transforms import LoadImageFromFile
from mmengine.dataset import RepeatDataset
from mmengine.hooks import CheckpointHook, IterTimerHook
from mmseg.datasets import BaseSegDataset, PackSegInputs
from mmseg.models import EncoderDecoder, FCNHead, SegDataPreProcessor
from torch.nn import BatchNorm2d, ReLU

from dcls_mm.backbones import ConvNeXtDCLS
from dcls_mm.engine.hooks import PositionsVisualizationHook
from dcls_mm.layers import DCLSConv2d

default_scope = SCOPE
model = dict(
    type=EncoderDecoder,
    data_preprocessor=dict(type=SegDataPreProcessor, mean=[9.0] * 3, std=[2.0] * 3),
    backbone=dict(
        type=ConvNeXtDCLS,
        arch=dict(depths=[1, 1, 1, 1], dims=[8, 8, 8, 8]),
        depthwise_cfg=dict(type=DCLSConv2d, kernel_count=5, dilated_kernel_size=7),
    ),
    decode_head=dict(
        type=FCNHead,
        in_channels=8,
        in_index=3,
        channels=8,
        num_convs=1,
        num_classes=3,
        norm_cfg=dict(type=BatchNorm2d),
        act_cfg=dict(type=ReLU),
    ),
    test_cfg=dict(mode='whole'),
)
images = dict(
    type=BaseSegDataset,
    data_prefix=dict(img_path='images'),
    metainfo=dict(classes=('a', 'b', 'c'), palette=[[0, 0, 0], [1, 1, 1], [2, 2, 2]]),
    pipeline=[dict(type=LoadImageFromFile), dict(type=PackSegInputs)],
)
test_dataloader = dict(dataset=dict(type=RepeatDataset, times=2, dataset=images))
default_hooks = dict(
    timer=dict(type=IterTimerHook),
    checkpoint=dict(type=CheckpointHook),
    positions=dict(type=PositionsVisualizationHook),
)
"""


OF_THE_FILE = {'classes': ('x', 'y', 'z'), 'palette': [[9, 9, 9]] * 3}
OF_THE_CONFIG = {'classes': ('a', 'b', 'c'), 'palette': [[n] * 3 for n in range(3)]}


def in_tuples(names):
    """Convert the colours to tuples, as mmdet can't draw with lists."""
    return {**names, 'palette': [tuple(colour) for colour in names['palette']]}


@pytest.mark.parametrize('scope, in_file', [('mmseg', True), (None, False)])
def test_pure_python(scope, in_file, tmp_path):
    config, checkpoint = str(tmp_path / 'model.py'), str(tmp_path / 'model.pth')
    (tmp_path / 'model.py').write_text(CONFIG.replace('SCOPE', repr(scope)))
    model = MODELS.build(Config.fromfile(config).model)
    meta = {'dataset_meta': OF_THE_FILE} if in_file else {}
    save_checkpoint({'state_dict': model.state_dict(), 'meta': meta}, checkpoint)
    out = tmp_path / 'out'
    fold_checkpoint(config, checkpoint, str(out))
    # mmseg's init_model needs a config with a scope.
    (tmp_path / 'model.py').write_text(CONFIG.replace('SCOPE', repr('mmseg')))
    expected = predict('mmseg', config, checkpoint)
    found = predict('mmseg', str(out / 'config.py'), str(out / 'checkpoint.pth'))
    stored = torch.load(out / 'checkpoint.pth')['meta']['dataset_meta']
    assert stored == in_tuples(OF_THE_FILE if in_file else OF_THE_CONFIG)
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-3, atol=1e-4)
    written = Config.fromfile(out / 'config.py')
    assert list(written.default_hooks) == ['timer']
    dataset = written.test_dataloader.dataset.dataset
    assert dataset.metainfo.classes == ('a', 'b', 'c')
    assert dataset.pipeline[1].type.endswith('.PackSegInputs')
    assert 'dcls_mm' not in (out / 'config.py').read_text()
