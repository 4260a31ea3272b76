"""A model changed in any documented way and order still computes what it says.

After every step, its outputs must equal those of new kernels made from its parameters
and settings, by the papers' formulas in numpy and torch's convolution.
"""

import copy
import io
import pickle

import numpy as np
import torch
import torch.nn.functional as F
from conftest import assert_close
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    precondition,
    rule,
)
from mmengine.model import ExponentialMovingAverage, StochasticWeightAverage
from torch import nn

import dcls_mm  # noqa: F401
from dcls_mm.layers import DCLSConv2d, FlexConv2d, LargeKernelConv2d
from dcls_mm.layers.folding import switch_to_deploy

CHANNELS = 4

# Layers in series may multiply a rounding error; a stale kernel is far worse.
FACTOR = 1000

OPTIONS = dict(groups=CHANNELS, padding='same')
ELEMENTS = dict(OPTIONS, kernel_count=3, dilated_kernel_size=5)

# The layers, and what can be set in each besides its parameters.
DCLS = ('first', 'second', 'third', 'fourth')
SETTINGS = {
    'first': dict(interpolation='bilinear', formulation='construct'),
    'second': dict(interpolation='triangle'),
    'third': dict(interpolation='max'),
    'fourth': dict(interpolation='gauss'),
    'flex': dict(resolution=1.0, omega_0=8.0, crop_threshold=0.1),
    'large': dict(),
}
COMMON = dict(padding_mode='zeros', backend=None)
PARTNERS = {'bilinear': 'triangle', 'triangle': 'bilinear'}
PARTNERS.update({'max': 'gauss', 'gauss': 'max'})


class Net(nn.Sequential):
    """One layer of each kind, with bounded values between them."""

    def __init__(self):
        super().__init__()
        for name in DCLS:
            kind = SETTINGS[name]['interpolation']
            layer = DCLSConv2d(CHANNELS, CHANNELS, **ELEMENTS, interpolation=kind)
            nn.init.uniform_(layer.P, -2.5, 2.5)
            self.add_module(name, layer)
        siren = dict(type='siren', hidden_channels=4, omega_0=8.0)
        flex = dict(OPTIONS, dilated_kernel_size=5, mask_width=0.4, kernel_net=siren)
        self.flex = FlexConv2d(CHANNELS, CHANNELS, **flex)
        self.large = LargeKernelConv2d(CHANNELS, CHANNELS, 7, **OPTIONS)

    def forward(self, x):
        for layer in self:
            x = torch.tanh(layer(x))
        return x


def paper_kernel(layer, interpolation, rounded):
    """Return the kernel (out, 1, 5, 5) of a depthwise DCLS layer."""
    weight, positions, sigma = (
        None if p is None else p.detach().double().numpy()
        for p in (layer.weight, layer.P, layer.SIG)
    )
    positions = positions.round() if rounded else positions
    distance = abs(np.arange(5) - (positions + 2)[..., None])
    if interpolation == 'gauss':
        profile = np.exp(-((distance / (0.27 + abs(sigma[..., None]))) ** 2) / 2)
    else:
        width = 1 + (abs(sigma[..., None]) if interpolation == 'max' else 0)
        profile = np.maximum(width - distance, 0)
    elements = profile[0][..., :, None] * profile[1][..., None, :]
    if interpolation != 'bilinear':
        elements = elements / (elements.sum((-2, -1), keepdims=True) + 1e-7)
    return torch.from_numpy((weight[..., None, None] * elements).sum(2))


def flex_kernel(layer, given):
    """Return the kernel (out, 1, taps, taps), by a layer that never kept one."""
    siren = dict(type='siren', hidden_channels=4, omega_0=given['omega_0'])
    fresh = FlexConv2d(
        CHANNELS,
        CHANNELS,
        **dict(OPTIONS, dilated_kernel_size=5, kernel_net=siren),
        mask_width=0.4,
        resolution=given['resolution'],
        crop_threshold=given['crop_threshold'],
        dtype=layer.net.output.weight.dtype,
    )
    fresh.load_state_dict(layer.state_dict())
    return fresh.kernel().detach().double()


def expected(model, given, x):
    """Return the outputs of ``model`` with the settings ``given``."""
    x = x.double()
    for name, layer in model.named_children():
        if name in DCLS:
            rounded = given[name]['integer_positions'] and not layer.training
            kernel = paper_kernel(layer, given[name]['interpolation'], rounded)
        elif name == 'flex':
            kernel = flex_kernel(layer, given[name])
        else:
            kernel = layer.weight.detach().double()
        mode = given[name]['padding_mode']
        sides = [size // 2 for size in reversed(kernel.shape[2:]) for _ in range(2)]
        x = F.pad(x, sides, 'constant' if mode == 'zeros' else mode)
        bias = layer.bias.detach().double()
        x = torch.tanh(F.conv2d(x, kernel, bias, groups=CHANNELS))
    return x


def reloaded(model, given):
    """Return a new model with the same settings, and the weights through a file."""
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    buffer.seek(0)
    other = Net().to(model.large.weight.dtype).train(model.training)
    for name, values in given.items():
        for key, value in values.items():
            assign(getattr(other, name), key, value)
    for frozen, own in zip(model.parameters(), other.parameters()):
        own.requires_grad_(frozen.requires_grad)
    if model.fourth.P is model.third.P:
        # Not by `share_positions`, which refuses interpolations that differ by now.
        other.fourth.P, other.fourth.SIG = other.third.P, other.third.SIG
    other.load_state_dict(torch.load(buffer, weights_only=True))
    return other


def assign(layer, key, value):
    if key == 'resolution':
        layer.set_resolution(value)
    else:
        setattr(layer.net if key == 'omega_0' else layer, key, value)


class ModelStates(RuleBasedStateMachine):
    """The state machine of the module; each rule is something that users do."""

    # Models that this one was copied from; nothing may change them.
    left = Bundle('left')

    @initialize(seed=st.integers(0, 99))
    def build(self, seed):
        torch.manual_seed(seed)
        self.model = Net().double().eval()
        self.x = torch.randn(2, CHANNELS, 9, 8)
        self.given = {name: {**COMMON, **own} for name, own in SETTINGS.items()}
        for name in DCLS:
            self.given[name]['integer_positions'] = False

    @invariant()
    def computes_what_it_says(self):
        if not hasattr(self, 'model'):
            return
        x = self.x.to(self.model.large.weight.dtype)
        y = expected(self.model, self.given, x)
        with torch.no_grad():
            assert_close(self.model(x), y, x.dtype, factor=FACTOR)
            assert_close(self.model(x), y, x.dtype, factor=FACTOR)
        assert_close(self.model(x).detach(), y, x.dtype, factor=FACTOR)

    @rule()
    def switch(self):
        self.model.train(not self.model.training)

    @rule(rate=st.sampled_from([0.01, 0.3]))
    def step(self, rate):
        learned = {p: p.detach().clone() for p in self.model.parameters()}
        optimizer = torch.optim.SGD(self.model.parameters(), rate)
        self.model(self.x.to(self.model.large.weight.dtype)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        for parameter, before in learned.items():
            assert parameter.requires_grad or torch.equal(parameter, before)

    @rule(name=st.sampled_from(DCLS), shift=st.sampled_from([0.4, -1.0]))
    def move_positions(self, name, shift):
        with torch.no_grad():
            getattr(self.model, name).P.add_(shift)

    @rule(name=st.sampled_from([*DCLS, 'large']), swap=st.booleans())
    def write_data(self, name, swap):
        """Write to ``.data``, as EMAHook does before validation calls eval()."""
        weight = getattr(self.model, name).weight
        if swap:  # to new memory
            weight.data = weight.data * 0.7
            return
        weight.data.mul_(0.7)
        self.model.train(self.model.training)

    @rule(name=st.sampled_from([*SETTINGS]), data=st.data())
    def set_attribute(self, name, data):
        choices = {
            'padding_mode': ['zeros', 'reflect', 'circular'],
            'backend': [None, 'native', 'fft'],
            'integer_positions': [False, True],
            'interpolation': list(PARTNERS),
            'formulation': ['construct', 'sample'],
            'resolution': [1.0, 1.5, 2.0],
            'omega_0': [8.0, 3.0],
            'crop_threshold': [0.1, 0.5, None],
        }
        key = data.draw(st.sampled_from(sorted(self.given[name])))
        now = self.given[name][key]
        value = data.draw(st.sampled_from([v for v in choices[key] if v != now]))
        if key == 'interpolation':
            value = PARTNERS[now]
        if key == 'formulation' or (name, key) == ('first', 'interpolation'):
            # Only 'bilinear' can be sampled.
            sampled = self.given[name]['formulation'] == 'sample'
            if sampled != (key == 'formulation') and sampled:
                return
            if value == 'sample' and self.given[name]['interpolation'] != 'bilinear':
                return
        if key == 'padding_mode' and name == 'flex' and value == 'reflect':
            assign(self.model.flex, 'resolution', 1.0)  # otherwise wider than the image
            self.given['flex']['resolution'] = 1.0
        assign(getattr(self.model, name), key, value)
        self.given[name][key] = value

    @precondition(lambda self: self.model.fourth.P is not self.model.third.P)
    @rule()
    def share(self):
        third, fourth = self.model.third, self.model.fourth
        if third.interpolation != fourth.interpolation:
            assign(fourth, 'interpolation', third.interpolation)
            self.given['fourth']['interpolation'] = third.interpolation
        fourth.share_positions(third)
        assert fourth.P is third.P and fourth.SIG is third.SIG

    @rule(name=st.sampled_from(DCLS))
    def freeze(self, name):
        getattr(self.model, name).freeze_positions()

    @rule(name=st.sampled_from(['third', 'fourth']), value=st.sampled_from([0.0, 0.6]))
    def fix_sigma(self, name, value):
        layer = getattr(self.model, name)
        layer.fix_sigma(value)
        assert layer.SIG.eq(value).all() and not layer.SIG.requires_grad

    @rule(name=st.sampled_from(DCLS))
    def round_positions(self, name):
        layer = getattr(self.model, name)
        layer.round_positions()
        assert torch.equal(layer.P, layer.P.round())

    @rule(name=st.sampled_from(DCLS))
    def clamp_positions(self, name):
        layer = getattr(self.model, name)
        layer.clamp_positions()
        assert layer.P.abs().max() <= 2

    @rule(name=st.sampled_from([*SETTINGS]))
    def start_anew(self, name):
        getattr(self.model, name).reset_parameters()

    @rule(
        target=left,
        how=st.sampled_from(
            [
                copy.deepcopy,
                lambda model: pickle.loads(pickle.dumps(model)),
                lambda model: (
                    copy.deepcopy(model).load_state_dict(model.state_dict())
                    and copy.deepcopy(model)
                ),
            ]
        ),
    )
    def copy(self, how):
        """Continue with a copy; the original must not change."""
        original, x = self.model, self.x.to(self.model.large.weight.dtype)
        self.model = how(original)
        shared = original.fourth.P is original.third.P
        assert (self.model.fourth.P is self.model.third.P) == shared
        return original, x, original(x).detach()

    @rule(left=consumes(left))
    def compare_with_the_original(self, left):
        model, x, y = left
        with torch.no_grad():
            assert_close(model(x), y, x.dtype, factor=FACTOR)

    @rule()
    def save_and_load(self):
        self.model = reloaded(self.model, self.given)

    @rule()
    def assign_a_state_dict(self):
        shared = self.model.fourth.P is self.model.third.P
        self.model.load_state_dict(copy.deepcopy(self.model.state_dict()), assign=True)
        assert (self.model.fourth.P is self.model.third.P) == shared

    @rule(dtype=st.sampled_from([torch.float32, torch.float64]))
    def convert(self, dtype):
        self.model.to(dtype)

    @rule()
    def move(self):
        """Move to a device without values; shapes must be the same."""
        x = self.x.to(self.model.large.weight.dtype)
        moved = copy.deepcopy(self.model).to('meta')
        if all(v['backend'] != 'fft' for v in self.given.values()):
            assert moved(x.to('meta')).shape == x.shape

    @precondition(lambda self: self.model.fourth.P is not self.model.third.P)
    @rule(kind=st.sampled_from(['ema', 'swa']))
    def average(self, kind):
        """Check that averaging gives the mean of the model before and after a step."""
        average = (
            ExponentialMovingAverage(self.model, momentum=0.5)
            if kind == 'ema'
            else StochasticWeightAverage(self.model)
        )
        average.update_parameters(self.model)
        before = [p.detach().clone() for p in self.model.parameters()]
        self.step(0.3)
        average.update_parameters(self.model)
        for mean, old, new in zip(
            average.parameters(), before, self.model.parameters()
        ):
            assert_close(mean, (old + new) / 2, factor=FACTOR)
        x = self.x.to(self.model.large.weight.dtype)
        y = expected(average.module, self.given, x)
        with torch.no_grad():
            assert_close(average(x), y, x.dtype, factor=FACTOR)

    @rule()
    def fold(self):
        model = copy.deepcopy(self.model).eval()
        x = self.x.to(self.model.large.weight.dtype)
        y = expected(model, self.given, x)
        switch_to_deploy(model)
        assert all(type(layer) is nn.Conv2d for layer in model)
        with torch.no_grad():
            assert_close(model(x), y, x.dtype, factor=FACTOR)


TestModelStates = ModelStates.TestCase
TestModelStates.settings = settings(
    max_examples=30,
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
