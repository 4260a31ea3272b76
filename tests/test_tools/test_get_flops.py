"""FLOPs counted by the tool: against mmdet's own pass, by hand, in the terminal."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.analysis import get_model_complexity_info
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData
from torch import nn

from dcls_mm.apis.flops import count_config, count_model
from dcls_mm.checks.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / 'configs'
CASCADE = CONFIGS / 'cascade_mask_rcnn'
NUCLEI = CASCADE / 'cascade-mask-rcnn_convnext-dcls-atto_fpn_1xb4-15e_nuclei.py'
CAMVID = CONFIGS / 'upernet/convnext-dcls-atto_upernet_1xb4-1k_camvid-256x256.py'
R50 = CONFIGS / 'mask_rcnn/mask-rcnn_r50-dcls-c3-c5_fpn_1x_coco.py'
PANOPTIC_FPN = (
    CONFIGS / 'panoptic_fpn/panoptic-fpn_convnext-dcls-t_fpn_8xb2-amp-1x_coco.py'
)
MASK2FORMER = (
    CONFIGS
    / 'mask2former/convnext-dcls-tiny_mask2former_8xb2-amp-160k_ade20k-512x512.py'
)
RETINANET = CONFIGS / 'retinanet/retinanet_convnext-dcls-t_fpn_1xb8-amp-1x_coco.py'


def build(path, **backbone):
    cfg = Config.fromfile(path)
    init_default_scope(cfg.default_scope)
    model = cfg.model.to_dict()
    model['backbone'].update(backbone)
    return MODELS.build(ConfigDict(model)).eval()


class OwnPass(nn.Module):
    """The model's own tensor mode, with ``count`` proposed regions."""

    def __init__(self, model, count):
        super().__init__()
        self.model = model
        self.boxes = torch.tensor([[8.0, 8.0, 40.0, 40.0]]).repeat(count, 1)

    def forward(self, images):
        from mmdet.structures import DetDataSample

        def propose(features, samples, rescale):
            scores, deltas = self.model.rpn_head(features)
            # The trace omits what the proposals don't depend on.
            unused = sum(level.sum() for level in (*scores, *deltas))
            return [InstanceData(bboxes=self.boxes + 0 * unused)]

        self.model.rpn_head.predict = propose
        size = tuple(images.shape[-2:])
        metainfo = dict(img_shape=size, ori_shape=size, scale_factor=(1.0, 1.0))
        return self.model(images, [DetDataSample(metainfo=metainfo)], mode='tensor')


@pytest.mark.parametrize('path, backbone', [(NUCLEI, {}), (R50, dict(dcn=None))])
def test_regions_count_as_in_the_model_itself(path, backbone):
    """mmdet runs a cascade's mask heads on all regions, so both limits are 20 here."""
    model = build(path, **backbone)
    model.test_cfg.rpn.max_per_img = model.test_cfg.rcnn.max_per_img = 20
    found = count_model(model, (64, 64))
    with torch.no_grad():
        own = get_model_complexity_info(
            OwnPass(model, 20).eval(), (3, 64, 64), show_table=False, show_arch=False
        )
    assert found.flops == own['flops']
    assert found.parameters == own['params']


@pytest.mark.parametrize('path', [CAMVID, RETINANET])
def test_dcls_counts_as_the_dense_kernel_that_it_makes(path):
    """Constructing it counts too: 34 products per tap, for all blocks' channels."""
    shape, taps = (64, 96), 17 * 17
    dcls = build(path)
    plain = build(path, depthwise_cfg=dict(type='Conv2d', kernel_size=7))
    more = 0
    for level, blocks in enumerate(dcls.backbone.stages):
        pixels = shape[0] * shape[1] // (4 * 2**level) ** 2
        channels = len(blocks) * blocks[0].dwconv.out_channels
        more += channels * ((taps - 7 * 7) * pixels + taps * 34)
    difference = count_model(dcls, shape).flops - count_model(plain, shape).flops
    assert difference == more > 0


def flops_of(module, *inputs):
    with torch.no_grad():
        return get_model_complexity_info(
            module, inputs=inputs, show_table=False, show_arch=False
        )['flops']


class Levels(nn.Module):
    """A head on feature maps that are separate arguments, as the counter wants them."""

    def __init__(self, head):
        super().__init__()
        self.head = head

    def forward(self, *features):
        return self.head(features)


def test_the_semantic_head_of_panoptic_fpn_counts():
    model = build(PANOPTIC_FPN, init_cfg=None)
    whole = count_model(model, (64, 64)).flops
    levels = [torch.zeros(1, 256, n, n) for n in (16, 8, 4, 2, 1)]
    own = flops_of(Levels(model.semantic_head), *levels)
    model.semantic_head = None
    assert whole - count_model(model, (64, 64)).flops == own > 0


def test_a_segmentor_with_queries_counts():
    """What lies between backbone and mask products is the pixel decoder and queries."""
    model = build(MASK2FORMER, init_cfg=None)
    whole = count_model(model, (64, 64)).flops
    backbone = flops_of(model.backbone, torch.zeros(1, 3, 64, 64))
    masks = 10 * 100 * 256 * 16 * 16  # ten times, 100 queries by 256 channels
    assert whole > backbone + masks


def test_masks_are_counted_on_detections_not_on_proposals():
    model = build(NUCLEI)
    assert (model.test_cfg.rpn.max_per_img, model.test_cfg.rcnn.max_per_img) == (
        *(300, 100),
    )
    once = count_model(model, (64, 64)).flops
    model.test_cfg.rcnn.max_per_img = 200
    twice = count_model(model, (64, 64)).flops
    with torch.no_grad():
        head = get_model_complexity_info(
            model.roi_head.mask_head[0], (64, 14, 14), show_table=False, show_arch=False
        )
    assert twice - once == 3 * 100 * head['flops']


def run_tool(*arguments):
    tool = ROOT / 'tools/analysis_tools/get_flops.py'
    return subprocess.run(
        [sys.executable, str(tool), *map(str, arguments)],
        capture_output=True,
        text=True,
    )


def test_tool_prints_the_figures():
    result = run_tool(CAMVID, '--shape', 64, 128)
    assert result.returncode == 0, result.stderr
    found = count_config(str(CAMVID), [64, 128])
    assert 'image       64x128 (height x width)' in result.stdout
    assert f'parameters  {found.parameters / 1e6:.1f} M' in result.stdout
    assert f'FLOPs       {found.flops / 1e9:.1f} G' in result.stdout


def test_tool_ends_with_a_sentence():
    result = run_tool('configs/missing.py')
    assert result.returncode == 1
    # A torch with CUDA may first say that there is no GPU.
    lines = result.stderr.strip().splitlines()
    (said,) = (line for line in lines if 'No CUDA runtime' not in line)
    assert said.startswith('error: config configs/missing.py does not')


@pytest.mark.parametrize(
    'shape, message',
    [
        ([0, 64], '--shape must be a positive height and width'),
        ([1, 2, 3], '--shape must be a positive height and width'),
        ([2], 'cannot be run on an image of 2x2'),
    ],
)
def test_wrong_shape(shape, message):
    with pytest.raises(ConfigError, match=message):
        count_config(str(CAMVID), shape)


@pytest.mark.parametrize(
    'text, message',
    [
        ("default_scope = 'mmdet'", 'has no model'),
        ("default_scope = 'mmdet'\nmodel = (", 'cannot be read'),
        ("default_scope = 'mmseg'\nmodel = dict(type='Unheard')", 'cannot be built'),
        ("default_scope = 'mmseg'\nmodel = undefined", 'cannot be read'),
        ("model = dict(type='EncoderDecoder')", 'default_scope must be'),
    ],
)
def test_unusable_config(tmp_path, text, message):
    path = tmp_path / 'config.py'
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        count_config(str(path))


def test_overrides():
    narrow = count_config(str(CAMVID), [64], {'model.decode_head.channels': 32})
    assert narrow.flops < count_config(str(CAMVID), [64]).flops


@pytest.mark.parametrize('channels', [1, 4])
def test_models_of_other_images(channels, tmp_path):
    """Only the multiplications of the first convolution grow with the channels."""
    shape = [64, 96]
    plain = count_config(str(CAMVID), shape)
    options = {'model.backbone.in_channels': channels}
    found = count_config(str(CAMVID), shape, options)
    width = Config.fromfile(CAMVID).model.auxiliary_head.in_channels // 4
    stem = width * 4 * 4  # weights per input channel, at a stride of 4
    assert found.parameters - plain.parameters == (channels - 3) * stem
    assert found.flops - plain.flops == (channels - 3) * stem * 16 * 24
