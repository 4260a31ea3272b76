"""Backbones for mmdet and mmseg."""

from .convnext import ConvNeXtDCLS

__all__ = ['ConvNeXtDCLS']
