"""DCLS layers and backbones for OpenMMLab 2; importing this registers them."""

from typing import TYPE_CHECKING

from . import _versions
from ._lazy import lazy_names
from .version import __version__

if TYPE_CHECKING:
    from .backbones import ConvNeXtDCLS, ReplacedConvBackbone, replace_convs
    from .functional import autotune, construct_kernel, convolve
    from .layers import (
        DCLSConv1d,
        DCLSConv2d,
        DCLSConv3d,
        DCLSConvTranspose1d,
        DCLSConvTranspose2d,
        DCLSConvTranspose3d,
        FlexConv1d,
        FlexConv2d,
        LargeKernelConv2d,
        RotatedDCLSConv2d,
        SteeredDCLSConv2d,
        switch_to_deploy,
    )
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            'backbones': ['ConvNeXtDCLS', 'ReplacedConvBackbone', 'replace_convs'],
            'functional': ['autotune', 'construct_kernel', 'convolve'],
            'layers': [
                'DCLSConv1d',
                'DCLSConv2d',
                'DCLSConv3d',
                'DCLSConvTranspose1d',
                'DCLSConvTranspose2d',
                'DCLSConvTranspose3d',
                'FlexConv1d',
                'FlexConv2d',
                'LargeKernelConv2d',
                'RotatedDCLSConv2d',
                'SteeredDCLSConv2d',
                'switch_to_deploy',
            ],
        },
    )

__all__ = [
    'ConvNeXtDCLS',
    'DCLSConv1d',
    'DCLSConv2d',
    'DCLSConv3d',
    'DCLSConvTranspose1d',
    'DCLSConvTranspose2d',
    'DCLSConvTranspose3d',
    'FlexConv1d',
    'FlexConv2d',
    'LargeKernelConv2d',
    'ReplacedConvBackbone',
    'RotatedDCLSConv2d',
    'SteeredDCLSConv2d',
    '__version__',
    'autotune',
    'construct_kernel',
    'convolve',
    'replace_convs',
    'switch_to_deploy',
]

_versions.check()

if _versions.available('mmengine') and _versions.available('mmcv'):
    from ._registration import register

    register()
