"""What timm trains loads into ConvNeXtDCLS, as a backbone."""

import pytest
import torch
from mmengine.registry import MODELS

from .published import original_state_dict, published_network

pytestmark = pytest.mark.timm


def backbone(path, arch='tiny', **depthwise):
    depthwise = dict(
        type='DCLSConv2d', kernel_count=34, dilated_kernel_size=17, **depthwise
    )
    cfg = dict(
        type='ConvNeXtDCLS',
        arch=arch,
        depthwise_cfg=depthwise,
        init_cfg=dict(type='Pretrained', checkpoint=str(path)),
    )
    built = MODELS.build(cfg)
    built.init_weights()
    return built.eval()


@pytest.mark.parametrize('drop_metadata', [False, True])
def test_forward_agrees(drop_metadata, tmp_path):
    import timm

    import dcls_mm.timm_models  # noqa: F401

    trained = published_network('convnext_dcls_tiny')
    model = timm.create_model('convnext_dcls_tiny').eval()
    model.load_state_dict(original_state_dict(trained.state_dict(), 'convnext'))
    weights = model.state_dict()
    weights = dict(weights) if drop_metadata else weights
    torch.save({'state_dict_ema': weights, 'state_dict': {}}, tmp_path / 'timm.pth')
    ours = backbone(tmp_path / 'timm.pth')
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        maps = model.forward_intermediates(images, intermediates_only=True)
        # The backbone's norms of its outputs start as plain layer norms.
        outputs = ours(images)
        for index, (output, expected) in enumerate(zip(outputs, maps, strict=True)):
            norm = getattr(ours, f'norm{index}')
            assert (output - norm(expected)).abs().max() < 1e-5 * output.abs().max()
