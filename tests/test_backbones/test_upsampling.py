"""DCLSDeconvModule in the decoder that it is made for."""

import pytest
import torch
from mmengine.registry import MODELS, init_default_scope

import dcls_mm  # noqa: F401
from dcls_mm.backbones import DCLSDeconvModule
from dcls_mm.layers import DCLSConvTranspose2d


@pytest.mark.parametrize('with_cp', [False, True])
def test_unet_of_mmseg(with_cp):
    pytest.importorskip('mmseg')
    init_default_scope('mmseg')
    unet = MODELS.build(
        dict(
            type='UNet',
            base_channels=4,
            num_stages=3,
            strides=(1, 1, 1),
            enc_num_convs=(1, 1, 1),
            dec_num_convs=(1, 1),
            downsamples=(True, True),
            enc_dilations=(1, 1, 1),
            dec_dilations=(1, 1),
            with_cp=with_cp,
            upsample_cfg=dict(type='DCLSDeconvModule', dilated_kernel_size=8),
        )
    )
    learned = [m for m in unet.modules() if isinstance(m, DCLSConvTranspose2d)]
    assert [layer.extent for layer in learned] == [(8, 8)] * 2
    outputs = unet(torch.randn(2, 3, 16, 24))
    shapes = [tuple(y.shape[1:]) for y in outputs]
    assert shapes == [(16, 4, 6), (8, 8, 12), (4, 16, 24)]
    sum(y.square().mean() for y in outputs).backward()
    assert all(layer.P.grad.abs().sum() > 0 for layer in learned)


@pytest.mark.parametrize(('kernel_size', 'scale_factor'), [(3, 2), (2, 4)])
def test_sizes_that_do_not_fit(kernel_size, scale_factor):
    with pytest.raises(ValueError, match=f'got {kernel_size} and {scale_factor}'):
        DCLSDeconvModule(4, 4, kernel_size=kernel_size, scale_factor=scale_factor)
