"""Nothing of a step waits for the device or depends on the order of its threads.

No operator copies between host and device, reads a value on the host, or is known to
add up in any order on CUDA: in forward and backward pass of each kind of layer, and in
what hooks do in each iteration. The device is 'meta', which takes the same paths as
CUDA. What torch's own C++ reads by the way is seen by the profiler, on a CPU.
"""

import pytest
import torch
from kinds import KINDS, make
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dcls_mm.backbones import ConvNeXtDCLS
from dcls_mm.functional import INTERPOLATIONS, use_backend
from dcls_mm.functional.continuous import ALIAS_METHODS, alias_penalty
from dcls_mm.functional.padding import EDGES
from dcls_mm.functional.repulsion import repulsion
from dcls_mm.layers import (
    DCLSConv1d,
    DCLSConv2d,
    DCLSConv3d,
    FlexConv1d,
    FlexConv2d,
    LargeKernelConv2d,
)
from dcls_mm.layers.dropin import Dcls2_1d, Dcls2d, Dcls3_1d, LegacyDcls2d

# Their results depend on values, so the host waits for these; or are made on the host.
READING = {
    'aten::_local_scalar_dense',
    'aten::nonzero',
    'aten::equal',
    'aten::is_nonzero',
    'aten::lift_fresh',
    'aten::masked_select',
    'aten::unique_dim',
    'aten::_unique2',
    'aten::item',
}

# Those that torch.use_deterministic_algorithms lists for CUDA, by the beginnings of
# their names, where a layer might use them. Convolutions are left out: cuDNN's own
# switch, torch.backends.cudnn.deterministic, is for them.
IN_ANY_ORDER = (
    'aten::scatter_add',
    'aten::scatter_reduce',
    'aten::index_add',
    'aten::index_copy',
    'aten::index_put',
    'aten::_index_put',
    'aten::index_reduce',
    'aten::put',
    'aten::cumsum',
    'aten::cumprod',
    'aten::histc',
    'aten::bincount',
    'aten::median',
    'aten::kthvalue',
    'aten::reflection_pad1d_backward',
    'aten::reflection_pad2d_backward',
    'aten::reflection_pad3d_backward',
    'aten::replication_pad1d_backward',
    'aten::replication_pad2d_backward',
    'aten::replication_pad3d_backward',
    'aten::upsample_linear1d_backward',
    'aten::upsample_bilinear2d_backward',
    'aten::upsample_bicubic2d_backward',
    'aten::upsample_trilinear3d_backward',
    'aten::grid_sampler',
    'aten::_adaptive_avg_pool',
    'aten::adaptive_max_pool',
    'aten::avg_pool3d_backward',
    'aten::max_pool3d_with_indices_backward',
    'aten::embedding_dense_backward',
    'aten::nll_loss',
)


class OnOneDevice(TorchDispatchMode):
    """Lets through operators whose tensors are all on one device, in a fixed order."""

    def __init__(self, device):
        super().__init__()
        self.device, self.count = device, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function._schema.name
        assert name not in READING and not name.startswith(IN_ANY_ORDER), function
        results = function(*args, **(kwargs or {}))
        if name == 'aten::empty':
            return results  # of torch 2.6's activation checkpointing: nothing is copied
        for value in tree_leaves((args, kwargs, results)):
            if isinstance(value, torch.Tensor):
                assert value.device.type == self.device, function
                indexed = name.startswith('aten::index')
                assert not (indexed and value.dtype == torch.bool), function
        self.count += 1
        return results


def make_wide(**options):
    return DCLSConv2d(4, 4, (3, 5), dilated_kernel_size=(3, 7), **options)


def make_flex(kind=FlexConv2d, **options):
    options = dict(dilated_kernel_size=9, crop_every=None, **options)
    return kind(4, 4, **options)


OTHERS = {
    **{
        f'{name}, {layer.ndim}-d': lambda name=name, layer=layer: layer(
            4, 4, 3, dilated_kernel_size=5, padding=2, groups=4, interpolation=name
        )
        for name in INTERPOLATIONS
        for layer in (DCLSConv1d, DCLSConv2d, DCLSConv3d)
    },
    **{
        f'{name}, rectangular': lambda name=name: make_wide(interpolation=name)
        for name in INTERPOLATIONS
    },
    **{
        f'{mode}, {layer.ndim}-d': lambda mode=mode, layer=layer: layer(
            4, 4, 3, dilated_kernel_size=5, padding=2, padding_mode=mode
        )
        for mode in (*EDGES, 'circular')
        for layer in (DCLSConv1d, DCLSConv2d, DCLSConv3d)
    },
    'columns first': lambda: make_wide(position_axes=(1, 0)),
    'whole pixels': lambda: make_wide(integer_positions=True),
    'by FFT': lambda: make_wide(backend='fft'),
    'sampled': lambda: make_wide(formulation='sample', position_axes=(1,)),
    'sampled, reflected': lambda: make_wide(
        formulation='sample', padding=2, padding_mode='reflect', stride=2
    ),
    'causal': lambda: make_flex(FlexConv1d, padding='causal'),
    'magnet': lambda: make_flex(),
    'rotated': lambda: make_flex(kernel_net=dict(type='magnet', rotated=True)),
    'siren': lambda: make_flex(kernel_net='siren'),
    'mlp': lambda: make_flex(kernel_net='mlp'),
    'without a mask': lambda: make_flex(mask_width=None),
    'finer': lambda: make_flex(resolution=2.0),
    'dilated': lambda: LargeKernelConv2d(4, 4, 3, dilation=2),
    'published': lambda: Dcls2d(4, 4, 3, dilated_kernel_size=5),
    'published, bilinear': lambda: Dcls2d(4, 4, 3, dilated_kernel_size=5, version='v0'),
    'published, 2_1': lambda: Dcls2_1d(4, 4, 3, 3, dilated_kernel_size=5),
    'published, 3_1': lambda: Dcls3_1d(4, 4, 3, 3, dilated_kernel_size=5),
    'legacy': lambda: LegacyDcls2d(4, 4, 3, dilation=2),
    'legacy, sampled': lambda: LegacyDcls2d(4, 4, 3, dilation=2, formulation='sample'),
}


def make_any(name):
    """Return a layer, and the shape of its input."""
    layer = make(name) if name in KINDS else OTHERS[name]()
    return layer, (2, 4, *KINDS[name][2]) if name in KINDS else (
        2,
        4,
        *(16,) * layer.ndim,
    )


@pytest.mark.parametrize('name', [*KINDS, *OTHERS])
def test_nothing_waits_for_the_device(name):
    layer, size = make_any(name)
    layer = layer.to('meta')
    x = torch.empty(size, device='meta', requires_grad=True)
    with OnOneDevice('meta') as mode:
        y = layer(x)
        y.backward(torch.empty_like(y))
        with torch.no_grad():
            layer.eval()(x)
    assert mode.count > 3
    assert x.grad is not None


@pytest.mark.parametrize('interpolation', ['bilinear', 'gauss', None])
def test_a_backbone(interpolation):
    """With blocks computed again in the backward pass, and shared positions."""
    cfg = dict(type='Conv2d', kernel_size=7)
    if interpolation is not None:
        cfg = dict(type='DCLSConv2d', kernel_count=5, dilated_kernel_size=9)
        cfg['interpolation'] = interpolation
    arch = dict(depths=(1, 2), dims=(8, 12))
    backbone = ConvNeXtDCLS(
        arch,
        depthwise_cfg=cfg,
        out_indices=(0, 1),
        drop_path_rate=0.5,
        with_cp=interpolation == 'gauss',
    ).to('meta')
    x = torch.empty(2, 3, 32, 48, device='meta', requires_grad=True)
    with OnOneDevice('meta') as mode:
        sum(y.sum() for y in backbone(x)).backward()
    assert mode.count > 30
    assert x.grad is not None


def read_in(step):
    """Return what the host reads in a step, and all names of operators."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        step()
    names = {event.key for event in profiler.key_averages()}
    return names & READING, names


@pytest.mark.parametrize('name', [*KINDS, *OTHERS])
def test_nor_does_torch_itself(name, monkeypatch):
    """As in the gradient of torch.prod. A dispatch mode makes torch avoid that."""
    layer, size = make_any(name)
    x = torch.randn(size, requires_grad=True)
    rule = INTERPOLATIONS.get(getattr(layer, 'interpolation', None))
    if rule is not None:  # by products, as on a device
        monkeypatch.setitem(
            INTERPOLATIONS, layer.interpolation, rule._replace(two_taps=False)
        )

    def step():
        y = layer(x)
        y.backward(torch.ones_like(y))

    if getattr(layer, 'backend', None) is None:
        with use_backend('native'):
            read, names = read_in(step)
    else:
        read, names = read_in(step)
    assert 'aten::empty' in names
    assert not read


def test_what_torch_itself_reads_is_seen():
    x = torch.randn(2, 3, requires_grad=True)
    assert read_in(lambda: x.prod(0).sum().backward())[0]


def alias_loss(layer, method):
    frequencies = layer.highest_frequencies(with_mask=False)
    mask = layer.mask_frequency()
    return alias_penalty(frequencies, layer.nyquist_frequency, mask, method)


# What the hooks do in each iteration -> the layer, and this as a function of it.
ITERATIONS = {
    'repulsion': ('gauss', lambda layer: repulsion(layer.P).backward()),
    'clamping': ('gauss', lambda layer: layer.clamp_positions()),
    'rounding': ('gauss', lambda layer: layer.round_positions()),
    'annealing': ('gauss', lambda layer: layer.SIG.detach().fill_(0.3)),
    **{
        f'aliases, {method}, {net}': (
            net,
            lambda layer, method=method: alias_loss(layer, method).backward(),
        )
        for method in ALIAS_METHODS
        for net in ('magnet', 'rotated')
    },
}


@pytest.mark.parametrize('name', ITERATIONS)
def test_what_hooks_do_in_each_iteration(name):
    of, step = ITERATIONS[name]
    layer = make_any('gauss, 2-d' if of == 'gauss' else of)[0]
    assert not read_in(lambda: step(layer))[0]
    layer = layer.to('meta')
    with OnOneDevice('meta') as mode:
        step(layer)
    assert mode.count
