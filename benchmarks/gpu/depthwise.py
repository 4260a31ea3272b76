"""The depthwise convolutions that layers and networks are timed with."""

import logging
from collections.abc import Callable
from functools import partial

import paths  # noqa: F401
from cases import COUNT, EXTENT
from torch import nn

from dcls_mm.layers import DCLSConv2d

try:
    from DCLS.construct.modules import Dcls2d
except ImportError:
    Dcls2d = None

PLAIN = 'plain 7x7'
OURS = 'DCLS, triton'
TORCH = 'DCLS, torch'
PUBLISHED = 'DCLS of the package dcls'

# Those that are also timed in a CUDA graph; the published layer waits for the host.
CAPTURED = (PLAIN, OURS, TORCH)


def kinds(device) -> dict[str, Callable[[int], nn.Module]]:
    """Return name -> function from channels to a depthwise convolution."""
    # The published layer warns whenever it leaves its own CUDA code unused.
    logging.getLogger().setLevel(logging.ERROR)
    found = {
        PLAIN: _plain,
        OURS: partial(_dcls, backend=device.backend),
        TORCH: partial(_dcls, backend='native'),
    }
    if Dcls2d is not None:
        found[PUBLISHED] = _published
    return found


def absent() -> str:
    """Return a sentence on the peer that is not installed, if it isn't."""
    if Dcls2d is not None:
        return ''
    return " The package `dcls` is not installed, so its layers aren't timed."


def _plain(channels: int) -> nn.Module:
    return nn.Conv2d(channels, channels, 7, padding=3, groups=channels)


def _dcls(channels: int, backend: str) -> nn.Module:
    return DCLSConv2d(
        channels,
        channels,
        padding=EXTENT // 2,
        groups=channels,
        kernel_count=COUNT,
        dilated_kernel_size=EXTENT,
        backend=backend,
    )


def _published(channels: int) -> nn.Module:
    return Dcls2d(
        channels,
        channels,
        padding=EXTENT // 2,
        groups=channels,
        kernel_count=COUNT,
        dilated_kernel_size=EXTENT,
        version='v0',
        use_implicit_gemm=False,
    )
