"""Training ConvNeXtDCLS by DDP and with activation checkpointing."""

from pathlib import Path

import pytest
import torch
from ddp_steps import CASES, backbone_for, train
from processes import run_two_ranks

from dcls_mm.backbones import ConvNeXtDCLS

SCRIPT = Path(__file__).with_name('ddp_steps.py')
SMALL = dict(depths=[2, 3], dims=[8, 12])


@pytest.fixture(scope='module')
def ranks(tmp_path_factory):
    """Return what each of two processes ends with: {case: (gradients, state_dict)}."""
    folder = tmp_path_factory.mktemp('ddp')
    for said in run_two_ranks(folder, [SCRIPT], folder):
        assert 'strides do not match' not in said
    return [torch.load(folder / f'rank_{rank}.pth') for rank in (0, 1)]


@pytest.mark.parametrize('name', CASES)
def test_two_processes_have_the_gradients_of_the_joint_batch(ranks, name):
    """In every step, and shared positions stay equal: among blocks and processes."""
    backbone = backbone_for(name)
    expected = train(backbone, slice(None))
    for grads, state in (rank[name] for rank in ranks):
        for step, of_joint in zip(grads, expected):
            assert step.keys() == of_joint.keys()
            for parameter, grad in of_joint.items():
                torch.testing.assert_close(step[parameter], grad)
        for key, value in state.items():
            torch.testing.assert_close(value, backbone.state_dict()[key])
            assert torch.equal(value, ranks[0][name][1][key])
        for stage, depth in enumerate(SMALL['depths']):
            keys = [f'stages.{stage}.{block}.dwconv.P' for block in range(depth)]
            assert all(torch.equal(state[key], state[keys[0]]) for key in keys)
    start = backbone_for(name).state_dict()['stages.1.0.dwconv.P']
    assert not torch.equal(state['stages.1.0.dwconv.P'], start)


@pytest.mark.parametrize(
    'depthwise_cfg',
    [
        dict(type='Conv2d', kernel_size=7),
        dict(type='LargeKernelConv2d', kernel_size=17),
        dict(type='FlexConv2d', dilated_kernel_size=9),
        dict(type='DCLSConv2d', kernel_count=34, dilated_kernel_size=17),
        dict(
            type='DCLSConv2d',
            kernel_count=26,
            dilated_kernel_size=17,
            interpolation='gauss',
        ),
    ],
)
@pytest.mark.parametrize('with_cp', [False, True])
def test_every_parameter_gets_a_gradient(depthwise_cfg, with_cp):
    """DDP waits for each; also for those of a block that all samples skip."""
    torch.manual_seed(0)
    backbone = ConvNeXtDCLS(
        SMALL,
        depthwise_cfg=depthwise_cfg,
        out_indices=(0, 1),
        drop_path_rate=0.9,
        with_cp=with_cp,
    )
    outputs = backbone.train()(torch.randn(2, 3, 64, 64))
    torch.autograd.backward(outputs, [torch.randn_like(y) for y in outputs])
    assert not [n for n, p in backbone.named_parameters() if p.grad is None]


@pytest.mark.parametrize('autocast', [False, True])
@pytest.mark.parametrize('frozen_stages', [-1, 1])
def test_checkpointing_changes_nothing(autocast, frozen_stages):
    """Outputs, gradients, dropped samples, and the random state that is left."""
    results = []
    for with_cp in (False, True):
        torch.manual_seed(0)
        backbone = ConvNeXtDCLS(
            SMALL,
            out_indices=(0, 1),
            drop_path_rate=0.5,
            layer_scale_init_value=1.0,
            frozen_stages=frozen_stages,
            with_cp=with_cp,
        ).train()
        x = torch.randn(4, 3, 64, 64)
        with torch.autocast('cpu', torch.bfloat16, enabled=autocast):
            outputs = backbone(x)
        sum(y.float().sin().mean() for y in outputs).backward()
        grads = {n: p.grad for n, p in backbone.named_parameters()}
        frozen = {n for n, p in backbone.named_parameters() if not p.requires_grad}
        assert {n for n, grad in grads.items() if grad is None} == frozen
        kept = [grad for grad in grads.values() if grad is not None]
        results.append([*outputs, *kept, torch.get_rng_state(), torch.rand(3)])
    for plain, checkpointed in zip(*results):
        assert torch.equal(checkpointed, plain)


def test_samples_are_dropped_whole():
    """A sample keeps its image, or gets the residual divided by the rate of keeping."""
    torch.manual_seed(0)
    backbone = ConvNeXtDCLS(
        dict(depths=[2], dims=[8]),
        out_indices=0,
        drop_path_rate=0.5,
        layer_scale_init_value=1.0,
    )
    block = backbone.stages[0][1]
    x = torch.randn(64, 8, 8, 8)
    residual = block.eval()(x) - x
    y = block.train()(x) - x
    dropped = (y == 0).flatten(1).all(1)
    assert 16 < dropped.sum() < 48
    torch.testing.assert_close(
        y[~dropped], 2 * residual[~dropped], rtol=1e-4, atol=1e-5
    )
