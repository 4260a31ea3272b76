"""The local branch: a small dense kernel beside the elements, summed with theirs.

The sum of two convolutions is the convolution with the sum of their kernels, so the
branch costs no convolution of its own, neither in training nor when deployed.

Source: RepLKNet (arXiv 2203.06717), which trains large kernels beside small ones.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..functional._arguments import IntOrTuple, as_tuple
from .base import ConstructedConvNd


def margins(local_size: Sequence[int], extent: Sequence[int]) -> list[tuple[int, int]]:
    """Return how many taps of a kernel are (before, after) the local ones, per axis."""
    starts = [n // 2 - size // 2 for size, n in zip(local_size, extent)]
    return [
        (start, n - size - start) for start, size, n in zip(starts, local_size, extent)
    ]


def in_extent(local_weight: Tensor, extent: Sequence[int]) -> Tensor:
    """Return the kernel of a local branch with zeros around it, up to the extent."""
    pairs = margins(local_weight.shape[2:], extent)
    return F.pad(local_weight, [n for pair in reversed(pairs) for n in pair])


class LocalBranch(ConstructedConvNd):
    """The part of :class:`.dcls.DCLSConvNd` that has the local branch.

    Its kernel ``local_weight``, (*kernel_channels, *local_size), is centred on the
    centre of the layer's own, tap ``extent // 2``; it is None without a local branch.
    """

    local_size: tuple[int, ...] | None = None
    local_weight: nn.Parameter | None

    def register_local(
        self,
        local_size: IntOrTuple | None,
        dense_axes: list[int],
        device=None,
        dtype=None,
    ) -> None:
        """Create ``local_weight``; None for ``local_size`` None.

        Raises:
            ValueError, TypeError: ``local_size`` is none that the extent can hold
                around its centre.
        """
        self.local_size = self._checked_size(local_size, dense_axes)
        parameter = None
        if self.local_size is not None:
            shape = (*self.kernel_channels, *self.local_size)
            parameter = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        self.register_parameter('local_weight', parameter)

    def reset_parameters(self) -> None:
        """Set the initial values; the local branch's are those of a torch.nn.ConvNd."""
        super().reset_parameters()
        if self.local_weight is not None:
            nn.init.kaiming_uniform_(self.local_weight, a=math.sqrt(5))

    def with_local_kernel(self, kernel: Tensor) -> Tensor:
        """Return the kernel of the elements plus that of the local branch, if any."""
        if self.local_weight is None:
            return kernel
        return kernel + in_extent(self.local_weight, self.extent)

    def with_local_elements(
        self, weight: Tensor, positions: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return elements and, if there is a local branch, one on each of its taps.

        On a whole pixel an element of 'bilinear' or 'triangle' is one tap.

        Args:
            weight, positions: (out, in // groups, n) and (ndim, out or 1, in // groups,
                n), in pixels.
        """
        if self.local_weight is None:
            return weight, positions
        places = torch.cartesian_prod(
            *(
                torch.arange(-(n // 2), n - n // 2, device=positions.device)
                for n in self.local_weight.shape[2:]
            )
        ).to(positions.dtype)
        places = places.view(-1, self.ndim).T[:, None, None]
        places = places.expand(*positions.shape[:-1], -1)
        return (
            torch.cat([weight, self.local_weight.flatten(2)], -1),
            torch.cat([positions, places], -1),
        )

    def misreading(
        self, state_dict: Mapping, prefix: str, notes: Mapping[str, Any]
    ) -> str | None:
        """See the base class; compare the local branches, which must not be lost."""
        key = f'{prefix}local_weight'
        if key not in state_dict:
            return super().misreading(state_dict, prefix, notes)
        size = tuple(state_dict[key].shape[2:])
        if size == self.local_size:
            return super().misreading(state_dict, prefix, notes)
        own = 'none' if self.local_size is None else self.local_size
        return (
            f'{key}: the state_dict is of a layer with a local branch of {size}, this '
            f'one has {own}: build a DCLSConv{self.ndim}d with local_size={size}'
        )

    def _checked_size(
        self, local_size: IntOrTuple | None, dense_axes: list[int]
    ) -> tuple[int, ...] | None:
        """Return the size per axis; one int is that of the learned axes."""
        if local_size is None:
            return None
        sizes = as_tuple('local_size', local_size, self.ndim, minimum=1)
        if not isinstance(local_size, Iterable):
            sizes = tuple(
                self.extent[axis] if axis in dense_axes else size
                for axis, size in enumerate(sizes)
            )
        for axis, (size, extent) in enumerate(zip(sizes, self.extent)):
            if size > extent:
                raise ValueError(
                    f'local_size must be at most the extent, {extent} along axis '
                    f'{axis}, got {local_size}: make it smaller or dilated_kernel_size '
                    'larger'
                )
            if size % 2 == 0 and extent % 2:
                raise ValueError(
                    f'local_size must be odd to have the centre of the extent, {extent}'
                    f' along axis {axis}, got {local_size}'
                )
        return sizes
