"""Nothing of a step is copied from the host to the device, or read back from it.

On the device 'meta', where an operator that would do so is seen by its tensors.
"""

import pytest
import torch
from kinds import KINDS, make
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dcls_mm.layers import DCLSConv2d, FlexConv1d, FlexConv2d, LargeKernelConv2d

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
}


class OnOneDevice(TorchDispatchMode):
    """Lets through operators whose tensors are all on one device."""

    def __init__(self, device):
        super().__init__()
        self.device, self.count = device, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        assert function._schema.name not in READING, function
        results = function(*args, **(kwargs or {}))
        if function._schema.name == 'aten::empty':
            return results  # of torch 2.6's activation checkpointing: nothing is copied
        for value in tree_leaves((args, kwargs, results)):
            if isinstance(value, torch.Tensor):
                assert value.device.type == self.device, function
                indexed = function._schema.name.startswith('aten::index')
                assert not (indexed and value.dtype == torch.bool), function
        self.count += 1
        return results


OTHERS = {
    'bilinear, rectangular': lambda: make_wide(interpolation='bilinear'),
    'triangle, rectangular': lambda: make_wide(interpolation='triangle'),
    'gauss, rectangular': lambda: make_wide(interpolation='gauss'),
    'columns first': lambda: make_wide(position_axes=(1, 0)),
    'sampled': lambda: make_wide(formulation='sample', position_axes=(1,)),
    'causal': lambda: FlexConv1d(
        4, 4, dilated_kernel_size=9, padding='causal', crop_threshold=None
    ),
    'magnet': lambda: FlexConv2d(4, 4, dilated_kernel_size=5, crop_threshold=None),
    'dilated': lambda: LargeKernelConv2d(4, 4, 3, dilation=2),
}


def make_wide(**options):
    return DCLSConv2d(4, 4, (3, 5), dilated_kernel_size=(3, 7), **options)


@pytest.mark.parametrize('name', [*KINDS, *OTHERS])
def test_nothing_waits_for_the_device(name):
    layer = make(name) if name in KINDS else OTHERS[name]()
    size = (2, 4, *KINDS[name][2]) if name in KINDS else (2, 4, *(16,) * layer.ndim)
    layer = layer.to('meta')
    x = torch.empty(size, device='meta', requires_grad=True)
    with OnOneDevice('meta') as mode:
        y = layer(x)
        y.backward(torch.empty_like(y))
        with torch.no_grad():
            layer.eval()(x)
    assert mode.count > 3
    assert x.grad is not None
