"""Backbones, and blocks for the networks around them, for OpenMMLab's configs."""

from .convnext import ConvNeXtDCLS
from .replaced_conv_backbone import ReplacedConvBackbone
from .upsampling import DCLSDeconvModule

__all__ = ['ConvNeXtDCLS', 'DCLSDeconvModule', 'ReplacedConvBackbone']
