"""The repulsion of elements, against loops over pairs."""

import itertools

import pytest
import torch
from conftest import assert_close

from dcls_mm.functional import repulsion as module
from dcls_mm.functional.repulsion import repulsion


@pytest.fixture(params=['by an index', 'by broadcasting'], autouse=True)
def way(request, monkeypatch):
    """Take pairs as on a CPU, and as on other devices."""
    if request.param == 'by broadcasting':

        def pairs(positions):
            return positions.unsqueeze(-1), positions.unsqueeze(-2), False

        assert module._pairs(torch.empty(2, 3, 4, device='meta'))[2] is False
        monkeypatch.setattr(module, '_pairs', pairs)


def repulsion_by_loops(positions):
    axes, out, inputs, count = positions.shape
    total = positions.new_zeros(())
    for o, c in itertools.product(range(out), range(inputs)):
        for i, j in itertools.combinations(range(count), 2):
            square = sum(
                (positions[a, o, c, i] - positions[a, o, c, j]) ** 2
                for a in range(axes)
            )
            total = total + torch.relu(1 - square.sqrt())
    return 2 * total / (count * (count - 1) * out * inputs)


@pytest.mark.parametrize('shape', [(1, 2, 3, 4), (2, 3, 1, 5), (3, 4, 2, 2)])
def test_value_and_gradient_are_those_of_loops(shape):
    positions = torch.rand(shape, dtype=torch.float64, requires_grad=True)
    actual, expected = repulsion(positions), repulsion_by_loops(positions)
    assert 0 < expected < 1
    assert_close(actual, expected)
    assert_close(*(torch.autograd.grad(v, positions)[0] for v in (actual, expected)))


def test_two_elements_by_hand():
    positions = torch.tensor([[[[0.0, 0.3]]], [[[0.0, 0.4]]]], dtype=torch.float64)
    assert_close(repulsion(positions), torch.tensor(0.5, dtype=torch.float64))


def test_elements_a_pixel_apart_are_left_alone():
    grid = torch.cartesian_prod(torch.arange(3.0), torch.arange(3.0)).T
    assert repulsion(grid.view(2, 1, 1, 9)) == 0


def test_elements_on_one_spot_have_a_finite_gradient():
    positions = torch.zeros(2, 3, 1, 4, requires_grad=True)
    value = repulsion(positions)
    value.backward()
    assert value == 1
    assert not positions.grad.any()


@pytest.mark.parametrize('shape', [(2, 3, 1, 1), (2, 0, 1, 4)])
def test_without_pairs_it_is_zero(shape):
    positions = torch.randn(shape, requires_grad=True)
    value = repulsion(positions)
    value.backward()
    assert value == 0
    assert not positions.grad.any()
