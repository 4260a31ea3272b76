"""How far apart the positions of a layer are used, against how they were learned."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..functional._arguments import as_float
from ..functional.interpolation import GAUSS_BASE_WIDTH, MAX_BASE_WIDTH
from .base import ConstructedConvNd

Spacings = float | Sequence[float]

# Interpolation -> the width of an element at sigma 0, in pixels.
BASE_WIDTHS = {'max': MAX_BASE_WIDTH, 'gauss': GAUSS_BASE_WIDTH}


class Spacing(ConstructedConvNd):
    """The part of :class:`.dcls.DCLSConvNd` that multiplies positions by ``spacing``.

    ``P``, ``SIG``, ``extent`` and ``padding`` stay as they were learned, so that a
    state_dict fits whatever the spacing. What the layer computes with is derived from
    them: :meth:`spaced`, :attr:`kernel_extent` and :attr:`kernel_padding`.
    """

    # False where another package's layer must compute as there.
    accepts_spacing = True

    # One factor per axis, or None if all are 1.
    _spacing: tuple[float, ...] | None = None

    padding: Any
    interpolation: str
    dense_axes: list[int]

    @property
    def spacing(self) -> tuple[float, ...]:
        """The factor of the positions along each axis; assign a number or a tuple.

        Raises:
            ValueError, TypeError: when assigned something else than a positive number
                or one for each axis, or another one than 1 for a dense axis.
        """
        return self._spacing or (1.0,) * self.ndim

    @spacing.setter
    def spacing(self, spacing: Spacings) -> None:
        factors = self._factors(spacing)
        changed = any(factor != 1 for factor in factors)
        if changed and not self.accepts_spacing:
            raise ValueError(
                f'spacing must be 1 in a {type(self).__name__}, which computes as the '
                f'published layer: use a DCLSConv{self.ndim}d, got {spacing!r}'
            )
        self._spacing = factors if changed else None

    def _factors(self, spacing: Spacings) -> tuple[float, ...]:
        """Return a spacing as one factor per axis, or raise an error."""
        if isinstance(spacing, Sequence) and not isinstance(spacing, (str, bytes)):
            factors = tuple(as_float('spacing', factor) for factor in spacing)
            if len(factors) != self.ndim:
                raise ValueError(
                    f'spacing must be one number or {self.ndim} of them, one per axis, '
                    f'got {spacing!r}'
                )
            dense = [axis for axis in self.dense_axes if factors[axis] != 1]
            if dense:
                raise ValueError(
                    f'spacing must be 1 along axis {dense[0]}, which is dense, got '
                    f'{spacing!r}'
                )
        else:
            factor = as_float('spacing', spacing)  # type: ignore[arg-type]
            factors = tuple(
                1.0 if axis in self.dense_axes else factor for axis in range(self.ndim)
            )
        if min(factors) <= 0:  # one axis at least has positions
            raise ValueError(f'spacing must be positive, got {spacing!r}')
        return factors

    def spaced(
        self, positions: Tensor, sigma: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Return positions and sigma in the pixels of the input, as they are used.

        The widths of 'max' and 'gauss' are multiplied too, with what sigma is added to:
        on images enlarged by 2 that was closer to the enlarged output than with only
        sigma multiplied, or neither, whatever sigma was. They get no narrower than at
        sigma 0. Elements of 'bilinear' and 'triangle' stay a pixel wide.

        Args:
            positions, sigma: (learned axes, ...), in the order of the spatial axes.
        """
        if self._spacing is None:
            return positions, sigma
        learned = [f for i, f in enumerate(self._spacing) if i not in self.dense_axes]
        positions = times(positions, learned)
        base = BASE_WIDTHS.get(self.interpolation)
        if sigma is not None and base is not None:
            sigma = (times(base + sigma.abs(), learned) - base).clamp(min=0)
        return positions, sigma

    @property
    def kernel_extent(self) -> tuple[int, ...]:
        """The taps of the kernel that is used, one int per axis.

        They differ from ``extent`` by the same number on both sides, so that they hold
        every position in the learned extent, and the padding can make up for them.
        """
        if self._spacing is None:
            return self.extent
        return tuple(n + 2 * more for n, more in zip(self.extent, self._growth()))

    @property
    def kernel_padding(self) -> tuple[int, ...] | str:
        """The padding with which :attr:`kernel_extent` keeps the output's size."""
        if self._spacing is None or self.padding == 'same':
            return self.padding
        padding = (0,) * self.ndim if self.padding == 'valid' else self.padding
        return tuple(n + more for n, more in zip(padding, self._growth()))

    def _growth(self) -> list[int]:
        """Return how many taps are added on each side of each axis.

        It is negative where they become fewer; never by more than the padding.
        """
        growth = []
        for axis, (size, factor) in enumerate(zip(self.extent, self.spacing)):
            sides = size // 2, size - 1 - size // 2  # taps before and after the centre
            more = max(math.ceil(factor * side) - side for side in sides)
            if self.padding != 'same':
                most = 0 if self.padding == 'valid' else self.padding[axis]
                more = max(more, -most)
            growth.append(more)
        return growth


def times(rows: Tensor, factors: Sequence[float]) -> Tensor:
    """Return each row times its factor, without a copy from the host."""
    if len({*factors}) == 1:
        return rows * factors[0]
    return torch.stack([row * factor for row, factor in zip(rows, factors)])
