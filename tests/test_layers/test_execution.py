"""Layers that torch compiles, exports, distributes, checkpoints, ..."""

import pytest
import torch
from conftest import assert_close
from mmengine.analysis import get_model_complexity_info
from processes import run_two_ranks
from torch import nn
from torch.utils.checkpoint import checkpoint

from dcls_mm.layers import DCLSConv2d, DCLSConvTranspose2d, LargeKernelConv2d

# Depthwise and large enough for the CPU's own backend, or on another path.
LAYERS = {
    'bilinear': lambda: large(),
    'triangle': lambda: large(interpolation='triangle'),
    'gauss': lambda: large(interpolation='gauss'),
    'native': lambda: large(backend='native'),
    'sampled': lambda: large(formulation='sample'),
    'local branch': lambda: large(local_size=5),
    'local and wide': lambda: large(local_size=5, interpolation='gauss'),
    'local and sampled': lambda: large(local_size=5, formulation='sample'),
    'normed branches': lambda: large(local_size=5, branch_norms=True),
    'small': lambda: DCLSConv2d(4, 4, 3, padding=1, groups=4, interpolation='max'),
    'transposed': lambda: DCLSConvTranspose2d(4, 4, 4, stride=2, padding=1),
    'dense': lambda: LargeKernelConv2d(4, 4, 17, padding=8, groups=4),
}


def large(**options):
    return DCLSConv2d(4, 4, 7, padding=3, groups=4, dilated_kernel_size=17, **options)


def image(layout=torch.contiguous_format):
    return torch.randn(2, 4, 20, 18).contiguous(memory_format=layout)


def gradients(layer, run, x):
    return torch.autograd.grad(run(x).square().sum(), list(layer.parameters()))


@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize('name', LAYERS)
def test_compiled_as_one_graph(name, layout):
    torch._dynamo.reset()
    layer, x = LAYERS[name](), image(layout)
    compiled = torch.compile(layer, fullgraph=True, backend='aot_eager')
    expected = gradients(layer, layer, x)
    for grad, expected_grad in zip(gradients(layer, compiled, x), expected):
        assert_close(grad, expected_grad, factor=5)
    layer.eval()
    with torch.no_grad():
        y, expected = compiled(x), layer(x)
    assert_close(y, expected, factor=5)
    assert y.stride() == expected.stride()


@pytest.mark.parametrize('name', LAYERS)
def test_exported(name):
    layer, x = LAYERS[name]().eval(), image()
    program = torch.export.export(layer, (x,))
    assert_close(program.module()(x), layer(x), factor=5)


@pytest.mark.parametrize('name', LAYERS)
def test_recomputed_in_the_backward_pass(name):
    layer, x = LAYERS[name](), image()

    def run(x):
        return checkpoint(layer, x, use_reentrant=False)

    recomputed = gradients(layer, run, x)
    for grad, expected in zip(recomputed, gradients(layer, layer, x)):
        assert torch.equal(grad, expected)


@pytest.mark.parametrize('name', LAYERS)
def test_deterministic(name):
    """Results are bitwise equal for a fixed number of threads."""
    layer = LAYERS[name]()
    x = torch.randn(3, 4, 61, 53)
    runs = [(layer(x), *gradients(layer, layer, x)) for _ in range(3)]
    for run in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(run, runs[0]))


@pytest.mark.parametrize('backend', [None, 'native', 'cpu_depthwise'])
def test_flops_of_every_backend(backend):
    """mmengine counts the same as for torch.nn.Conv2d."""

    def flops(layer):
        model = nn.Sequential(layer)
        return get_model_complexity_info(model, (4, 20, 18), show_table=False)['flops']

    arguments = (4, 4, 17, 1, 8, 1, 4)
    ours = flops(LargeKernelConv2d(*arguments, backend=backend))
    assert ours == flops(nn.Conv2d(*arguments)) > 0


def test_a_local_branch_costs_no_convolution():
    """Only those of its kernel are added to the FLOPs."""

    def flops(**options):
        model = nn.Sequential(large(formulation='construct', **options)).eval()
        return get_model_complexity_info(model, (4, 20, 18), show_table=False)['flops']

    assert flops(local_size=5) == flops(local_size=5, branch_norms=True) == flops() > 0


TWO_PROCESSES = """
import sys
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from dcls_mm.layers import DCLSConv2d

rank, path = int(sys.argv[1]), sys.argv[2]
dist.init_process_group('gloo', init_method=f'file://{path}/rendezvous', rank=rank,
                        world_size=2)
torch.manual_seed(0)
options = dict(padding=3, groups=4, dilated_kernel_size=17, interpolation='gauss')
layers = torch.nn.Sequential(*[DCLSConv2d(4, 4, 7, **options) for _ in range(2)])
layers[1].share_positions(layers[0])
images = torch.randn(4, 4, 20, 18)
parallel = DistributedDataParallel(layers)
parallel(images[2 * rank : 2 * rank + 2]).square().mean().backward()
shared = [p.grad for p in layers.parameters()]
layers.zero_grad()
layers(images).square().mean().backward()
for parameter, grad in zip(layers.parameters(), shared):
    torch.testing.assert_close(grad, parameter.grad, rtol=1e-4, atol=1e-7)
dist.destroy_process_group()
"""


def test_two_processes_have_the_gradients_of_one(tmp_path):
    """The reference is the joint batch; two layers share positions."""
    run_two_ranks(tmp_path, ['-c', TWO_PROCESSES], tmp_path, PYTHONWARNINGS='ignore')
