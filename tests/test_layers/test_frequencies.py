"""The bound on a continuous kernel's frequencies, against its measured spectrum."""

import math

import pytest
import torch
from conftest import assert_close

from dcls_mm.functional.continuous import alias_penalty
from dcls_mm.layers import FlexConv1d, FlexConv2d

SAMPLES = 4096


def layer_1d(**options):
    """Build a layer with a fine kernel: 4096 taps per period of 2, and one more."""
    return FlexConv1d(
        1,
        1,
        65,
        resolution=SAMPLES / 64,
        padding='same',
        crop_threshold=None,
        dtype=torch.float64,
        **options,
    )


@torch.no_grad()
def power_spectrum(layer):
    """Return frequencies in periods per unit, and their shares of the power."""
    kernel = layer.kernel()[0, 0, :SAMPLES]
    power = torch.fft.rfft(kernel).abs() ** 2
    power[1:-1] *= 2
    return torch.arange(len(power)) / 2, power / power.sum()


def share_above(layer, limit):
    frequencies, power = power_spectrum(layer)
    return power[frequencies > limit].sum().item()


@torch.no_grad()
def only_sines(layer, frequencies):
    """Make each filter a sine of one of the frequencies, in periods per unit."""
    for gabor, frequency in zip(layer.net.filters, frequencies):
        gabor.weight.fill_(2 * math.pi * frequency)
        gabor.gamma.zero_()


def test_a_product_of_sines_reaches_the_bound():
    net = dict(type='magnet', hidden_channels=1, num_layers=2)
    layer = layer_1d(kernel_net=net, mask_width=None)
    only_sines(layer, (20.0, 7.0, 3.0))
    assert_close(
        layer.highest_frequencies(), torch.tensor([20.0, 7.0, 3.0], dtype=torch.float64)
    )
    frequencies, power = power_spectrum(layer)
    found = frequencies[power > 1e-6]
    assert {10.0, 16.0, 24.0, 30.0} <= set(found.tolist())
    assert found.max() == layer.highest_frequencies().sum()


@pytest.mark.parametrize('deviations', [0.5, 1.0, 2.0])
def test_the_mask_widens_the_spectrum_as_the_bound_says(deviations):
    """With a Gaussian amplitude, erfc(s) / 2 of the power is above s deviations."""
    layer = layer_1d(
        kernel_net=dict(type='magnet', hidden_channels=1, num_layers=1),
        mask_width=0.01,
    )
    only_sines(layer, (200.0, 0.0))
    with torch.no_grad():
        layer.net.filters[1].bias.fill_(math.pi / 2)
    bound = layer.highest_frequencies(deviations).sum().item()
    assert bound == pytest.approx(200 + deviations / (2 * math.pi * 0.01))
    assert layer.highest_frequencies(deviations, with_mask=False).sum() == 200
    expected = math.erfc(deviations) / 2
    assert share_above(layer, bound) == pytest.approx(expected, rel=0.15)


@pytest.mark.parametrize('seed', range(4))
@pytest.mark.parametrize('input_scale', [2.0, 25.6])
def test_random_networks_stay_under_the_bound(seed, input_scale):
    torch.manual_seed(seed)
    layer = layer_1d(
        kernel_net=dict(type='magnet', input_scale=input_scale), mask_width=0.1
    )
    bound = layer.highest_frequencies(2.0).sum().item()
    assert share_above(layer, bound) < 1e-3
    assert share_above(layer, bound / 8) > 1e-3, 'a bound of no use'
    without_mask = layer.highest_frequencies(2.0, with_mask=False)
    assert_close(layer.highest_frequencies(2.0)[:-1], without_mask)


def test_rotated_envelopes():
    """At an eighth of a turn, both axes get the root mean square of the two gammas."""
    net = dict(type='magnet', hidden_channels=1, num_layers=1, rotated=True)
    layer = FlexConv2d(1, 1, 9, kernel_net=net, mask_width=None)
    gabor = layer.net.filters[0]
    with torch.no_grad():
        gabor.weight.zero_()
        gabor.gamma.copy_(torch.tensor([[10.0, 2.0]]))
        for turn, expected in ((0.0, 10.0), (0.25, 10.0), (1 / 8, math.sqrt(52))):
            gabor.theta.fill_(turn)
            bound = gabor.highest_frequency(1.0).item()
            assert bound == pytest.approx(expected / (2 * math.pi), rel=1e-6)


def test_nyquist_frequency():
    """Taps at a distance of 2 / (k - 1) resolve (k - 1) / 4 periods per unit."""
    assert FlexConv2d(1, 1, (9, 17)).nyquist_frequency == 2.0
    assert FlexConv1d(1, 1, 17, resolution=2.0).nyquist_frequency == 4.0


def test_penalty():
    filters = torch.tensor([3.0, 1.0, 2.0], requires_grad=True)
    assert alias_penalty(filters, 4.5).item() == 1.5**2 + 0.5**2
    assert alias_penalty(filters, 9.0).item() == 0
    assert alias_penalty(filters, 4.5, method='summed').item() == 1.5**2
    assert alias_penalty(filters, 6.5, method='summed').item() == 0
    alias_penalty(filters, 4.5).backward()
    assert filters.grad.tolist() == [3.0, 0.0, 1.0]


def test_penalty_with_a_mask():
    """Shares of Nyquist's 4.5: 1.5 for 3 filters, 1.125 for 3 filters and the mask."""
    filters = torch.tensor([2.0, 1.25, 0.5])
    mask = torch.tensor(0.75, requires_grad=True)
    per_filter = alias_penalty(filters, 4.5, mask)
    assert per_filter.item() == (2 + 0.25 - 1.5) ** 2
    per_filter.backward()
    assert mask.grad.item() == pytest.approx(2 * 0.75 / 3)
    assert alias_penalty(filters, 4.5, mask, 'summed').item() == 0
    assert alias_penalty(filters, 4.0, mask, 'summed').item() == 0.5**2
    assert alias_penalty(filters, 4.5, mask, 'per_factor').item() == (
        (2 - 1.125) ** 2 + (1.25 - 1.125) ** 2
    )


def test_kernels_under_the_limit_cost_nothing():
    """Filters use 0.9 of a share of 1; a mask of 0.2 adds 0.05 to each."""
    filters, mask = torch.full((4,), 0.9), torch.tensor(0.2)
    assert alias_penalty(filters, 4.0, mask).item() == 0
    ours = alias_penalty(filters, 4.0, mask, 'per_factor').item()
    assert ours == pytest.approx(4 * (0.9 - 0.8) ** 2)


def test_frequencies_as_published():
    """The default is two deviations; for the mask, those of its narrowest axis."""
    net = dict(type='magnet', hidden_channels=1, num_layers=1)
    layer = FlexConv2d(1, 1, 9, kernel_net=net, mask_width=(1 / math.pi, 0.5))
    only_sines(layer, (0.5, 1.2))
    with torch.no_grad():
        layer.net.filters[0].gamma.fill_(-2 * math.pi * 0.1)
    found = layer.highest_frequencies()
    assert_close(found, torch.tensor([0.7, 1.2, 1.0]))
    assert layer.mask_frequency().item() == pytest.approx(1.0)
    assert layer.nyquist_frequency == 2.0
    without = FlexConv2d(1, 1, 9, kernel_net=net, mask_width=None)
    assert without.mask_frequency() is None
    assert len(without.highest_frequencies()) == 2


def test_other_networks_have_no_bound():
    with pytest.raises(ValueError, match="only a kernel_net of type 'magnet'.*SIREN"):
        FlexConv1d(1, 1, 9, kernel_net='siren').highest_frequencies()
