"""A visit changes nothing that layers compute, and optimizer and averages follow."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dcls_mm.checks.errors import ConfigError
from dcls_mm.engine.hooks.adaptation_policy import STAYS
from dcls_mm.engine.hooks.adapted_layers import AdaptedLayers
from dcls_mm.functional.reference import reference_kernel
from dcls_mm.layers import DCLSConv1d, DCLSConv2d

LAYERS = {1: DCLSConv1d, 2: DCLSConv2d}
CASES = [
    dict(ndim=1, extent=9),
    dict(ndim=1, extent=8, interpolation='triangle', padding='same', shared=2),
    dict(ndim=1, extent=9, groups=4, bias=False, shared=3),
    dict(ndim=2, extent=(7, 8), groups=2, shared=2),
    dict(ndim=2, extent=9, per_output_positions=False, shared=2),
    dict(ndim=2, extent=9, position_axes=(1, 0)),
    dict(ndim=2, extent=(3, 9), position_axes=(1,), shared=2),
    dict(ndim=2, extent=9, local_size=5, shared=2),
    dict(ndim=1, extent=9, local_size=3, branch_norms=True),
    dict(ndim=1, extent=9, interpolation='max', initial_sigma=0.4, shared=2),
    dict(ndim=2, extent=21, interpolation='gauss'),
]


def group(ndim, extent, shared=1, averaged=0, **options):
    """Return layers that share positions, after three steps of Adam."""
    torch.manual_seed(0)
    arguments = dict(padding=5, groups=1, kernel_count=6, dtype=torch.float64)
    layers = [
        LAYERS[ndim](4, 4, kernel_size=extent, dilated_kernel_size=extent,
                     **{**arguments, **options})
        for _ in range(shared)
    ]  # fmt: skip
    for layer in layers[1:]:
        layer.share_positions(layers[0])
    nn.init.uniform_(layers[0].P, -3.0, 3.0)
    model = nn.ModuleList(layers)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05, amsgrad=True)
    for _ in range(3):
        optimizer.zero_grad()
        loss(layers).backward()
        optimizer.step()
    layers[0].clamp_positions()
    copies = [list(copy.deepcopy(model)) for _ in range(averaged)]
    return AdaptedLayers('layers', layers, copies, optimizer)


def loss(layers):
    """Return a loss whose gradients differ by tap, and are the same in each call."""
    generator = torch.Generator().manual_seed(1)
    size = (3, 4, *(21,) * layers[0].ndim)
    x = torch.randn(size, generator=generator, dtype=torch.float64)
    return sum(layer(x).sin().square().sum() for layer in layers)


def kernels(layers, size=41):
    """Return the layers' kernels, in a common extent around their centre."""
    padded = []
    for layer in layers:
        kernel = layer.kernel().detach()
        sides = []
        for taps in reversed(layer.extent):
            before = size // 2 - taps // 2
            sides += [before, size - taps - before]
        padded.append(F.pad(kernel, sides))
    return torch.stack(padded)


def assert_same(actual, expected, interpolation):
    tolerance = 1e-6 if interpolation == 'gauss' else 1e-12
    assert (actual - expected).norm() <= tolerance * expected.norm()


def prepared(**case):
    """Return layers whose chosen elements have faded, and the kernel's gradient."""
    layers = group(averaged=1, **case)
    layers.choose(meet=0.5, near_zero=0.5, turnover=0.5, least=1)
    assert (layers.leaving != STAYS).any(-1).all()
    for left in (3, 2, 1):
        layers.fade(1 / left)
    layers.watch()
    loss(layers.layers).backward()
    layers.unwatch()
    return layers, layers.take_gradient()


@pytest.mark.parametrize('change', [0, 2, -1], ids=['replaced', 'more', 'fewer'])
@pytest.mark.parametrize('case', CASES, ids=str)
def test_a_visit_changes_nothing_that_is_computed(case, change):
    layers, gradient = prepared(**case)
    everything = [layers.layers, *layers.copies]
    before = [kernels(some) for some in everything]
    left = int((layers.leaving != STAYS).sum())
    done = layers.replace(6 + change, gradient)
    layers.resize(pressed=0.0, largest=None)
    for some, expected in zip(everything, before):
        assert_same(kernels(some), expected, layers.first.interpolation)
        assert {layer.kernel_count for layer in some} == {6 + change}
        assert len({id(layer.P) for layer in some}) == 1
    assert done.merged + done.faded == left
    per_count = layers.first.P[0, ..., 0].numel()
    assert done.started == left + change * per_count
    assert torch.equal(
        layers.copies[0][0].P[:, layers.young], layers.first.P[:, layers.young]
    )
    # The extent that grew is cropped again where no element is.
    nn.init.zeros_(layers.first.P)
    nn.init.zeros_(layers.copies[0][0].P)
    before = [kernels(some) for some in everything]
    layers.resize(pressed=1.1, largest=None)
    assert max(layers.extent) <= (15 if layers.first.interpolation == 'gauss' else 7)
    for some, expected in zip(everything, before):
        assert_same(kernels(some), expected, layers.first.interpolation)
    loss(layers.layers).backward()
    layers.optimizer.step()


@pytest.mark.parametrize('change', [0, 2, -1])
def test_the_optimizer_follows(change):
    layers, gradient = prepared(ndim=1, extent=9, groups=2, shared=2)
    old = {
        name: (value.detach().clone(), dict(layers.optimizer.state[value]))
        for name, value in (
            ('P', layers.first.P),
            *((f'weight{i}', layer.weight) for i, layer in enumerate(layers.layers)),
        )
    }
    bias = dict(layers.optimizer.state[layers.first.bias])
    layers.replace(6 + change, gradient)
    compared = 0
    for name, (values, state) in old.items():
        layer = layers.layers[int(name[-1]) if name != 'P' else 0]
        parameter = layer.P if name == 'P' else layer.weight
        new = layers.optimizer.state[parameter]
        for kernel in range(values[..., 0].numel()):
            was = values.flatten(0, -2)[kernel].tolist()
            now = parameter.flatten(0, -2)[kernel].tolist()
            young = layers.young.expand_as(parameter).flatten(0, -2)[kernel]
            for key in ('exp_avg', 'exp_avg_sq', 'max_exp_avg_sq'):
                assert new[key].shape == parameter.shape
                moments = new[key].flatten(0, -2)[kernel]
                assert (moments[young] == 0).all()
                for i in (~young).nonzero().flatten().tolist():
                    source = was.index(now[i])
                    assert moments[i] == state[key].flatten(0, -2)[kernel][source]
                    compared += 1
        assert new['step'] == state['step']
    assert compared > 100
    assert all(layers.optimizer.state[layers.first.bias][k] is bias[k] for k in bias)


@pytest.mark.parametrize('case', CASES[:7], ids=str)
def test_the_gradient_of_every_tap(case):
    layers = group(**case)
    expected = 0.0
    for layer in layers.layers:
        kernel = layer.kernel().detach().requires_grad_()
        inner = copy.copy(layer)
        inner.kernel = lambda kernel=kernel: kernel
        inner.formulation = 'construct'
        loss([inner]).backward()
        gradient = kernel.grad.abs()
        order = [*layer.dense_axes, *layer.learned_axes]
        gradient = gradient.permute(0, 1, *(2 + axis for axis in order))
        expected = expected + (
            gradient if layer.per_output_positions else gradient.sum(0)
        )
    before = [vars(layer).copy() for layer in layers.layers]
    for _ in range(2):  # as with accumulation
        layers.watch()
        (loss(layers.layers) / 2).backward()
        layers.unwatch()
    torch.testing.assert_close(layers.take_gradient(), expected, rtol=1e-9, atol=1e-9)
    for layer, attributes in zip(layers.layers, before):
        assert vars(layer).keys() == attributes.keys()
        assert layer.formulation == attributes['formulation']


def test_new_elements_start_at_the_largest_gradient_that_no_element_covers():
    layers, gradient = prepared(ndim=2, extent=7, groups=4, kernel_count=4)
    stays = layers.leaving == STAYS
    places = layers.positions
    layers.replace(4, gradient)
    for kernel in range(4):
        kept = stays[kernel, 0]
        ones = kept.double()
        covered = reference_kernel(
            ones[None], places[:, kernel], kernel_size=(7, 7), interpolation='bilinear'
        )[0]
        free = gradient[kernel, 0].masked_fill(covered != 0, -1.0)
        best = free.flatten().argsort(descending=True)[: int((~kept).sum())]
        wanted = {(int(i) // 7 - 3, int(i) % 7 - 3) for i in best}
        got = layers.first.P[:, kernel, 0, ~kept].T.tolist()
        assert {tuple(place) for place in got} == wanted


def test_averages_hand_over_too():
    layers = group(1, 9, averaged=2, shared=2)
    layers.choose(meet=3.0, near_zero=0.0, turnover=0.5, least=0)
    assert (layers.leaving >= 0).any()
    totals = [[layer.weight.sum() for layer in some] for some in layers.copies]
    layers.fade(1.0)
    for some, total in zip(layers.copies, totals):
        for layer, value in zip(some, total):
            index = layers.leaving != STAYS
            assert (layer.weight[index] == 0).all()
            torch.testing.assert_close(layer.weight.sum(), value)


def test_the_state_of_other_layers_is_not_taken():
    layers = group(1, 9)
    layers.choose(meet=3.0, near_zero=0.0, turnover=0.5, least=0)
    state = copy.deepcopy(layers.state())
    again = group(1, 9)
    assert again.load_state(state)
    assert torch.equal(again.leaving, layers.leaving)
    assert torch.equal(again.young, layers.young)
    for wrong in (
        None,
        {},
        {**state, 'leaving': 3},
        {**state, 'leaving': state['leaving'].float()},
        {**state, 'leaving': state['leaving'] + 6},
        {**state, 'leaving': state['leaving'] - 6},
        {**state, 'young': state['young'][:1]},
    ):
        assert not again.load_state(wrong)


def test_optimizers_with_other_states_are_refused():
    """Adafactor keeps the mean squares of rows and columns, not of elements."""
    layers, *_ = prepared(**CASES[0])
    parameters = [layers.first.weight, layers.first.P]
    layers.optimizer = torch.optim.Adafactor(parameters)
    loss(layers.layers).backward()
    layers.optimizer.step()
    layers.leaving[..., 0] = 0
    with torch.no_grad():
        layers.first.weight[..., 0] = 0.0
    gradient = torch.ones(*layers.leaving.shape[:-1], *layers.extent)
    with pytest.raises(ConfigError, match="can not adapt 'row_var' of Adafactor"):
        layers.replace(layers.count, gradient.double())


@pytest.mark.parametrize(
    'padding, extents', [('valid', [9]), (0, [9]), (1, [7]), (5, [3]), ('same', [3])]
)
def test_a_crop_stops_where_the_padding_is_used_up(padding, extents):
    layers = group(1, 9, padding=padding)
    with torch.no_grad():
        layers.first.P.zero_()
    before = kernels(layers.layers)
    layers.resize(pressed=0.5, largest=31)
    assert list(layers.extent) == extents
    assert_same(kernels(layers.layers), before, 'bilinear')
