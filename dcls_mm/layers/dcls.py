"""Dilated convolution with learnable spacings, as modules."""

import math
from typing import Optional, Union

import torch
from torch import Tensor, nn

from ..functional import INTERPOLATIONS, construct_kernel
from ..functional._arguments import IntOrTuple, as_int, as_tuple
from ..functional.interpolation import interpolation_name
from .base import ConstructedConvNd

# Standard deviation of the published initial positions, in pixels.
POSITION_STD = 0.5


class DCLSConvNd(ConstructedConvNd):
    """A convolution that learns where its elements sit inside a large kernel.

    It takes the place of the torch.nn.ConvNd with the same first arguments: with
    nothing else said it has as many weights and the same extent, and where the extent
    is larger, the padding grows by half the difference, so that the output keeps the
    replaced conv's size. ``kernel_size`` may be left None where ``kernel_count`` and
    ``dilated_kernel_size`` are given; padding is then that of the extent itself.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias,
            padding_mode, device, dtype: as in torch.nn.ConvNd, of the replaced conv.
        kernel_count: number of elements; by default the replaced conv's weights.
        dilated_kernel_size: extent in pixels, an int or one an axis; by default
            ``dilation * (kernel_size - 1) + 1``.
        interpolation: 'bilinear' ('v0'), 'triangle' ('v1'), 'max' or 'gauss'.
        backend: a backend of ``functional.convolve`` to force, None to choose.

    Parameters:
        weight (out, in // groups, count); P (ndim, out, in // groups, count), positions
        in pixels from the kernel's centre, rows first; SIG, like P, for 'max' and
        'gauss' only; bias (out,).

    Raises:
        ValueError, TypeError: an argument that doesn't fit, by its name.

    Source: arXiv 2112.03740 (bilinear), 2306.00817 (the others); initial values as in
    the published package.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Optional[IntOrTuple] = None,
        stride: IntOrTuple = 1,
        padding: Union[IntOrTuple, str] = 0,
        dilation: IntOrTuple = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = 'zeros',
        device=None,
        dtype=None,
        *,
        kernel_count: Optional[int] = None,
        dilated_kernel_size: Optional[IntOrTuple] = None,
        interpolation: str = 'bilinear',
        backend: Optional[str] = None,
    ):
        if kernel_size is None:
            if kernel_count is None or dilated_kernel_size is None:
                raise ValueError(
                    'kernel_size may be left out only where kernel_count and '
                    'dilated_kernel_size are both given'
                )
            kernel_size = dilated_kernel_size
        kernel_size = as_tuple('kernel_size', kernel_size, self.ndim, minimum=1)
        dilation = as_tuple('dilation', dilation, self.ndim, minimum=1)
        replaced = tuple(d * (k - 1) + 1 for d, k in zip(dilation, kernel_size))
        extent = replaced
        if dilated_kernel_size is not None:
            extent = as_tuple(
                'dilated_kernel_size', dilated_kernel_size, self.ndim, minimum=1
            )
        super().__init__(
            in_channels,
            out_channels,
            extent,
            kernel_size=kernel_size,
            dilation=dilation,
            stride=stride,
            padding=_grown_padding(padding, extent, replaced),
            groups=groups,
            bias=bias,
            padding_mode=padding_mode,
            backend=backend,
            device=device,
            dtype=dtype,
        )
        if kernel_count is None:
            kernel_count = math.prod(kernel_size)
        self.kernel_count = as_int('kernel_count', kernel_count, minimum=1)
        self.interpolation = interpolation_name(interpolation)
        shape = (self.out_channels, self.in_channels // self.groups, self.kernel_count)
        self.weight = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        self.P = nn.Parameter(
            torch.empty(self.ndim, *shape, device=device, dtype=dtype)
        )
        if INTERPOLATIONS[self.interpolation].has_sigma:
            self.SIG = nn.Parameter(torch.empty_like(self.P))
        else:
            self.register_parameter('SIG', None)
        self.reset_parameters()

    @property
    def dilated_kernel_size(self) -> tuple[int, ...]:
        """The extent in pixels, one an axis."""
        return self.extent

    def reset_parameters(self) -> None:
        """The published initial values."""
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(self.weight[0].numel())
            nn.init.uniform_(self.bias, -bound, bound)
        nn.init.normal_(self.P, std=POSITION_STD)
        self.clamp_positions()
        if self.SIG is not None:
            nn.init.constant_(
                self.SIG, INTERPOLATIONS[self.interpolation].initial_sigma
            )

    @torch.no_grad()
    def clamp_positions(self) -> None:
        """Move positions beyond the first or the last tap of the extent onto it."""
        for positions, size in zip(self.P, self.extent):
            positions.clamp_(-(size // 2), size - 1 - size // 2)

    def share_positions(self, other: 'DCLSConvNd') -> None:
        """Use the position (and sigma) parameters of another layer as one's own.

        Raises:
            ValueError: the layers' positions are of different shape or meaning.
        """
        for name in ('extent', 'interpolation'):
            if getattr(self, name) != getattr(other, name):
                raise ValueError(
                    f'layers that share positions must have one {name}, got '
                    f'{getattr(self, name)} and {getattr(other, name)}'
                )
        if self.P.shape != other.P.shape:
            raise ValueError(
                'layers that share positions must have positions of one shape, got '
                f'{tuple(self.P.shape)} and {tuple(other.P.shape)}'
            )
        self.P, self.SIG = other.P, other.SIG

    def kernel(self) -> Tensor:
        """The constructed kernel, (out, in // groups, *dilated_kernel_size)."""
        return construct_kernel(
            self.weight,
            self.P,
            self.SIG,
            kernel_size=self.extent,
            interpolation=self.interpolation,
        )

    def extra_repr(self) -> str:
        return (
            f'{super().extra_repr()}, kernel_count={self.kernel_count}, '
            f'dilated_kernel_size={self.extent}, interpolation={self.interpolation!r}'
        )


class DCLSConv1d(DCLSConvNd):
    """:class:`DCLSConvNd` over (batch, channels, length)."""

    ndim = 1


class DCLSConv2d(DCLSConvNd):
    """:class:`DCLSConvNd` over (batch, channels, height, width)."""

    ndim = 2


class DCLSConv3d(DCLSConvNd):
    """:class:`DCLSConvNd` over (batch, channels, depth, height, width)."""

    ndim = 3


def _grown_padding(
    padding: Union[IntOrTuple, str],
    extent: tuple[int, ...],
    replaced: tuple[int, ...],
) -> Union[tuple[int, ...], str]:
    """The padding with which ``extent`` taps give the replaced conv's output size."""
    if extent == replaced or padding == 'same':
        return padding
    if padding == 'valid':
        padding = 0
    elif isinstance(padding, str):
        raise ValueError(
            f"padding must be integers, 'same' or 'valid', got {padding!r}"
        )
    grown = []
    paddings = as_tuple('padding', padding, len(extent), minimum=0)
    for given, large, small in zip(paddings, extent, replaced):
        if (large - small) % 2:
            raise ValueError(
                f'dilated_kernel_size {extent} differs from the extent {replaced} of '
                'the replaced conv (dilation * (kernel_size - 1) + 1) by an odd '
                "number, so no padding keeps the output's size: change it by one"
            )
        if given + (large - small) // 2 < 0:
            raise ValueError(
                f'padding {padding} is too small for dilated_kernel_size {extent}, '
                f'which is smaller than the replaced extent {replaced}'
            )
        grown.append(given + (large - small) // 2)
    return tuple(grown)
