"""Modules for transposed convolution with learnable spacings, for upsampling."""

from torch import Tensor

from ..functional import convolve_transposed
from ..functional._arguments import IntOrTuple, as_int, as_tuple
from ..functional.convolution import check_input, check_output_padding
from .dcls import DCLSConvNd


class DCLSConvTransposeNd(DCLSConvNd):
    """The transpose of :class:`DCLSConvNd`, which replaces a torch.nn.ConvTransposeNd.

    The parameters are those of :class:`DCLSConvNd`, with weight (in, out // groups,
    [dense taps,] count) and P and SIG accordingly.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, output_padding:
            those of the replaced torch.nn.ConvTransposeNd.
        groups, bias, dilation, padding_mode, device, dtype: the same.
        options: the keyword arguments of :class:`DCLSConvNd`, except that the outputs
            can't share positions, the formulation is 'construct', there is only one
            backend, and a local branch has no norms.

    Raises:
        ValueError, TypeError: an argument doesn't fit; the message names it.

    Example:
        >>> import torch
        >>> from dcls_mm import DCLSConvTranspose2d
        >>> layer = DCLSConvTranspose2d(
        ...     8, 4, 4, stride=2, padding=1, dilated_kernel_size=8
        ... )
        >>> layer(torch.randn(1, 8, 16, 16)).shape
        torch.Size([1, 4, 32, 32])
    """

    transposed = True
    padding: tuple[int, ...]
    CONV_ARGUMENTS = (*DCLSConvNd.CONV_ARGUMENTS, 'output_padding')

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntOrTuple | None = None,
        stride: IntOrTuple = 1,
        padding: IntOrTuple = 0,
        output_padding: IntOrTuple = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: IntOrTuple = 1,
        padding_mode: str = 'zeros',
        device=None,
        dtype=None,
        **options,
    ):
        for name, *allowed in (
            ('per_output_positions', True),
            ('formulation', 'auto', 'construct'),
            ('backend', None),
            ('branch_norms', False),
        ):
            if options.get(name, allowed[0]) not in allowed:
                raise ValueError(
                    f'{name} must be {allowed[-1]!r} in a transposed convolution, '
                    f'got {options[name]!r}'
                )
        if padding_mode != 'zeros':
            raise ValueError(
                "padding_mode must be 'zeros' in a transposed convolution, "
                f'got {padding_mode!r}'
            )
        padding = as_tuple('padding', padding, self.ndim, minimum=0)
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            padding_mode,
            device,
            dtype,
            **options,
        )
        self.output_padding = as_tuple(
            'output_padding', output_padding, self.ndim, minimum=0
        )
        check_output_padding(self.output_padding, self.stride)

    def forward(self, x: Tensor, output_size: IntOrTuple | None = None):
        """Convolve ``x``, (batch, in, *size), to (batch, out, *out_size).

        Args:
            x: the input.
            output_size: the wanted out_size, which replaces ``output_padding``: one
                int, one per axis, or the shape of the whole output.

        Raises:
            ValueError: an output padding below the stride can't give ``output_size``.
        """
        check_input(x, self.ndim, self.in_channels)
        output_padding = self.output_padding
        if output_size is not None:
            if not isinstance(output_size, (list, tuple)):
                output_size = (output_size,) * self.ndim
            wanted = [as_int('output_size', n, 1) for n in output_size[-self.ndim :]]
            output_padding = self._padding_for(x, tuple(wanted))
        return convolve_transposed(
            x,
            self._current_kernel(),
            self.bias,
            stride=self.stride,
            padding=self.kernel_padding,  # type: ignore[arg-type]  # never a string
            output_padding=output_padding,
            groups=self.groups,
        )

    def _padding_for(self, x: Tensor, output_size: tuple[int, ...]) -> tuple[int, ...]:
        smallest = [
            (size - 1) * step - 2 * padding + extent
            for size, step, padding, extent in zip(
                x.shape[-self.ndim :], self.stride, self.padding, self.extent
            )
        ]
        more = tuple(w - s for w, s in zip(output_size, smallest))
        if len(more) != self.ndim or any(
            not 0 <= m < step for m, step in zip(more, self.stride)
        ):
            largest = [s + step - 1 for s, step in zip(smallest, self.stride)]
            raise ValueError(
                f'output_size must be from {smallest} to {largest} for an input of '
                f'{tuple(x.shape)}, got {output_size}'
            )
        return more

    def extra_repr(self) -> str:
        text = super().extra_repr()
        if any(self.output_padding):
            text += f', output_padding={self.output_padding}'
        return text


class DCLSConvTranspose1d(DCLSConvTransposeNd):
    """:class:`DCLSConvTransposeNd` over (batch, channels, length)."""

    ndim = 1


class DCLSConvTranspose2d(DCLSConvTransposeNd):
    """:class:`DCLSConvTransposeNd` over (batch, channels, height, width)."""

    ndim = 2


class DCLSConvTranspose3d(DCLSConvTransposeNd):
    """:class:`DCLSConvTransposeNd` over (batch, channels, depth, height, width)."""

    ndim = 3
