"""The layer of the first releases of the `dcls` package, from 2021 and 2022."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ...functional import construct_kernel, sampled_convolution
from ...functional._arguments import IntOrTuple, as_float, as_tuple, check_choice
from ..base import ConstructedConvNd
from ..geometry import extent_of

# The two that were published.
FORMULATIONS = ('construct', 'sample')


def regular_taps(
    kernel_size: Iterable[int], dilation: Iterable[int], device=None
) -> Tensor:
    """Return the taps of a dilated convolution, counted from the first, (2, kh, kw)."""
    axes = [
        step * torch.arange(size, device=device)
        for size, step in zip(kernel_size, dilation)
    ]
    return torch.stack(torch.meshgrid(*axes, indexing='ij'))


def position_scale(positions: Tensor, gain: float) -> float:
    """Return the pixels per unit of P: ``gain * sqrt(numbers in a row of P)``.

    Raises:
        ValueError, TypeError: ``gain`` is not a positive number.
    """
    if not as_float('gain', gain) > 0:
        raise ValueError(f'gain must be a positive number, got {gain!r}')
    return gain * math.sqrt(positions[0].numel())


def pixel_positions(
    positions: Tensor, dilation: tuple[int, ...], gain: float
) -> Tensor:
    """Compute the positions of a :class:`LegacyDcls2d`'s elements in pixels.

    Args:
        positions: the parameter P, (2, ..., kh, kw).
        dilation, gain: the layer's arguments.

    Returns:
        Pixels from the kernel's centre, tap ``extent // 2``, in the shape of
        ``positions`` and at least float32.
    """
    taps = regular_taps(positions.shape[-2:], dilation, positions.device)
    taps = taps.view(2, *[1] * (positions.ndim - 3), *positions.shape[-2:])
    dtype = torch.promote_types(positions.dtype, torch.float32)
    moved = taps + positions.to(dtype) * position_scale(positions, gain)
    rows = []
    for row, count, step in zip(moved, positions.shape[-2:], dilation):
        last = step * (count - 1)
        # Elements on the border learn; since torch 2.15 clamp has no gradient there.
        beyond = (row < 0) | (row > last)
        row = torch.where(beyond, row.detach().clamp(0, last), row)
        rows.append(row - (last + 1) // 2)
    return torch.stack(rows)


class LegacyDcls2d(ConstructedConvNd):
    """A dilated 2-d convolution whose elements learn to leave their grid.

    ``from dcls_mm.layers.dropin import LegacyDcls2d as Dcls2d`` ports code such as
    ``Dcls2d(16, 33, 3, dilation=4, stride=2, gain=10)``. Element (i, j) is at tap
    ``clamp((i, j) * dilation + P * scale, 0, extent - 1)``, interpolated bilinearly,
    with ``scale = gain * sqrt(kh * kw * (in // groups) * out)``. The 'sample'
    formulation has no ``out`` in the scale. P = 0 is the ordinary dilated convolution.
    P[0] is along the rows, P[1] along the columns. A position beyond the extent has no
    gradient.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups:
            as in torch.nn.Conv2d.
        bias, padding_mode: as in torch.nn.Conv2d.
        gain: how fast the positions move, greater than 0.
        formulation: 'construct' builds the kernel; 'sample' (the im2col method) samples
            the input at positions that all outputs and groups share.

    The parameters are weight (out, in // groups, kh, kw), P (2, out, in // groups, kh,
    kw), or (2, in // groups, kh, kw) for 'sample', and bias (out,).

    Raises:
        ValueError, TypeError: an argument is invalid; the message names it.

    Source: arXiv 2112.03740.
    """

    ndim = 2

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntOrTuple,
        stride: IntOrTuple = 1,
        padding: IntOrTuple | str = 0,
        dilation: IntOrTuple = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = 'zeros',
        gain: float = 1.0,
        *,
        formulation: str = 'construct',
    ):
        kernel_size = as_tuple('kernel_size', kernel_size, self.ndim, minimum=1)
        dilation = as_tuple('dilation', dilation, self.ndim, minimum=1)
        check_choice('formulation', formulation, FORMULATIONS)
        super().__init__(
            in_channels,
            out_channels,
            extent_of(kernel_size, dilation),
            kernel_size=kernel_size,
            dilation=dilation,
            stride=stride,
            padding=padding,
            groups=groups,
            padding_mode=padding_mode,
            backend=None,
        )
        self.gain = gain
        self.formulation = formulation
        shape = (*self.kernel_channels, *kernel_size)
        self.weight = nn.Parameter(torch.empty(shape))
        placed = shape if formulation == 'construct' else shape[1:]
        self.P = nn.Parameter(torch.empty(2, *placed))
        self.register_bias(bias)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Reset weight and bias as in torch.nn.Conv2d, and the positions.

        These are normal around their taps, with a std of half a dilation.
        """
        super().reset_parameters()
        scale = position_scale(self.P, self.gain)
        for row, step in zip(self.P, self.dilation):
            nn.init.normal_(row, std=step / 2 / scale)

    def elements(self) -> tuple[Tensor, Tensor]:
        """Return the weight and, in pixels from the kernel's centre, the positions.

        Their shapes are (out, in // groups, count) and (2, [out,] in // groups, count).
        """
        positions = pixel_positions(self.P, self.dilation, self.gain)
        return self.weight.flatten(2), positions.flatten(-2)

    def kernel(self) -> Tensor:
        """Construct the kernel, (out, in // groups, *extent)."""
        weight, positions = self.elements()
        if self.formulation == 'sample':
            positions = positions.unsqueeze(1)
        return construct_kernel(weight, positions, kernel_size=self.extent)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, in, h, w) to (batch, out, out_h, out_w), as torch.nn.Conv2d."""
        if self.formulation == 'construct':
            return super().forward(x)
        return sampled_convolution(
            x,
            *self.elements(),
            self.bias,
            kernel_size=self.extent,
            stride=self.stride,
            padding=self.padding,
            groups=self.groups,
            padding_mode=self.padding_mode,
        )

    def extra_repr(self) -> str:
        text = f'{super().extra_repr()}, gain={self.gain}'
        if self.formulation != 'construct':
            text += f', formulation={self.formulation!r}'
        return text
