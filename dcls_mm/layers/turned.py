"""What layers share whose elements are turned about the kernel's centre.

Turning the taps of a plain kernel needs interpolation. Positions are simply turned, and
the interpolation that DCLS has anyway puts them on the taps. Turning by 90 degrees maps
the taps onto each other, so there it is exact.
"""

import torch
from torch import Tensor

from .dcls import DCLSConv2d
from .spacing import BASE_WIDTHS, Spacings


def turned(positions: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Turn positions (2, ...), in pixels, about the kernel's centre.

    By 90 degrees they turn as :func:`torch.rot90` turns (height, width). ``cosines``
    and ``sines`` broadcast against one row of the positions.
    """
    rows, columns = positions.unbind()
    return torch.stack(
        [rows * cosines - columns * sines, rows * sines + columns * cosines]
    )


class TurnedElements(DCLSConv2d):
    """The base of layers that turn their elements.

    The extent is square and odd, so that it has a centre to turn about, and elements
    stay in the disc inside it, so that none leaves it.
    """

    adaptable = False
    accepts_plain_kernels = False

    def __init__(self, *arguments, **options):
        for name in ('local_size', 'branch_norms'):
            if options.get(name):
                raise ValueError(
                    f'{name} must be left out in a {type(self).__name__}: a dense '
                    'kernel can only be turned by multiples of 90 degrees, got '
                    f'{options[name]!r}'
                )
        super().__init__(*arguments, **options)

    @classmethod
    def from_conv(cls, conv, **options):
        """Raise a TypeError, as no plain convolution computes the same."""
        raise TypeError(
            f'a {cls.__name__} turns its kernel, so it computes nothing that a '
            f'{type(conv).__name__} does: build it by its constructor, or in '
            "replace_convs with start='fresh'"
        )

    def reset_parameters(self) -> None:
        """Set the initial values; 'uniform' and 'even' cover the disc."""
        super().reset_parameters()
        if self.initial_positions in ('uniform', 'even'):
            self._shrink_square()
        self.clamp_positions()

    @torch.no_grad()
    def clamp_positions(self) -> None:
        """Move positions beyond the disc inside the extent onto its border."""
        self.P.copy_(in_disc(self.P, self.extent[0] // 2))

    @torch.no_grad()
    def _shrink_square(self) -> None:
        """Map the square of the extent onto the disc inside it."""
        radius = max(self.extent[0] // 2, 1)
        rows, columns = (self.P / radius).unbind()
        self.P[0] = radius * rows * (1 - columns.square() / 2).sqrt()
        self.P[1] = radius * columns * (1 - rows.square() / 2).sqrt()

    def _turn(
        self, positions: Tensor, sigma: Tensor | None, cosines: Tensor, sines: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Turn positions and sigma (2, ...) as :meth:`elements` returns them.

        Of widths that differ between the axes, the variances are turned; what couples
        the axes then is left out. That is exact at multiples of 90 degrees. A direction
        shorter than 1 (cosines, sines) draws positions to the centre, and widths to
        their mean.
        """
        positions = in_disc(positions, self.spacing[0] * (self.extent[0] // 2))
        positions = turned(positions, cosines, sines)
        if self.integer_positions and not self.training:
            positions = positions.round()
        if sigma is None:
            return positions, None
        base = BASE_WIDTHS[self.interpolation]
        rows, columns = (base + sigma.abs()).square().unbind()
        cosines, sines = cosines.square(), sines.square()
        mean = (1 - cosines - sines).clamp(min=0) * (rows + columns) / 2
        widths = torch.stack(
            [
                rows * cosines + columns * sines + mean,
                rows * sines + columns * cosines + mean,
            ]
        )
        return positions, (widths.sqrt() - base).clamp(min=0)

    def _factors(self, spacing: Spacings) -> tuple[float, ...]:
        factors = super()._factors(spacing)
        if factors[0] != factors[1]:
            raise ValueError(
                f'spacing must be the same along both axes in a {type(self).__name__}, '
                f'got {spacing!r}'
            )
        return factors

    def _check_choices(self, learn_sigma: bool) -> None:
        super()._check_choices(learn_sigma)
        if self.dense_axes:
            raise ValueError(
                f'position_axes must be (0, 1) or (1, 0) in a {type(self).__name__}, '
                f'got {self.position_axes}'
            )
        if not self.per_output_positions:
            raise ValueError(
                f'per_output_positions must be True in a {type(self).__name__}, whose '
                'outputs are turned one by one, got False'
            )
        height, width = self.extent
        if height != width or height % 2 == 0:
            raise ValueError(
                'dilated_kernel_size must be one odd number, so that the kernel has a '
                f'centre to turn about, got {self.extent}'
            )


def in_disc(positions: Tensor, radius: float) -> Tensor:
    """Return positions (2, ...), those beyond the radius moved back to it."""
    square = positions.square().sum(0)
    beyond = square > radius * radius
    scale = radius * torch.where(beyond, square, 1.0).rsqrt()
    return torch.where(beyond, positions * scale, positions)
