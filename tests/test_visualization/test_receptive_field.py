"""Receptive fields of convolutions, against what their kernels imply."""

import numpy as np
import pytest
import torch
from torch import nn

from dcls_mm.backbones import ConvNeXtDCLS
from dcls_mm.visualization import (
    ReceptiveField,
    draw_receptive_fields,
    noise_images,
    receptive_field,
)


def test_of_one_convolution_is_its_kernel():
    conv = nn.Conv2d(3, 1, 5, padding=2, bias=False)
    field = receptive_field(conv, noise_images(2, (11, 13)))
    expected = torch.zeros(11, 13)
    expected[3:8, 4:9] = conv.weight[0].abs().sum(0).detach()
    expected /= expected.sum()
    np.testing.assert_allclose(field.contribution, expected, rtol=1e-5)
    assert field.centre == (5.5, 6.5) and field.stride == 1


def test_of_several_images_is_the_mean_and_channels_have_signs():
    """|sum of signs * gradients|, not the gradient of the plain sum, which is 0."""
    conv = nn.Conv2d(3, 2, 3, padding=1)
    conv.weight.data[1] = -conv.weight.data[0]
    field = receptive_field(conv, noise_images(8, (5, 5)))
    magnitude = conv.weight[0].abs().sum(0).detach()
    np.testing.assert_allclose(
        field.contribution[1:4, 1:4], magnitude / magnitude.sum(), rtol=1e-5
    )


def test_does_not_vanish_behind_a_layer_norm():
    """Its output has a constant sum over the channels."""
    torch.manual_seed(0)
    arch = dict(depths=[1], dims=[8])
    backbone = ConvNeXtDCLS(arch, layer_scale_init_value=1.0, out_indices=(0,))
    backbone.train()
    field = receptive_field(backbone, noise_images(2, (68, 68)))
    assert field.stride == 4 and field.centre == (34, 34)
    assert field.contribution[32:36, 32:36].sum() > 0.05  # the stem's 4x4 patch
    assert backbone.training and all(p.grad is None for p in backbone.parameters())


def test_levels():
    arch = dict(depths=[1, 1], dims=[4, 4])
    backbone = ConvNeXtDCLS(arch, out_indices=(0, 1))
    strides = [
        receptive_field(backbone, noise_images(1, (40, 40)), level).stride
        for level in (0, 1, -1)
    ]
    assert strides == [4, 8, 8]


@pytest.mark.parametrize('side', [1, 3, 7, 15])
def test_side_of_an_even_square(side):
    contribution = np.zeros((15, 15))
    inside = slice(7 - side // 2, 8 + side // 2)
    contribution[inside, inside] = 1 / side**2
    field = ReceptiveField(contribution, (7.5, 7.5), 1)
    assert field.side(0.999) == side
    # The least odd side whose area holds half of it.
    half = next(s for s in range(1, 17, 2) if s**2 >= side**2 / 2)
    assert field.side(0.5) == half


def test_side_about_an_even_centre():
    """It lies between pixels; the side counts from the centre, not from a pixel."""
    contribution = np.zeros((8, 8))
    contribution[4, 6] = 1
    assert ReceptiveField(contribution, (4.0, 4.0), 2).side(0.5) == 6


@pytest.mark.parametrize('share', [0.0, 1.0, -1.0])
def test_wrong_share(share):
    with pytest.raises(ValueError, match='share must be between 0 and 1'):
        ReceptiveField(np.ones((3, 3)) / 9, (1.5, 1.5), 1).side(share)


def test_side_by_side_in_one_scale():
    """The wide field is dimmer in the centre, as both add up to the same."""
    narrow, wide = (
        receptive_field(conv, noise_images(1, (33, 33)))
        for conv in (
            nn.Conv2d(3, 1, 3, padding=1),
            nn.Conv2d(3, 1, 31, padding=15),
        )
    )
    both = draw_receptive_fields({'narrow': narrow, 'wide': wide})
    alone = draw_receptive_fields({'wide': wide})

    def brightest(image):
        colours = image[100:350].astype(int)
        return (colours[..., 0] - colours[..., 2]).max()

    half = both[:, 560 : both.shape[1] - 150]
    assert brightest(half) < brightest(both[:, :500]) - 20
    assert brightest(half) < brightest(alone[:, : alone.shape[1] - 150]) - 20


def test_every_share_has_a_square():
    field = ReceptiveField(np.full((64, 64), 64.0**-2), (32.0, 32.0), 1)
    shares = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    pictures = [draw_receptive_fields({'': field}, shares[:n]) for n in (4, 5, 6)]
    assert (pictures[0] != pictures[1]).any() and (pictures[1] != pictures[2]).any()


class Wrong(nn.Module):
    """A network without feature maps, or with some that don't depend on the images."""

    def __init__(self, form):
        super().__init__()
        self.form = form

    def forward(self, x):
        return {
            'vector': x.mean((2, 3)),
            'dict': {'a': x},
            'constant': x * 0,
            'nothing': (),
        }[self.form]


@pytest.mark.parametrize(
    'backbone, images, message',
    [
        (nn.Identity(), [], 'images is empty'),
        (nn.Identity(), [torch.ones(1, 4, 4), torch.ones(1, 5, 4)], 'of one size'),
        (nn.Conv2d(3, 1, 5), [torch.ones(3, 4, 4)], 'takes no image of 3x4x4'),
        (Wrong('vector'), [torch.ones(3, 4, 4)], r'got \(1, 3\)'),
        (Wrong('dict'), [torch.ones(3, 4, 4)], 'got dict'),
        (Wrong('constant'), [torch.ones(3, 4, 4)], 'does not depend'),
        (Wrong('nothing'), [torch.ones(3, 4, 4)], 'one of the 0 outputs'),
    ],
)
def test_what_has_no_receptive_field(backbone, images, message):
    with pytest.raises(ValueError, match=message):
        receptive_field(backbone, images)


def test_nothing_to_draw():
    with pytest.raises(ValueError, match='fields is empty'):
        draw_receptive_fields({})
