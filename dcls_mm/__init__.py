"""DCLS layers and backbones for OpenMMLab 2; importing this registers them."""

from . import _versions
from .version import __version__

__all__ = ['__version__']

_versions.check()

if _versions.available('mmengine') and _versions.available('mmcv'):
    from ._registration import register

    register()
