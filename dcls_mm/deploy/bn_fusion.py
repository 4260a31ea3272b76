"""mmcv's fusion of convolutions and batch norms, kept from the wrong convolution."""

import functools
import importlib
from collections.abc import Callable

import mmcv.cnn
from torch import nn

from ..layers import ConstructedConvNd


def fuse_conv_bn(fuse: Callable[[nn.Module], nn.Module], module: nn.Module):
    """Apply ``fuse``, mmcv's ``fuse_conv_bn``, with our layers heeded.

    It takes the last torch.nn.Conv2d before a norm for the one that the norm follows.
    No layer of dcls_mm is one, so that of Conv2d, DCLSConv2d, BatchNorm2d it would fuse
    the norm with the Conv2d. Here a child with such a layer inside ends what comes
    before it: the norm behind stays, and computes the same. To fuse it too, fold
    the layers first, by :func:`.folding.switch_to_deploy`.

    Args:
        fuse: changes a module in place, calling itself for the modules inside.
        module: changed in place.
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
    """Let mmcv's ``fuse_conv_bn`` heed our layers, wherever it is called from.

    It calls itself by its module's name, so that one which was imported by name before
    dcls_mm comes here for the modules inside, but not for the outermost: import dcls_mm
    first.
    """
    # By name: the package's attribute of this name is the function.
    home = importlib.import_module('mmcv.cnn.utils.fuse_conv_bn')
    fuse = home.fuse_conv_bn
    if isinstance(fuse, functools.partial) and fuse.func.__module__ == __name__:
        (fuse,) = fuse.args  # an earlier import was here, with classes of its own
    guarded = functools.wraps(fuse)(functools.partial(fuse_conv_bn, fuse))
    for place in (home, mmcv.cnn.utils, mmcv.cnn):
        place.fuse_conv_bn = guarded
