"""Pictures of kernels show the right values in the right places."""

import numpy as np
import pytest
import torch
from torch import nn

from dcls_mm.layers import DCLSConv1d, DCLSConv2d
from dcls_mm.visualization import depthwise_kernels, draw_kernels


def find_colour(image, red):
    """Return the centre (row, column) of the strongly red, or blue, pixels."""
    difference = image[..., 0].astype(int) - image[..., 2]
    rows, columns = np.nonzero(difference > 60 if red else difference < -60)
    return rows.mean(), columns.mean()


def test_kernel_lies_as_an_image_does():
    """Row 0 is on top, column 0 on the left; positive is red, negative blue."""
    kernel = torch.zeros(1, 1, 17, 17)
    kernel[0, 0, 1, 14] = 2.0
    kernel[0, 0, 15, 2] = -2.0
    image = draw_kernels({'layer': kernel}, columns=1)
    assert image.dtype == np.uint8 and image.shape[2] == 3
    panel = image[:, : image.shape[1] * 6 // 7]  # without the colour bar
    red, blue = find_colour(panel, red=True), find_colour(panel, red=False)
    assert red[0] < blue[0] and red[1] > blue[1]


def test_kernels_are_scaled_each_by_its_own():
    kernel = torch.zeros(2, 1, 5, 5)
    kernel[0, 0, 0, 0], kernel[1, 0, 0, 0] = 1.0, 1e-6
    weak = draw_kernels({'layer': kernel[1:]}, columns=1)
    strong = draw_kernels({'layer': kernel[:1]}, columns=1)
    np.testing.assert_array_equal(weak, strong)


def test_more_panels_than_channels():
    draw_kernels({'layer': torch.randn(3, 1, 5, 5)}, columns=8)


@pytest.mark.parametrize(
    'kernels, message',
    [
        ({}, 'kernels is empty'),
        ({'a': torch.zeros(2, 3, 5, 5)}, r"kernels\['a'\] .* got \(2, 3, 5, 5\)"),
        ({'a': torch.zeros(2, 1, 5)}, r"kernels\['a'\] .* got \(2, 1, 5\)"),
    ],
)
def test_bad_kernels(kernels, message):
    with pytest.raises(ValueError, match=message):
        draw_kernels(kernels)


def test_kernels_of_a_model():
    """They are those with two axes and one group per channel."""
    model = nn.Sequential(
        DCLSConv2d(4, 4, 3, groups=4),
        nn.Conv2d(4, 4, 3, groups=4),
        DCLSConv2d(4, 4, 3, groups=2),
        DCLSConv1d(4, 4, 3, groups=4),
        nn.Sequential(DCLSConv2d(4, 8, 3, groups=4)),
    )
    kernels = depthwise_kernels(model)
    assert list(kernels) == ['0', '4.0']
    for name, kernel in kernels.items():
        assert torch.equal(kernel, model.get_submodule(name).kernel())
