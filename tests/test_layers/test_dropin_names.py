"""What people's code does to the published layers, done to ours as well."""

import copy
import inspect
import itertools
import pickle

import pytest
import torch
from conftest import assert_close
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from dcls_mm.layers import DCLSConv2d, dropin

published = pytest.importorskip('DCLS.construct.modules')

VERSIONS = ('v0', 'v1', 'max', 'gauss')
SIZES = {
    'Dcls1d': (12,),
    'Dcls2d': (9, 8),
    'Dcls3d': (6, 5, 7),
    'Dcls3_1d': (3, 4, 9),
    'Dcls2dK1d': (8, 7),
}
# The published Dcls3_1d has no 'v0'.
CHANGES = [
    (name, *change)
    for name in SIZES
    for change in itertools.permutations(VERSIONS, 2)
    if name != 'Dcls3_1d' or 'v0' not in change
]
ALLOWED = [c for c in CHANGES if c[1] in ('max', 'gauss') or c[2] in ('v0', 'v1')]


def pair(name, version='gauss', **arguments):
    """Return our layer and the published one, in float64, with equal parameters."""
    arguments = {'dilated_kernel_size': 5, 'groups': 2, **arguments}
    theirs = getattr(published, name)(4, 6, 3, version=version, **arguments)
    ours = getattr(dropin, name)(4, 6, 3, version=version, **arguments)
    nn.init.uniform_(theirs.P, -2.5, 2.5)
    ours.load_state_dict(theirs.state_dict())
    return ours.double(), theirs.double()


def image(name):
    return torch.randn(2, 4, *SIZES[name], dtype=torch.float64)


def assert_same_step(ours, theirs, x):
    """Check that outputs and gradients are equal."""
    results = []
    for layer in (ours, theirs):
        layer.zero_grad()
        y = layer(x)
        y.square().sum().backward()
        results.append([y, *(p.grad for p in layer.parameters())])
    for mine, published_one in zip(*results):
        if published_one is None:
            assert mine is None or not mine.any()
        else:
            assert_close(mine, published_one, factor=10)


@pytest.mark.parametrize(('name', 'before', 'after'), ALLOWED)
def test_an_assigned_version_computes_as_the_published_one(name, before, after):
    """This holds in evaluation, where a kernel is kept, and for the way back."""
    ours, theirs = pair(name, before)
    x = image(name)
    for layer in (ours, theirs):
        layer.eval()
        with torch.no_grad():
            layer(x)
    for version in (after, before):
        for layer in (ours, theirs):
            layer.version = version
            layer.DCK.version = version
            assert layer.version == layer.DCK.version == version
        with torch.no_grad():
            assert_close(ours(x), theirs(x), factor=10)
        assert_same_step(ours, theirs, x)
        assert list(ours.state_dict()) == list(theirs.state_dict())
    fresh = getattr(dropin, name)(
        4, 6, 3, version=before, dilated_kernel_size=5, groups=2
    )
    fresh.load_state_dict(ours.state_dict())


@pytest.mark.parametrize('by', ['layer', 'DCK'])
def test_either_assignment_does_it(by):
    """The published layer's own label has no effect; ours is the same as DCK's."""
    ours, theirs = pair('Dcls2d')
    x = image('Dcls2d')
    (ours if by == 'layer' else ours.DCK).version = 'max'
    theirs.DCK.version = 'max'
    assert ours.version == ours.DCK.version == 'max'
    assert_close(ours(x), theirs(x), factor=10)


@pytest.mark.parametrize(('name', 'before', 'after'), sorted({*CHANGES} - {*ALLOWED}))
def test_a_version_that_the_layer_has_no_sigma_for(name, before, after):
    """The published layer fails in its next forward pass."""
    ours, theirs = pair(name, before)
    for target in (ours, ours.DCK):
        with pytest.raises(ValueError, match=f"can't become '{after}'.*'{before}'"):
            target.version = after
    assert ours.version == before
    ours(image(name))
    theirs.DCK.version = after
    with pytest.raises(AttributeError):
        theirs(image(name))


def test_discrete_delays():
    """Evaluate as projects on spiking networks do, then continue training."""
    models = []
    for module in (dropin, published):
        torch.manual_seed(0)
        model = nn.Sequential(
            module.Dcls1d(4, 8, 1, dilated_kernel_size=11, bias=False),
            nn.ReLU(),
            module.Dcls1d(8, 3, 2, dilated_kernel_size=11, version='gauss'),
        )
        models.append(model)
    models[0].load_state_dict(models[1].state_dict())
    x = torch.randn(5, 4, 40)
    outputs = []
    for model in models:
        delays = [model[0], model[2]]
        for layer in delays:
            nn.init.constant_(layer.SIG, 5.0)
            layer.SIG.requires_grad = False
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        seen = []
        for _ in range(2):
            model.train()
            loss = model(x).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                for layer in delays:
                    layer.clamp_parameters()
                    layer.SIG *= 0.5
            saved = {k: v.clone() for k, v in model.state_dict().items()}
            model.eval()
            with torch.no_grad():
                seen.append(model(x))
                for layer in delays:
                    layer.version = 'max'
                    layer.DCK.version = 'max'
                    layer.SIG *= 0
                    layer.P.round_()
                    layer.clamp_parameters()
                seen.append(model(x))
                for layer in delays:
                    layer.version = 'gauss'
                    layer.DCK.version = 'gauss'
                model.load_state_dict(saved)
                seen.append(model(x))
        outputs.append(seen)
    for ours, theirs in zip(*outputs):
        assert_close(ours, theirs, factor=20)
    assert not torch.equal(outputs[0][0], outputs[0][1])


@pytest.mark.parametrize('name', SIZES)
def test_a_layer_of_other_weights(name):
    """A subclass may convolve with functions of its parameters."""
    results = []
    torch.manual_seed(0)
    x = image(name)
    for module in (published, dropin):

        class Positive(getattr(module, name)):
            def forward(self, x):
                return self._conv_forward(
                    x, self.weight.abs(), None, self.P / 2, self.SIG
                )

        torch.manual_seed(1)
        layer = Positive(4, 6, 3, dilated_kernel_size=5, padding=2, groups=2)
        if results:
            layer.load_state_dict(results[0][0].state_dict())
        results.append((layer.double(), layer(x)))
    (theirs, expected), (ours, found) = results
    assert_close(found, expected, factor=10)
    assert_same_step(ours, theirs, x)
    with torch.no_grad():
        assert_close(ours.eval()(x), expected, factor=10)


@pytest.mark.parametrize(
    ('name', 'version'),
    [c for c in itertools.product(SIZES, VERSIONS) if c != ('Dcls3_1d', 'v0')],
)
def test_the_constructed_kernel(name, version):
    """DCK and the module that it is an instance of can be called directly."""
    ours, theirs = pair(name, version)
    expected = theirs.DCK(theirs.weight, theirs.P, theirs.SIG)
    kind = type(theirs.DCK).__name__
    assert type(ours.DCK) is getattr(dropin, kind)
    assert_close(ours.DCK(ours.weight, ours.P, ours.SIG), expected, factor=10)
    if theirs.SIG is None:
        assert_close(ours.DCK(ours.weight, ours.P), expected, factor=10)

    dense = [(1, 1)] if name == 'Dcls3_1d' else []
    arguments = 6, 4, 2, 3, *dense, theirs.dilated_kernel_size, version
    alone = getattr(dropin, kind)(*arguments)
    same = getattr(published, kind)(*arguments)
    assert list(inspect.signature(type(alone)).parameters) == list(
        inspect.signature(type(same)).parameters
    )
    assert_close(alone(ours.weight, ours.P, ours.SIG), expected, factor=10)
    assert alone.extra_repr() == same.extra_repr()
    alone.version = same.version = 'v1'
    assert_close(alone(ours.weight, ours.P), same(ours.weight, ours.P, None), factor=10)
    assert list(alone.state_dict()) == []


def test_dense_taps_of_the_kernel_modules():
    """ConstructKernel2_1d, missing from the installed package, works like Dcls2_1d."""
    layer = dropin.Dcls2_1d(2, 4, 3, dense_kernel_size=2, dilated_kernel_size=5)
    alone = dropin.ConstructKernel2_1d(4, 2, 1, 3, 2, 5, 'gauss')
    assert alone.dense_kernel_size == layer.DCK.dense_kernel_size == (2,)
    kernel = alone(layer.weight, layer.P, layer.SIG)
    assert torch.equal(kernel, layer.kernel())
    assert torch.equal(kernel, layer.DCK(layer.weight, layer.P, layer.SIG))


@pytest.mark.parametrize('name', SIZES)
def test_kinds(name):
    ours, theirs = pair(name)
    for base in ('_DclsNd', '_DclsN_Md'):
        expected = isinstance(theirs, getattr(published, base))
        assert isinstance(ours, getattr(dropin, base)) is expected
    assert not isinstance(DCLSConv2d(4, 4, 3), dropin._DclsNd)


@pytest.mark.parametrize(
    'arguments',
    [
        dict(in_channels=4, out_channels=4, groups=4, padding=2),
        dict(in_channels=4, out_channels=4, groups=4, padding=(2, 1)),
        dict(in_channels=4, out_channels=8, groups=4, padding=2),
    ],
)
def test_implicit_gemm(arguments):
    arguments = dict(arguments, kernel_count=3, dilated_kernel_size=5)
    ours = dropin.Dcls2d(**arguments)
    assert ours.cond is published.Dcls2d(**arguments).cond
    assert ours.use_implicit_gemm
    ours.use_implicit_gemm = False
    assert ours.backend == 'native'
    assert not dropin.Dcls2d(**arguments, use_implicit_gemm=False).use_implicit_gemm


def test_copies_have_a_version_of_their_own():
    layer = dropin.Dcls2d(2, 2, 3, dilated_kernel_size=5).eval()
    x = torch.randn(1, 2, 7, 7)
    with torch.no_grad():
        y = layer(x)
        copies = copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))
        for copied in copies:
            copied.DCK.version = 'v1'
            assert not torch.equal(copied(x), y)
        assert layer.version == 'gauss'
        assert torch.equal(layer(x), y)
    assert [name for name, _ in layer.named_modules()] == ['']


@pytest.mark.parametrize('parameter', ['weight', 'P', 'SIG'])
def test_a_write_through_data_in_evaluation(parameter):
    """torch doesn't notice the write; the published layer reconstructs its kernel."""
    ours, theirs = pair('Dcls2d')
    x = image('Dcls2d')
    with torch.no_grad():
        for layer in (ours.eval(), theirs.eval()):
            layer(x)
            getattr(layer, parameter).data.mul_(0.5)
        assert_close(ours(x), theirs(x), factor=10)
        kernel = ours._current_kernel()
        assert ours._current_kernel() is kernel, 'kept where nothing changes'
        copied = pickle.loads(pickle.dumps(ours))
        assert torch.equal(copied(x), ours(x))
        assert_close(ours.float()(x.float()), theirs.float()(x.float()), factor=10)


@torch.no_grad()
def test_parameters_without_values_in_evaluation():
    """torch.func.vmap, the meta device and fake tensors have such parameters."""
    layer = dropin.Dcls1d(2, 2, 3, dilated_kernel_size=5).eval()
    x = torch.randn(1, 2, 9)
    y = layer(x)
    both = {k: torch.stack((p, 2 * p)) for k, p in layer.named_parameters()}
    ys = torch.func.vmap(lambda p: torch.func.functional_call(layer, p, x))(both)
    assert_close(ys[0], y, factor=10)
    assert not torch.allclose(ys[1], y)
    assert_close(layer(x), y)
    with FakeTensorMode() as mode:
        fake = dropin.Dcls1d(2, 2, 3, dilated_kernel_size=5).eval()
        assert fake(mode.from_tensor(x)).shape == y.shape
    assert copy.deepcopy(layer).to('meta')(x.to('meta')).shape == y.shape


def test_initial_values_of_a_changed_version():
    """The published layer sets an unused SIG to 0."""
    ours, theirs = pair('Dcls1d')
    for layer in (ours, theirs):
        layer.version = 'v1'
        layer.reset_parameters()
        assert not layer.SIG.any()
        layer.version = 'gauss'
        layer.reset_parameters()
        assert_close(layer.SIG, torch.full_like(layer.SIG, 0.23))


def test_the_view_adds_no_modules_and_no_parameters():
    layer = dropin.Dcls2d(2, 2, 3, dilated_kernel_size=5)
    view = layer.DCK
    assert list(view.parameters()) == []
    assert list(view.children()) == []
    assert [n for n, _ in layer.named_parameters()] == ['weight', 'P', 'SIG', 'bias']
    assert layer.double().DCK(layer.weight, layer.P, layer.SIG).dtype == torch.float64


def test_repr():
    layer = dropin.Dcls2d(4, 4, 3, padding=2, dilated_kernel_size=5, groups=4)
    assert repr(layer) == (
        'Dcls2d(4, 4, kernel_count=3, stride=(1, 1), version=gauss, '
        'dilated_kernel_size=(5, 5), padding=(2, 2), groups=4)'
    )
    layer.version = 'max'
    assert 'version=max' in repr(layer)
    assert 'version=max' in repr(layer.DCK)
    flat = dropin.Dcls2dK1d(4, 4, 3, dilated_kernel_size=5, flat_dim=1)
    assert 'version=v1, dilated_kernel_size=(5,), flat_dim=1' in repr(flat)
    dense = dropin.Dcls3_1d(4, 4, 3, dense_kernel_size=2, dilated_kernel_size=5)
    assert 'dilated_kernel_size=(5,), dense_kernel_size=(2, 2)' in repr(dense)
