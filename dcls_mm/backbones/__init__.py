"""Backbones and decoder blocks for OpenMMLab's configs."""

from typing import TYPE_CHECKING

from .._lazy import lazy_names

if TYPE_CHECKING:
    from .conv_replacement import Replaced, replace_convs
    from .convnext import ConvNeXtDCLS
    from .replaced_conv_backbone import ReplacedConvBackbone
    from .replaced_conv_model import ReplacedConvModel
    from .timm_backbone import TimmBackbone
    from .upsampling import DCLSDeconvModule
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            'conv_replacement': ['Replaced', 'replace_convs'],
            'convnext': ['ConvNeXtDCLS'],
            'replaced_conv_backbone': ['ReplacedConvBackbone'],
            'replaced_conv_model': ['ReplacedConvModel'],
            'timm_backbone': ['TimmBackbone'],
            'upsampling': ['DCLSDeconvModule'],
        },
    )

__all__ = [
    'ConvNeXtDCLS',
    'DCLSDeconvModule',
    'Replaced',
    'ReplacedConvBackbone',
    'ReplacedConvModel',
    'TimmBackbone',
    'replace_convs',
]
