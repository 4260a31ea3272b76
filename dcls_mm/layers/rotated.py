"""A convolution with DCLS kernels in several orientations, for equivariant networks."""

import math

import torch
from torch import Tensor, nn

from ..functional._arguments import as_bool, as_int
from .turned import TurnedElements


class RotatedDCLSConv2d(TurnedElements):
    """:class:`DCLSConv2d` in which every filter exists in several orientations.

    Output channel ``f * orientations + k`` is filter ``f`` with its elements turned by
    ``k * 360 / orientations`` degrees. So the layer is equivariant: if the input turns
    by such an angle, the output turns too, and its channels move on by as many
    orientations. With four of them,

        layer(rot90(x)) = rot90(layer(x) with f * 4 + k moved to f * 4 + k + 1).

    This is exact for multiples of 90 degrees, with stride 1 and the same padding on all
    sides. For other angles an error remains, as pixels lie on a grid.

    What such a layer returns has orientations. A layer that reads it needs
    ``input_orientations``: it then sees them relative to its own. A depthwise layer
    (groups = in_channels = out_channels) does in any case. A network is equivariant if
    its other layers treat all orientations alike, as activations do, and 1x1
    convolutions that are layers of this class.

    ``weight`` and ``P`` belong to the filters, (out // orientations, in // groups,
    count) and (2, *weight's shape), and so does ``bias``, (out // orientations,). As
    the angles are fixed, the layer folds into a plain convolution.

    Args:
        arguments: those of :class:`DCLSConv2d`.
        orientations: number of angles. It divides the number of outputs in each group,
            or that of all outputs if the layer is depthwise.
        input_orientations: 1, or ``orientations`` if the input's channels have these.
        options: keyword arguments of :class:`DCLSConv2d`, except ``local_size``,
            ``branch_norms`` and ``per_output_positions``. The extent is odd and square,
            and positions stay in the disc inside it.

    Raises:
        ValueError, TypeError: an argument doesn't fit; the message names it.

    Example:
        >>> import torch
        >>> from dcls_mm import RotatedDCLSConv2d
        >>> layer = RotatedDCLSConv2d(3, 8, 3, padding=1, dilated_kernel_size=9)
        >>> x = torch.randn(1, 3, 20, 30)
        >>> moved = layer(x).unflatten(1, (2, 4)).roll(1, dims=2).flatten(1, 2)
        >>> expected = torch.rot90(moved, dims=(2, 3))
        >>> torch.allclose(layer(torch.rot90(x, dims=(2, 3))), expected, atol=1e-5)
        True

    Source: group convolutions (arXiv 1602.07576), here with learned positions.
    """

    ties_bias = True
    turns: Tensor

    def __init__(
        self,
        *arguments,
        orientations: int = 4,
        input_orientations: int = 1,
        **options,
    ):
        # Before the parameters, whose shapes depend on them.
        self.orientations = as_int('orientations', orientations, minimum=1)
        self.input_orientations = as_int(
            'input_orientations', input_orientations, minimum=1
        )
        super().__init__(*arguments, **options)

    @property
    def is_depthwise(self) -> bool:
        """Whether each output reads one input channel of its own."""
        return self.groups == self.in_channels == self.out_channels

    @property
    def element_shape(self) -> tuple[int, ...]:
        """The shape of weight: (out // orientations, in // groups, count)."""
        filters = self.out_channels // self.orientations
        return filters, self.in_channels // self.groups, self.kernel_count

    def register_bias(self, bias: bool, device=None, dtype=None) -> None:
        """Create the parameter ``bias``, (out // orientations,), or None."""
        parameter = None
        if as_bool('bias', bias):
            filters = self.out_channels // self.orientations
            parameter = nn.Parameter(torch.empty(filters, device=device, dtype=dtype))
        self.register_parameter('bias', parameter)

    def reset_parameters(self) -> None:
        """Set the initial values, and the cosines and sines of the orientations."""
        super().reset_parameters()
        count, like = self.orientations, self.weight
        angles = [2 * math.pi * k / count for k in range(count)]
        # Rounded, so that multiples of 90 degrees are exact.
        rows = [[round(f(angle), 15) for angle in angles] for f in (math.cos, math.sin)]
        turns = torch.tensor(rows, dtype=like.dtype, device=like.device)
        self.register_buffer('turns', turns, persistent=False)

    def kernel_bias(self) -> Tensor | None:
        """See the base class."""
        if self.bias is None:
            return None
        return self.bias.repeat_interleave(self.orientations)

    def elements(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the elements of all orientations; see the base class.

        With ``integer_positions`` they are rounded before and after they are turned.
        """
        weight, positions, sigma = super().elements()
        weight, positions = self._oriented(weight), self._oriented(positions)
        sigma = None if sigma is None else self._oriented(sigma)
        turns = self.turns.repeat(1, len(weight) // self.orientations)
        positions, sigma = self._turn(positions, sigma, *turns[:, :, None, None])
        return weight, positions, sigma

    def _oriented(self, values: Tensor) -> Tensor:
        """Return (..., filters, in // groups, count) with a filter per orientation.

        For orientation ``k`` the input's orientations ``l`` become ``l - k``.
        """
        count = self.orientations
        if self.input_orientations == 1 or self.is_depthwise:
            return values.repeat_interleave(count, dim=-3)
        values = values.unflatten(-2, (-1, count))
        copies = [values.roll(k, -2) for k in range(count)]
        return torch.stack(copies, dim=-4).flatten(-3, -2).flatten(-4, -3)

    def _check_choices(self, learn_sigma: bool) -> None:
        super()._check_choices(learn_sigma)
        outputs = self.out_channels
        if not self.is_depthwise:
            outputs //= self.groups
        if outputs % self.orientations:
            raise ValueError(
                f'orientations must divide the {outputs} outputs'
                f'{"" if self.is_depthwise else " of a group"}, got {self.orientations}'
            )
        if self.input_orientations == 1:
            return
        if self.input_orientations != self.orientations:
            raise ValueError(
                f'input_orientations must be 1 or as many as orientations '
                f'({self.orientations}), got {self.input_orientations}'
            )
        inputs = self.in_channels // self.groups
        if not self.is_depthwise and inputs % self.orientations:
            raise ValueError(
                f'input_orientations must divide the {inputs} inputs of a group, got '
                f'{self.input_orientations}'
            )

    def extra_repr(self) -> str:
        text = f'{super().extra_repr()}, orientations={self.orientations}'
        if self.input_orientations > 1:
            text += f', input_orientations={self.input_orientations}'
        return text
