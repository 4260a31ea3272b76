"""A stock backbone with convolutions replaced, as a config names it."""

import copy

import pytest
import torch
from conftest import assert_close
from mmengine.config import ConfigDict
from mmengine.model import BaseModule
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import save_checkpoint
from torch import nn

from dcls_mm.backbones import ReplacedConvBackbone
from dcls_mm.layers import ConstructedConvNd, DCLSConv2d, LargeKernelConv2d

RESNET = dict(type='mmdet.ResNet', depth=18, base_channels=8, frozen_stages=2)
MOBILENET = dict(type='mmseg.MobileNetV2', widen_factor=0.25, out_indices=(1, 6))
CONVNEXT = dict(
    type='ConvNeXtDCLS',
    arch=dict(depths=[1, 2], dims=[8, 16]),
    depthwise_cfg=dict(type='Conv2d', kernel_size=7),
    layer_scale_init_value=1.0,
    out_indices=(0, 1),
)
DCLS = dict(type='DCLSConv2d', dilated_kernel_size=9)
CASES = {
    'resnet': dict(
        backbone=RESNET, name='layer[234].*conv2', share_positions=r'layer(\d)'
    ),
    'mobilenet': dict(backbone=MOBILENET, depthwise=True, share_positions=r'r(\d)'),
    'local branches': dict(
        backbone=RESNET,
        name='layer[234].*conv2',
        share_positions=r'layer(\d)',
        layer=dict(DCLS, kernel_count=5, local_size=3, interpolation='gauss'),
    ),
    'convnext': dict(backbone=CONVNEXT, name='dwconv', share_positions=r's\.(\d)'),
}


def build(layer=DCLS, **arguments):
    return MODELS.build(dict(type='ReplacedConvBackbone', layer=layer, **arguments))


def images():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(1, 3, 64, 96, generator=generator)


@pytest.fixture(params=CASES)
def case(request):
    """Return the arguments of the wrapper."""
    return CASES[request.param]


def test_init_weights_takes_a_checkpoint_of_the_plain_backbone(case, tmp_path):
    file = str(tmp_path / 'plain.pth')
    torch.manual_seed(1)
    plain = MODELS.build(case['backbone'])
    save_checkpoint(dict(state_dict=plain.state_dict()), file)
    pretrained = dict(type='Pretrained', checkpoint=file)
    backbone = dict(case['backbone'], init_cfg=pretrained)
    torch.manual_seed(2)
    swapped = build(**dict(case, backbone=backbone))
    swapped.eval()
    plain.eval()
    expected = plain(images())
    before = [swapped(images()), list(swapped.parameters())]
    swapped.init_weights()
    for actual, earlier, wanted in zip(swapped(images()), before[0], expected):
        assert_close(actual, wanted, factor=50)
        assert (earlier - wanted).abs().max() > 0.01 * wanted.abs().max()
    assert swapped.is_init
    # Parameters that an optimizer has stay in place, and shared positions stay shared.
    assert all(new is old for new, old in zip(swapped.parameters(), before[1]))


def test_positions_are_shared_by_stage():
    swapped = build(**CASES['resnet'])
    owners = {}
    for name, module in swapped.named_modules():
        if isinstance(module, DCLSConv2d):
            owners.setdefault(id(module.P), []).append(name.split('.')[1])
    assert list(owners.values()) == [['layer2'] * 2, ['layer3'] * 2, ['layer4'] * 2]
    shares = [replaced.shares for replaced in swapped.replaced]
    assert shares[:2] == [None, 'layer2.0.conv2']


def test_state_of_a_trained_backbone_loads(case):
    trained = build(**case)
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.add_(0.1 * torch.rand_like(parameter))
    other = build(**case)
    other.load_state_dict(copy.deepcopy(trained.state_dict()))
    trained.eval()
    other.eval()
    for actual, expected in zip(other(images()), trained(images())):
        assert torch.equal(actual, expected)


@pytest.mark.parametrize('backbone', [RESNET, dict(MOBILENET, frozen_stages=2)])
def test_frozen_stages_stay_frozen(backbone):
    swapped = build(backbone=backbone, kernel_size=3, name=r'layer\d')
    swapped.train()
    inner = swapped.backbone
    layers = {n: m for n, m in inner.named_modules() if isinstance(m, DCLSConv2d)}
    frozen = {
        n for n, m in layers.items() if not any(p.requires_grad for p in m.parameters())
    }
    assert frozen == {n for n in layers if n.startswith(('layer1', 'layer2'))}
    assert 0 < len(frozen) < len(layers)
    norms = {n: m for n, m in inner.named_modules() if isinstance(m, nn.BatchNorm2d)}
    assert not any(m.training for n, m in norms.items() if n.startswith('layer1'))
    assert all(layer.P.requires_grad for n, layer in layers.items() if n not in frozen)


def test_a_stage_frozen_while_training_shares_no_positions_with_others():
    """mmseg's MobileNetV2 freezes only in train(), which is called before replacing."""
    backbone = dict(MOBILENET, frozen_stages=2)
    with pytest.raises(ValueError, match='of which only one is frozen'):
        build(backbone=backbone, depthwise=True, share_positions='layer')


def test_fresh_start():
    layer = dict(type='LargeKernelConv2d')
    swapped = build(layer, backbone=MOBILENET, depthwise=True, start='fresh')
    swapped.init_weights()
    layers = [m for m in swapped.modules() if isinstance(m, LargeKernelConv2d)]
    assert len(layers) == len(swapped.replaced) == 17
    for new in layers:  # uniform to 1 / sqrt(taps); MobileNetV2's own start is normal
        assert 0.3 < new.weight.abs().max() <= 1 / 3


def test_deployed_it_is_plain():
    swapped = build(**CASES['mobilenet'])
    with torch.no_grad():
        for module in swapped.modules():
            if isinstance(module, DCLSConv2d):
                module.P.uniform_(-4, 4)
    swapped.eval()
    expected = swapped(images())
    swapped.switch_to_deploy()
    assert not any(isinstance(m, ConstructedConvNd) for m in swapped.modules())
    for actual, wanted in zip(swapped(images()), expected):
        assert_close(actual, wanted, factor=50)


@MODELS.register_module()
class BackboneOfOutputs(BaseModule):
    """A source of channels_last maps, in every structure that mmseg's backbones use."""

    def __init__(self, nested=True):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.nested = nested

    def forward(self, x):
        y = self.conv(x).contiguous(memory_format=torch.channels_last)
        return ([y, y + 1], y + 2, 'text') if self.nested else y


def test_outputs_are_contiguous():
    """mmcv's RoIAlign would misread any other memory format."""
    (first, second), third, text = build(backbone=dict(type='BackboneOfOutputs'))(
        images()
    )
    assert text == 'text'
    single = build(backbone=dict(type='BackboneOfOutputs', nested=False))(images())
    for output in (first, second, third, single):
        assert output.is_contiguous()
    assert_close(second, first + 1)


def optimizer_groups(backbone, **paramwise_cfg):
    model = nn.ModuleDict(dict(backbone=backbone, head=nn.Conv2d(4, 4, 1)))
    cfg = dict(
        type='OptimWrapper',
        constructor='DCLSOptimizerConstructor',
        optimizer=dict(type='SGD', lr=1.0, weight_decay=0.1),
        paramwise_cfg=paramwise_cfg,
    )
    groups = build_optim_wrapper(model, cfg).optimizer.param_groups
    return {name: g for g in groups for name in g['param_names']}


def test_optimizer_constructor():
    groups = optimizer_groups(build(**CASES['mobilenet']), position_lr_mult=5.0)
    positions = {name for name in groups if name.endswith('.P')}
    assert len(positions) == 10  # each shared set counted once
    for name, group in groups.items():
        assert group['lr'] == (5.0 if name in positions else 1.0)
        assert (group['weight_decay'] == 0) or name not in positions


def test_layer_decay_asks_the_backbone_inside():
    decay = dict(decay_type='stage_wise', decay_rate=0.5, num_layers=4)
    groups = optimizer_groups(build(**CASES['convnext']), **decay)
    lr = groups['backbone.backbone.stages.1.0.dwconv.weight']['lr']
    assert lr == 0.5**3
    with pytest.raises(ValueError, match='ReplacedConvBackbone.* does not define'):
        optimizer_groups(build(**CASES['mobilenet']), **decay)


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg'])
def test_pretrained_reaches_the_backbone(scope):
    """mmseg's segmentors pass their ``pretrained`` to the backbone."""
    init_default_scope(scope)
    swapped = build(
        backbone=ConfigDict(type='ResNet', depth=18, base_channels=8),
        kernel_size=3,
        name='layer',
        pretrained='file.pth',
    )
    expected = dict(type='Pretrained', checkpoint='file.pth')
    assert swapped.backbone.init_cfg == expected


@pytest.mark.parametrize(
    'arguments, error, message',
    [
        (dict(kernel_size=11), ValueError, 'kernel_size=11, .* match none of the 20'),
        (dict(layer=dict(type='Nothing')), ValueError, "'type', .* got 'Nothing'"),
        (dict(layer=dict(dilated_kernel_size=9)), ValueError, "'type', .* got None"),
        (dict(layer=dict(type='Conv2d')), TypeError, 'layer must be a class of'),
        (
            dict(layer=dict(DCLS, stride=1, kernel_size=3)),
            *(ValueError, r"layer must leave out \['kernel_size', 'stride'\]"),
        ),
        (
            dict(layer=dict(DCLS, dilated_kernel_size=8)),
            *(ValueError, "layer1.0.conv1 can't become a DCLSConv2d: .*odd"),
        ),
        (
            dict(layer=dict(type='LargeKernelConv2d')),
            *(ValueError, "from_conv.*start='fresh'"),
        ),
        (dict(start='weights'), ValueError, 'start must be one of'),
        (
            dict(init_cfg=dict(type='Pretrained')),
            *(ValueError, 'init_cfg must be in the config of the replaced backbone'),
        ),
        (
            dict(
                pretrained='a.pth',
                backbone=dict(RESNET, init_cfg=dict(type='Constant', layer='Conv2d')),
            ),
            *(ValueError, "pretrained='a.pth' is given although the backbone"),
        ),
        (
            dict(backbone=dict(RESNET, conv_cfg=dict(type='ConvAWS'))),
            *(ValueError, "layer1.0.conv1 can't be replaced because it is a ConvAWS2d"),
        ),
    ],
)
def test_mistakes(arguments, error, message):
    good = dict(backbone=RESNET, layer=DCLS, name='layer', kernel_size=3)
    with pytest.raises(error, match=message):
        ReplacedConvBackbone(**{**good, **arguments})
