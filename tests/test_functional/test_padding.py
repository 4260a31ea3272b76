"""Padding by pieces, as it is done off the CPU, against torch's own."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from dcls_mm.functional import padding

SIDES = {
    1: [[(0, 0)], [(2, 3)], [(4, 0)], [(0, 1)]],
    2: [[(0, 0), (1, 2)], [(3, 3), (0, 0)], [(2, 0), (0, 4)], [(1, 1), (1, 1)]],
    3: [[(1, 0), (0, 2), (3, 1)], [(0, 0), (2, 2), (0, 0)]],
}
CASES = [(axes, sides) for axes, many in SIDES.items() for sides in many]


@pytest.mark.parametrize('mode', padding.EDGES)
@pytest.mark.parametrize(('axes', 'sides'), CASES)
def test_pieces_are_what_torch_pads(axes, sides, mode):
    x = torch.randn(2, 3, *(5, 6, 7)[:axes], dtype=torch.float64, requires_grad=True)
    flat = [*itertools.chain.from_iterable(reversed(sides))]
    expected = F.pad(x, flat, mode)
    padded = padding._pad_by_pieces(x, sides, padding.EDGES[mode])
    assert torch.equal(padded, expected)
    cotangent = torch.randn_like(expected)
    grads = [torch.autograd.grad(y, x, cotangent)[0] for y in (padded, expected)]
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize('mode', padding.EDGES)
def test_sizes_on_a_device_are_those_on_a_cpu(mode):
    """With pixels removed on some sides, as for a cropped kernel."""
    sides = [(2, -1), (-2, 3)]
    x = torch.empty(2, 3, 8, 9)
    on_device = padding.pad(x.to('meta'), sides, mode)
    assert on_device.shape == padding.pad(x, sides, mode).shape == (2, 3, 9, 10)


def test_an_image_smaller_than_its_mirrored_edges():
    x = torch.empty(2, 3, 4, device='meta')
    with pytest.raises(RuntimeError, match='Padding size should be less than'):
        padding.pad(x, [(4, 1)], 'reflect')
    assert padding.pad(x, [(4, 1)], 'replicate').shape == (2, 3, 9)
