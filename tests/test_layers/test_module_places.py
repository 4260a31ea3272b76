"""A module that a model has under several names is replaced under all of them."""

import pytest
import torch
from conftest import assert_close
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dcls_mm.backbones.conv_replacement import replace_convs
from dcls_mm.deploy.pooling import UnrolledPooling, unroll_pooling
from dcls_mm.layers import ConstructedConvNd, DCLSConv2d
from dcls_mm.layers.dropin import Dcls2d
from dcls_mm.layers.folding import fold, switch_to_deploy


def make_dcls():
    return DCLSConv2d(2, 2, 3, dilated_kernel_size=5)


# Name -> make the module, replace it in a model, types before and after.
EXCHANGES = {
    'fold': (make_dcls, switch_to_deploy, ConstructedConvNd, nn.Conv2d),
    'pool': (
        *(lambda: nn.AdaptiveAvgPool2d(3), unroll_pooling),
        *(nn.AdaptiveAvgPool2d, UnrolledPooling),
    ),
    'replace': (
        lambda: nn.Conv2d(2, 2, 3),
        lambda model: replace_convs(model, DCLSConv2d),
        *(nn.Conv2d, DCLSConv2d),
    ),
}
CONTAINERS = {
    'list': nn.ModuleList,
    'sequence': lambda parts: nn.Sequential(*parts),
    'dict': lambda parts: nn.ModuleDict({f'part{i}': p for i, p in enumerate(parts)}),
}


@st.composite
def models(draw, make):
    """Draw a tree of containers in which a module may occur in several places."""
    modules = [make(), make(), nn.ReLU()]
    for _ in range(draw(st.integers(1, 5))):
        parts = draw(st.lists(st.sampled_from(modules), min_size=1, max_size=4))
        modules.append(CONTAINERS[draw(st.sampled_from(sorted(CONTAINERS)))](parts))
    return nn.Sequential(modules[0], *modules[3:])


def named(model, kind):
    """Return the names of all modules of a kind, grouped by module."""
    places = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, kind):
            places.setdefault(id(module), []).append(name)
    return sorted(places.values())


@pytest.mark.parametrize('exchange', EXCHANGES)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_every_name_gets_the_one_new_module(exchange, data):
    make, run, before, after = EXCHANGES[exchange]
    model = data.draw(models(make))
    expected = named(model, before)
    run(model)
    assert not named(model, before)
    assert named(model, after) == expected


def test_two_names_in_one_parent():
    model = nn.Module()
    model.first = model.second = make_dcls()
    assert [found.name for found in switch_to_deploy(model)] == ['first']
    assert type(model.first) is nn.Conv2d and model.second is model.first


@pytest.mark.parametrize('exchange', ['fold', 'replace'])
def test_a_compiled_layer_is_exchanged_with_its_wrapper(exchange):
    make, run, before, after = EXCHANGES[exchange]
    model = nn.Sequential(torch.compile(make(), backend='eager'))
    model.append(model[0])
    (found,) = run(model)
    assert found.name == '0' and type(model[0]) is after and model[0] is model[1]


@pytest.mark.parametrize('exchange', ['fold', 'replace'])
def test_a_layer_alone_has_no_place(exchange):
    make, run, *_ = EXCHANGES[exchange]
    for model in (make(), torch.compile(make(), backend='eager')):
        with pytest.raises(ValueError, match='the model is itself'):
            run(model)


def test_a_layer_in_a_compiled_model():
    model = torch.compile(nn.Sequential(make_dcls()).eval(), backend='eager')
    x = torch.randn(1, 2, 8, 8)
    with torch.no_grad():
        expected = model(x)
        switch_to_deploy(model)
        assert_close(model(x), expected)
        model.get_submodule('_orig_mod.0').bias += 1
        assert_close(model(x), expected + 1)


def test_a_parametrised_layer():
    layer = nn.utils.parametrizations.spectral_norm(make_dcls()).eval()
    x = torch.randn(1, 2, 8, 8)
    with torch.no_grad():
        assert_close(fold(layer)(x), layer(x))


class Doubled(DCLSConv2d):
    """A layer that computes more than its convolution."""

    def forward(self, x):
        return 2 * super().forward(x)


class DoubledAsPublished(Dcls2d):
    """A layer whose convolution is changed as for the published package."""

    def _conv_forward(self, *arguments):
        return 2 * super()._conv_forward(*arguments)


def with_instance_forward():
    layer = make_dcls()
    layer.forward = lambda x: x
    return layer


def with_hook(kind):
    layer = make_dcls()
    getattr(layer, f'register_{kind}')(lambda *_: None)
    return layer


@pytest.mark.parametrize(
    'make, message',
    [
        (lambda: Doubled(2, 2, 3), 'forward pass is not that of .* Doubled'),
        (lambda: DoubledAsPublished(2, 2, 3), '_conv_forward of .*DoubledAsPublished'),
        (with_instance_forward, 'forward pass is not that of a layer of dcls_mm'),
        (lambda: nn.utils.spectral_norm(make_dcls()), 'hooks .SpectralNorm.*remove'),
        (lambda: with_hook('forward_hook'), 'hooks .*lambda'),
        (lambda: with_hook('forward_pre_hook'), 'hooks .*lambda'),
    ],
)
def test_what_computes_more_than_its_kernel_is_not_folded(make, message):
    model = nn.Sequential(make_dcls(), make())
    layers = list(model)
    with pytest.raises(ValueError, match=f"1 can't be folded: .*{message}"):
        switch_to_deploy(model)
    assert list(model) == layers


def test_a_convolution_with_hooks_is_not_replaced():
    model = nn.Sequential(nn.Conv2d(2, 2, 3))
    model[0].register_forward_hook(lambda *_: None)
    with pytest.raises(ValueError, match="0 can't be replaced.*forward hooks"):
        replace_convs(model, DCLSConv2d)
