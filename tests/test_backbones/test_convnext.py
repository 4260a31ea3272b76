"""ConvNeXtDCLS: golden outputs, configs, sharing, freezing, checkpoint memory."""

import pytest
import torch
from conftest import assert_close
from mmengine.registry import MODELS, DefaultScope
from torch import distributed, nn

import dcls_mm  # noqa: F401
from dcls_mm.backbones import ConvNeXtDCLS
from dcls_mm.backbones.convnext import ARCHITECTURES
from dcls_mm.layers import DCLSConv2d

SMALL = dict(depths=[1, 2, 1, 1], dims=[8, 12, 16, 24])


def small(**arguments) -> ConvNeXtDCLS:
    return ConvNeXtDCLS(**{'arch': SMALL, 'layer_scale_init_value': 1.0, **arguments})


@pytest.mark.parametrize('with_cp', [False, True])
def test_golden_outputs_and_gradients(shared_file, with_cp):
    """The published code has the same outputs and gradients for this state_dict."""
    golden = torch.load(
        shared_file('golden/convnext_dcls_small_sync.pt'), weights_only=True
    )
    backbone = small(with_cp=with_cp)
    backbone.load_state_dict(golden['state_dict'], strict=True)
    x = golden['x'].requires_grad_()
    outputs = backbone(x)
    assert len(outputs) == len(golden['outs'])
    for output, expected in zip(outputs, golden['outs']):
        assert_close(output, expected)
    torch.autograd.backward(outputs, golden['out_grads'])
    assert_close(x.grad, golden['x_grad'])
    parameters = dict(backbone.named_parameters())
    assert set(parameters) == set(golden['param_grads'])
    for name, parameter in parameters.items():
        assert_close(parameter.grad, golden['param_grads'][name])


@pytest.mark.parametrize('arch', ARCHITECTURES)
def test_every_arch_builds(arch):
    with torch.device('meta'):
        backbone = ConvNeXtDCLS(arch)
    blocks = tuple(len(stage) for stage in backbone.stages)
    assert blocks == ARCHITECTURES[arch]['depths']
    assert backbone.norm3.normalized_shape == (ARCHITECTURES[arch]['dims'][-1],)


def test_dense_large_kernels_are_those_of_conv2d():
    """The ablation's dense 17x17 on the fast backends: same state_dict, same result."""
    conv, large = (
        small(depthwise_cfg=dict(type=name, kernel_size=17))
        for name in ('Conv2d', 'LargeKernelConv2d')
    )
    for name, parameter in large.named_parameters():
        if name.endswith('dwconv.weight'):
            assert parameter.std().item() == pytest.approx(0.02, rel=0.1)
    large.load_state_dict(conv.state_dict())
    x = torch.randn(1, 3, 64, 64)
    for output, expected in zip(large(x), conv(x)):
        assert_close(output, expected, factor=5)


@pytest.mark.parametrize('kernel_net', ['magnet', 'siren', 'mlp'])
def test_continuous_kernels(kernel_net):
    """They keep their own initial values, fold, and support another resolution."""
    cfg = dict(type='FlexConv2d', dilated_kernel_size=9, kernel_net=kernel_net)
    backbone = small(depthwise_cfg=cfg).eval()
    for stage in backbone.stages:
        for block in stage:
            power = block.dwconv.kernel().square().sum(dim=(1, 2, 3)).mean()
            assert power.item() == pytest.approx(1, rel=1e-5)
    x = torch.randn(2, 3, 64, 96)
    outputs = backbone(x)
    finer = small(depthwise_cfg=dict(cfg, resolution=2.0)).eval()
    finer.load_state_dict(backbone.state_dict(), strict=True)
    assert [y.shape for y in finer(x)] == [y.shape for y in outputs]
    assert finer.stages[0][0].dwconv.extent == (17, 17)
    backbone.switch_to_deploy()
    assert type(backbone.stages[0][0].dwconv) is nn.Conv2d
    for output, expected in zip(backbone(x), outputs):
        assert_close(output, expected, factor=5)


def test_published_parameter_counts():
    """dcls-T's 29M without its head (768 * 1000 + 1000) and norm, plus four norms."""
    with torch.device('meta'):
        dcls, plain, dense, dilated = (
            sum(p.numel() for p in ConvNeXtDCLS('tiny', depthwise_cfg=cfg).parameters())
            for cfg in (
                None,
                dict(type='Conv2d', kernel_size=7),
                dict(type='Conv2d', kernel_size=17),
                dict(type='Conv2d', kernel_size=7, dilation=2),
            )
        )
    head = 769 * 1000
    norms = 2 * (96 + 192 + 384)
    assert plain == 28_589_128 - head + norms  # ConvNeXt-T, as the original release
    assert dilated == plain
    assert round((dense + head) / 1e6) == 30
    assert round((dcls + head) / 1e6) == 29
    per_block, per_stage = 34 - 49, 2 * 34
    channels = [(3, 96), (3, 192), (9, 384), (3, 768)]
    assert dcls - plain == sum(
        c * (depth * per_block + per_stage) for depth, c in channels
    )


@pytest.mark.parametrize(
    'depthwise_cfg',
    [
        dict(type='Conv2d', kernel_size=7),
        dict(type='Conv2d', kernel_size=17),
        dict(type='Conv2d', kernel_size=7, dilation=2),
        dict(type='DCLSConv2d', kernel_size=7, dilated_kernel_size=17),
        dict(type='DCLSConv2d', kernel_count=5, dilated_kernel_size=(3, 9)),
        dict(
            type='DCLSConv2d',
            kernel_count=26,
            dilated_kernel_size=23,
            interpolation='gauss',
        ),
    ],
)
def test_any_depthwise_conv_keeps_the_sizes(depthwise_cfg):
    backbone = small(depthwise_cfg=depthwise_cfg)
    outputs = backbone(torch.randn(1, 3, 64, 96))
    sizes = [(8, 16, 24), (12, 8, 12), (16, 4, 6), (24, 2, 3)]
    assert [tuple(y.shape[1:]) for y in outputs] == sizes


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg'])
def test_built_by_name_under_any_scope(scope):
    with DefaultScope.overwrite_default_scope(scope):
        backbone = MODELS.build(dict(type='ConvNeXtDCLS', arch=SMALL))
    assert isinstance(backbone.stages[0][0].dwconv, DCLSConv2d)


def test_positions_are_shared_within_a_stage():
    names = [n for n, _ in small().named_parameters() if n.endswith('.P')]
    assert names == [f'stages.{i}.0.dwconv.P' for i in range(4)]
    assert sum('.P' in key for key in small().state_dict()) == 5
    apart = [n for n, _ in small(sync_positions=False).named_parameters()]
    assert sum(n.endswith('.P') for n in apart) == 5


def test_outputs_and_norms_follow_out_indices():
    backbone = small(out_indices=(1, 3))
    outputs = backbone(torch.randn(1, 3, 32, 32))
    assert [y.shape[1] for y in outputs] == [12, 24]
    assert not hasattr(backbone, 'norm0')


@pytest.mark.parametrize(
    ('out_indices', 'stages'),
    [(-1, (3,)), (2, (2,)), ([0, -2], (0, 2)), ((0, 1, 2), (0, 1, 2)), (0, (0,))],
)
def test_stages_that_give_nothing_are_not_built(out_indices, stages):
    """Under DDP their parameters would get no gradient, which is an error."""
    backbone = small(out_indices=out_indices)
    assert backbone.out_indices == stages
    outputs = backbone(torch.randn(1, 3, 32, 32))
    assert [y.shape[1] for y in outputs] == [SMALL['dims'][stage] for stage in stages]
    torch.autograd.backward(outputs, [torch.randn_like(y) for y in outputs])
    assert all(p.grad is not None for p in backbone.parameters())
    # What is built has the keys and values of the whole backbone.
    whole = small(out_indices=stages if stages[-1] == 3 else (*stages, 3))
    whole.load_state_dict(backbone.state_dict(), strict=False)
    expected = whole(torch.ones(1, 3, 32, 32))
    for output, other in zip(backbone(torch.ones(1, 3, 32, 32)), expected):
        assert_close(output, other)


def test_ddp_trains_on_some_outputs():
    """Stages without an output have no parameters that DDP would wait for."""
    distributed.init_process_group(
        'gloo', store=distributed.HashStore(), rank=0, world_size=1
    )
    try:
        backbone = nn.parallel.DistributedDataParallel(small(out_indices=(0, 1, 2)))
        for _ in range(3):  # an error would come in the second step
            sum(y.sum() for y in backbone(torch.randn(1, 3, 32, 32))).backward()
    finally:
        distributed.destroy_process_group()


@pytest.mark.parametrize(
    ('depths', 'out_indices', 'layers'),
    [
        # In groups of three: the third stage has two layer ids, the last stage has 6.
        ([1, 1, 6, 1], -1, {(0, 0): 1, (1, 0): 2, (2, 2): 3, (2, 3): 4, (3, 0): 6}),
        ([1, 1, 6, 1], (0, 1, 2), {(1, 0): 2, (2, 2): 3, (2, 5): 4}),
        ([1, 1, 6], -1, {(0, 0): 1, (1, 0): 2, (2, 0): 6, (2, 5): 6}),
        ([2, 2], -1, {(0, 1): 1, (1, 1): 6}),
        ([2], -1, {(0, 0): 6}),
        ([1, 1, 4, 4, 1], -1, {(2, 3): 4, (3, 0): 5, (3, 3): 6, (4, 0): 6}),
    ],
)
def test_depth_of_parameters(depths, out_indices, layers):
    dims = [4] * len(depths)
    backbone = small(arch=dict(depths=depths, dims=dims), out_indices=out_indices)
    for (stage, block), layer in layers.items():
        name = f'stages.{stage}.{block}.norm.weight'
        assert backbone.layer_id(name, 6, 'layer_wise') == layer
        assert backbone.layer_id(name, 6, 'stage_wise') == stage + 1
        before = backbone.layer_id(f'downsample_layers.{stage}.1.bias', 6, 'layer_wise')
        first = backbone.layer_id(f'stages.{stage}.0.gamma', 6, 'layer_wise')
        assert before == (0 if stage == 0 else first)
    assert backbone.layer_id('norm0.weight', 6, 'layer_wise') == 7


@pytest.mark.parametrize('out_indices', [0, 2, (1, 3)])
def test_least_size(out_indices):
    """One pixel in the last stage takes exactly this many in the image."""
    backbone = small(out_indices=out_indices)
    least = backbone.least_size
    assert least == 4 * 2 ** backbone.out_indices[-1]
    assert backbone(torch.randn(1, 3, least, least + 3))[-1].shape[2:] == (1, 1)
    for size in ((least - 1, 64), (64, least - 1), (0, 64)):
        with pytest.raises(ValueError, match=f'at least {least} x {least} pixels, .*3'):
            backbone(torch.randn(1, 3, *size))


def test_frozen_stages_stay_frozen():
    for frozen, prefixes in {
        -1: (),
        0: ('downsample_layers.0.',),
        2: (
            'downsample_layers.0.',
            'downsample_layers.1.',
            'stages.0.',
            'stages.1.',
        ),
    }.items():
        backbone = small(frozen_stages=frozen, drop_path_rate=0.5).train()
        for name, parameter in backbone.named_parameters():
            assert parameter.requires_grad != name.startswith(prefixes or ('none',))
        stages = [stage.training for stage in backbone.stages]
        assert stages == [i >= frozen for i in range(4)]


def test_drop_path_grows_with_depth():
    rates = [
        block.drop_path.drop_prob
        for stage in small(drop_path_rate=0.4).stages
        for block in stage
    ]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])


def test_without_layer_scale():
    backbone = small(layer_scale_init_value=0)
    assert not any('gamma' in key for key in backbone.state_dict())
    backbone(torch.randn(1, 3, 32, 32))


def test_epsilon_of_all_norms():
    norms = [m for m in small(norm_eps=0.5).modules() if isinstance(m, nn.LayerNorm)]
    assert {norm.eps for norm in norms} == {0.5}


def test_works_in_channels_last_memory_on_a_cpu():
    backbone = small()
    formats = []
    for stage in backbone.stages:
        for block in stage:
            block.dwconv.register_forward_hook(
                lambda module, inputs, output: formats.extend([inputs[0], output])
            )
    backbone(torch.randn(2, 3, 64, 64))
    assert len(formats) == 10
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in formats)


@pytest.mark.parametrize('memory_format', [None, torch.channels_last])
def test_outputs_are_what_roi_align_takes_them_for(memory_format):
    """mmcv's RoIAlign reads channels_last memory as if it were contiguous."""
    ops = pytest.importorskip('mmcv.ops')
    backbone = small()
    if memory_format is not None:
        backbone = backbone.to(memory_format=memory_format)
    feature = backbone(torch.randn(1, 3, 64, 64))[0].detach()
    align = ops.RoIAlign(output_size=4, spatial_scale=0.25, sampling_ratio=2)
    rois = torch.tensor([[0.0, 8, 8, 40, 40]])
    rearranged = feature.contiguous(memory_format=torch.channels_last)
    assert not torch.equal(align(rearranged, rois), align(feature.clone(), rois))
    apart = [align(channel[None, None], rois) for channel in feature[0]]
    assert torch.equal(align(feature, rois), torch.cat(apart, dim=1))


def test_flops_of_mmengine_are_those_of_the_dense_kernel():
    """DCLS costs as much as its 17x17 kernel, plus a product to construct it."""
    pytest.importorskip('mmengine.analysis')
    from mmengine.analysis import get_model_complexity_info

    def flops(depthwise_cfg):
        backbone = small(depthwise_cfg=depthwise_cfg)
        info = get_model_complexity_info(backbone, (3, 64, 64), show_table=False)
        return info['flops']

    construct = sum(
        depth * channels * 17 * 34 * 17
        for depth, channels in zip(SMALL['depths'], SMALL['dims'])
    )
    dense = flops(dict(type='Conv2d', kernel_size=17))
    assert flops(None) == pytest.approx(dense + construct, rel=1e-3)


def test_trains_under_autocast_with_checkpointing():
    """Activation checkpointing gives the same gradients of shared positions."""
    x = torch.randn(1, 3, 64, 64)
    grads = []
    for with_cp in (False, True):
        torch.manual_seed(0)
        backbone = small(with_cp=with_cp).train()
        with torch.autocast('cpu', dtype=torch.bfloat16):
            sum(y.float().square().mean() for y in backbone(x)).backward()
        grads.append([p.grad for p in backbone.parameters()])
    for plain, checkpointed in zip(*grads):
        assert_close(checkpointed, plain)


@pytest.mark.parametrize(
    ('change', 'error', 'message'),
    [
        (dict(arch='vast'), ValueError, "arch must be one of .*'tiny'.*got 'vast'"),
        (dict(arch=dict(depths=[1])), ValueError, r'dict\(depths=..., dims=...\)'),
        (
            dict(arch=dict(depths=[1, 1], dims=[8])),
            ValueError,
            'as many depths as dims',
        ),
        (dict(arch=dict(depths=[0], dims=[8])), ValueError, 'arch.depths must be at'),
        (dict(arch=dict(depths=[1], dims=[8.0])), TypeError, 'arch.dims must be an'),
        (dict(in_channels=0), ValueError, 'in_channels must be at least 1'),
        (dict(drop_path_rate=1), ValueError, r'drop_path_rate must be in \[0, 1\)'),
        (dict(layer_scale_init_value=-1), ValueError, 'layer_scale_init_value must'),
        (dict(norm_eps=-1), ValueError, 'norm_eps must be finite and at least 0'),
        (dict(grn='yes'), TypeError, 'grn must be'),
        (dict(out_indices=(0, 4)), ValueError, r'out_indices must .* 0\.\.3'),
        (
            dict(out_indices=(1, 0)),
            ValueError,
            'out_indices must be one or more ascending',
        ),
        (dict(frozen_stages=5), ValueError, 'frozen_stages must be at most 4'),
        (dict(frozen_stages=-2), ValueError, 'frozen_stages must be at least -1'),
        (dict(depthwise_cfg=dict(kernel_size=7)), ValueError, "registered conv as 'ty"),
        (
            dict(depthwise_cfg=dict(type='Conv2d', kernel_size=7, padding=3)),
            ValueError,
            r"leave out \['padding'\]",
        ),
        (dict(depthwise_cfg=dict(type='Conv2d')), ValueError, 'must give kernel_size'),
        (
            dict(depthwise_cfg=dict(type='Conv2d', kernel_size=8)),
            ValueError,
            r'extent must be odd to keep the size, got \(8, 8\)',
        ),
        (
            dict(depthwise_cfg=dict(type='DCLSConv3x', kernel_size=7)),
            ValueError,
            "registered conv as 'type'.*got 'DCLSConv3x'",
        ),
    ],
)
def test_bad_arguments(change, error, message):
    with pytest.raises(error, match=message):
        small(**change)


def test_bad_input():
    with pytest.raises(ValueError, match=r'\(batch, 3, height, width\), got \(1, 4'):
        small()(torch.randn(1, 4, 32, 32))


def test_conv_cfg_in_a_stock_detector_backbone():
    """build_conv_layer finds DCLSConv2d wherever mmdet builds a conv."""
    pytest.importorskip('mmdet')
    from mmdet.models import ResNet

    backbone = ResNet(
        18,
        base_channels=8,
        conv_cfg=dict(type='DCLSConv2d', dilated_kernel_size=9),
        norm_cfg=dict(type='BN'),
    )
    convs = [m for m in backbone.modules() if isinstance(m, DCLSConv2d)]
    assert len(convs) == 20
    assert not any(isinstance(m, nn.Conv2d) for m in backbone.modules())
    plain = ResNet(18, base_channels=8, norm_cfg=dict(type='BN'))
    x = torch.randn(1, 3, 64, 64)
    for ours, theirs in zip(backbone(x), plain(x)):
        assert ours.shape == theirs.shape
