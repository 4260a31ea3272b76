"""Pictures of kernels show what is where."""

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS

import dcls_mm  # noqa: F401
from dcls_mm.visualization import draw_kernels, load_kernels


def find_colour(image, red):
    """Centre (row, column) of the strongly red, or else blue, pixels."""
    difference = image[..., 0].astype(int) - image[..., 2]
    rows, columns = np.nonzero(difference > 60 if red else difference < -60)
    return rows.mean(), columns.mean()


def test_kernel_lies_as_an_image_does():
    """Row 0 is above, column 0 is left; positive is red, negative blue."""
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


def test_kernels_of_a_checkpoint(tmp_path):
    config = tmp_path / 'config.py'
    config.write_text(
        "default_scope = 'mmengine'\n"
        "model = dict(type='ConvNeXtDCLS', out_indices=(1,),\n"
        '             arch=dict(depths=[1, 2], dims=[4, 8]))\n'
    )
    model = MODELS.build(Config.fromfile(str(config)).model)
    torch.save(model.state_dict(), tmp_path / 'weights.pth')
    kernels = load_kernels(str(config), str(tmp_path / 'weights.pth'))
    assert list(kernels) == [f'stages.{i}.dwconv' for i in ('0.0', '1.0', '1.1')]
    for name, kernel in kernels.items():
        assert torch.equal(kernel, model.get_submodule(name).kernel())
