"""The kernel that a layer keeps in evaluation equals a newly constructed one."""

import pytest
import torch
from conftest import assert_close
from torch import nn
from torch.nn.utils import parametrize

from dcls_mm.layers import (
    DCLSConv2d,
    DCLSConvTranspose2d,
    FlexConv1d,
    FlexConv2d,
    LargeKernelConv2d,
    base,
)
from dcls_mm.layers.dropin import Dcls2d, LegacyDcls2d

OPTIONS = dict(kernel_count=3, dilated_kernel_size=7)

LAYERS = {
    'bilinear': lambda: DCLSConv2d(2, 2, **OPTIONS, integer_positions=True),
    'max': lambda: DCLSConv2d(2, 2, **OPTIONS, interpolation='max', initial_sigma=0.4),
    'gauss': lambda: DCLSConv2d(2, 2, **OPTIONS, interpolation='gauss'),
    'columns': lambda: DCLSConv2d(2, 2, 3, position_axes=(1,), dilated_kernel_size=5),
    'shared': lambda: DCLSConv2d(2, 2, **OPTIONS, per_output_positions=False),
    'transposed': lambda: DCLSConvTranspose2d(2, 2, **OPTIONS),
    'magnet': lambda: FlexConv2d(2, 2, dilated_kernel_size=9),
    'siren': lambda: FlexConv1d(2, 2, dilated_kernel_size=9, kernel_net='siren'),
    'mlp': lambda: FlexConv2d(2, 2, dilated_kernel_size=7, kernel_net='mlp'),
    'large': lambda: LargeKernelConv2d(2, 2, 3, dilation=2),
    'published': lambda: Dcls2d(2, 2, 3, dilated_kernel_size=7, version='max'),
    'legacy': lambda: LegacyDcls2d(2, 2, 3, dilation=2),
}


def build(name):
    torch.manual_seed(0)
    layer = LAYERS[name]().eval()
    if hasattr(layer, 'P'):
        nn.init.uniform_(layer.P, -2, 2)
    return layer


def other_values(value):
    """Return values that an attribute could take, sensible or not."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, 1]
    if isinstance(value, float):
        return [value * 1.5 + 0.25]
    if isinstance(value, str):
        return ['triangle', 'bilinear', 'gauss', 'max', 'v0', 'v1']
    if isinstance(value, tuple):
        return [value[::-1], tuple(v + 2 for v in value)] if value else []
    return [0.5] if value is None else []


def attributes(layer):
    """List the plain attributes of all modules in a layer: (module, name, value)."""
    return [
        (module, name, value)
        for module in layer.modules()
        for name, value in vars(module).items()
        if name != '_kept_kernel'
    ]


@torch.no_grad()
@pytest.mark.parametrize('name', LAYERS)
def test_it_follows_every_attribute(name):
    """All attributes are tried, as no list says which ones kernel() reads."""
    layer = build(name)
    before = layer._current_kernel()
    followed = set()
    for module, attribute, value in attributes(layer):
        for other in other_values(value):
            setattr(module, attribute, other)
            try:
                expected = layer.kernel()
            except Exception:  # a senseless value makes no kernel
                setattr(module, attribute, value)
                continue
            assert torch.equal(layer._current_kernel(), expected), attribute
            if not torch.equal(expected, before):
                followed.add(attribute)
            setattr(module, attribute, value)
            assert torch.equal(layer._current_kernel(), before), attribute
    assert layer._current_kernel() is layer._current_kernel()
    if name != 'large':
        assert followed, 'no attribute changed the kernel: the test shows nothing'


class Doubled(nn.Module):
    """A parametrization with a setting."""

    factor = 2.0

    def forward(self, x):
        return self.factor * x


def share(layer):
    other = DCLSConv2d(2, 2, **OPTIONS, interpolation='gauss')
    nn.init.uniform_(other.P, -3, 3)
    layer.share_positions(other)


def assign(layer):
    other = DCLSConv2d(2, 2, **OPTIONS, interpolation='gauss')
    layer.load_state_dict(other.state_dict(), assign=True)


def swap_data(layer):
    layer.P.data = layer.P.data + 1


def unregister(layer):
    weight = layer.weight.detach() * 2
    del layer.weight
    layer.weight = weight


CHANGES = {
    'sharing': share,
    'assigning a state_dict': assign,
    'new data': swap_data,
    'rounding': lambda layer: layer.round_positions(),
    'a set sigma': lambda layer: layer.fix_sigma(0.9),
    'initial values': lambda layer: layer.reset_parameters(),
    'a parametrization': lambda layer: parametrize.register_parametrization(
        layer, 'weight', Doubled()
    ),
    'its setting': lambda layer: setattr(layer.parametrizations.weight[0], 'factor', 3),
    'none': lambda layer: parametrize.remove_parametrizations(
        layer, 'weight', leave_parametrized=False
    ),
    'a plain tensor': unregister,
    'that, in place': lambda layer: layer.weight.mul_(2),
    'an attribute behind torch': lambda layer: vars(layer).update(extent=(9, 9)),
}


@torch.no_grad()
def test_it_follows_every_other_change():
    layer = build('gauss')
    nn.init.uniform_(layer.P, -3, 3)
    for what, change in CHANGES.items():
        kept = layer._current_kernel()
        assert layer._current_kernel() is kept
        change(layer)
        assert torch.equal(layer._current_kernel(), layer.kernel()), what
        assert not torch.equal(layer._current_kernel(), kept), what


def test_what_hides_its_writes_is_not_kept():
    """Inference tensors don't count writes."""
    with torch.inference_mode():
        layer = build('gauss')
        x = torch.randn(1, 2, 9, 9)
        before = layer(x)
        layer.P.add_(0.5)
        assert not torch.equal(layer(x), before)


@torch.no_grad()
def test_a_compiled_layer_follows():
    """A graph keeps no kernel, and is recompiled for another attribute.

    Before torch 2.7, its operators differ from the layer's, and so does rounding.
    """
    layer = build('bilinear')
    compiled = torch.compile(layer, backend='eager')
    x = torch.randn(1, 2, 9, 9)
    for rounded in (True, False):
        layer.integer_positions = rounded
        assert_close(compiled(x), layer(x))
        layer.P.add_(0.3)
        assert_close(compiled(x), layer(x))


@pytest.mark.parametrize('name', LAYERS)
@torch.no_grad()
def test_in_a_cuda_graph_no_kernel_is_kept_or_reused(name, monkeypatch):
    """What is captured has no values yet, and a replay must follow the parameters."""
    layer, x, made = build(name), torch.randn(1, 2, *(12,) * LAYERS[name]().ndim), []
    kernel = layer.kernel
    layer.kernel = lambda: made.append(1) or kernel()
    layer(x)
    monkeypatch.setattr(base, 'capturing', lambda: True)
    made.clear()
    layer(x)
    assert made
    monkeypatch.undo()
    layer.forget()
    monkeypatch.setattr(base, 'capturing', lambda: True)
    layer(x)
    assert layer._kept_kernel is None
