"""mmcv's fusion of convolutions and batch norms, kept from wrong pairs."""

import functools
import importlib
from collections.abc import Callable

import mmcv.cnn
from torch import nn

from ..layers import ConstructedConvNd


def fuse_conv_bn(fuse: Callable[[nn.Module], nn.Module], module: nn.Module):
    """Apply mmcv's ``fuse_conv_bn`` without fusing a norm into the wrong convolution.

    mmcv assumes that a norm follows the last torch.nn.Conv2d before it. No layer of
    dcls_mm is one, so in Conv2d, DCLSConv2d, BatchNorm2d mmcv would fuse the norm into
    the Conv2d. Here a child with such a layer inside separates what comes before it
    from what comes after: the norm stays and computes the same. To fuse it too, first
    fold the layers with :func:`.folding.switch_to_deploy`.

    Args:
        fuse: mmcv's function, which changes a module in place and recurses into it.
        module: module to change in place.
    """
    if not _has_layers(module):
        return fuse(module)
    part = nn.Module()
    for name, child in [*module.named_children(), (None, None)]:
        if name is not None and not _has_layers(child):
            part._modules[name] = child
            continue
        module._modules.update(fuse(part)._modules)
        part = nn.Module()
        if name is not None and not isinstance(child, ConstructedConvNd):
            fuse_conv_bn(fuse, child)
    return module


def _has_layers(module: nn.Module) -> bool:
    return any(isinstance(inner, ConstructedConvNd) for inner in module.modules())


def guard_mmcv() -> None:
    """Make mmcv's ``fuse_conv_bn`` respect our layers, wherever it is called from.

    Import dcls_mm first. If ``fuse_conv_bn`` was imported by name before dcls_mm, only
    its recursive calls, which go through mmcv's module, come here; the outermost call
    does not.
    """
    # By name, since the package's attribute of the same name is the function.
    home = importlib.import_module('mmcv.cnn.utils.fuse_conv_bn')
    fuse = home.fuse_conv_bn
    if isinstance(fuse, functools.partial) and fuse.func.__module__ == __name__:
        (fuse,) = fuse.args  # from an earlier import, which had its own classes
    guarded = functools.wraps(fuse)(functools.partial(fuse_conv_bn, fuse))
    for place in (home, mmcv.cnn.utils, mmcv.cnn):
        place.fuse_conv_bn = guarded
