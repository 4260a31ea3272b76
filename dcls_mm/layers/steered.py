"""A convolution whose DCLS kernels each image turns its own way."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..functional._arguments import as_int
from ..functional.convolution import check_input, convolve_checked
from ..functional.interpolation import interpolation_name
from ..functional.scatter import construct_checked
from ..functional.sparse_kernel import SparseKernel
from .turned import TurnedElements

# How much of the longest possible vector halves, roughly, the length of a direction.
UNSURE = 0.01

# Added to squares of lengths, so that a constant image has finite gradients.
LEAST = 1e-24


class SteeredDCLSConv2d(TurnedElements):
    """:class:`DCLSConv2d` whose elements turn with the image.

    The layer sees in which direction the image points, and turns its kernels there. So
    if the input turns, the output turns with it, channel by channel:

        layer(rot90(x)) = rot90(layer(x)),

    exactly for multiples of 90 degrees, with stride 1 and the same padding on all
    sides; for other angles an error remains, as pixels lie on a grid.

    A direction is a vector that turns with the image: the mean over all pixels of
    relu(u) * gradient(w), where u and w are two learned mixtures of the channels. Its
    length says how clear the direction is. Where there is none, the elements move to
    the kernel's centre.

    The kernel differs from image to image, so it can't be folded. An image that is
    padded in a batch may show another direction than alone. The parameters are
    those of :class:`DCLSConv2d` and ``mixtures``, (2 * directions, in), first those of
    u.

    Args:
        arguments: those of :class:`DCLSConv2d`.
        directions: number of directions that the layer sees; each turns an equal part
            of the output channels, one part after the other.
        options: keyword arguments of :class:`DCLSConv2d`, except ``local_size``,
            ``branch_norms``, ``per_output_positions`` and the formulation 'sample'. The
            extent is odd and square, and positions stay in the disc inside it.

    Raises:
        ValueError, TypeError: an argument doesn't fit; the message names it.

    Example:
        >>> import torch
        >>> from dcls_mm import SteeredDCLSConv2d
        >>> layer = SteeredDCLSConv2d(
        ...     8, 8, 3, padding=1, groups=8, dilated_kernel_size=9
        ... )
        >>> x = torch.randn(2, 8, 20, 30)
        >>> expected = torch.rot90(layer(x), dims=(2, 3))
        >>> torch.allclose(layer(torch.rot90(x, dims=(2, 3))), expected, atol=1e-5)
        True
    """

    kernel_depends_on_input = True

    def __init__(self, *arguments, directions: int = 1, **options):
        self.directions = as_int('directions', directions, minimum=1)
        super().__init__(*arguments, **options)

    def register_bias(self, bias: bool, device=None, dtype=None) -> None:
        """Create the parameters ``mixtures`` and then ``bias``."""
        shape = 2 * self.directions, self.in_channels
        self.mixtures = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        super().register_bias(bias, device, dtype)

    def reset_parameters(self) -> None:
        """Set the initial values, see the base classes; mixtures are random."""
        super().reset_parameters()
        nn.init.normal_(self.mixtures, std=self.in_channels**-0.5)

    def image_directions(self, x: Tensor) -> Tensor:
        """Return the directions of images (batch, in, height, width).

        Returns:
            (2, batch, directions), of length 0 to 1: cosine and sine of the angle from
            the rows' axis, times how clear the direction is.

        Raises:
            ValueError: an image has fewer than 3 pixels along an axis.
        """
        if min(x.shape[2:]) < 3:
            raise ValueError(
                'the input must have at least 3x3 pixels, which a gradient needs, got '
                f'{tuple(x.shape)}'
            )
        mixed = F.conv2d(x, self.mixtures[:, :, None, None].to(x.dtype))
        mixed = mixed.to(torch.promote_types(mixed.dtype, torch.float32))
        u, w = mixed.chunk(2, dim=1)
        u = u[..., 1:-1, 1:-1].relu()
        slopes = torch.stack(
            [
                w[..., 2:, 1:-1] - w[..., :-2, 1:-1],
                w[..., 1:-1, 2:] - w[..., 1:-1, :-2],
            ]
        )
        vectors = (u * slopes).mean((3, 4))
        # No vector is longer than that, by the inequality of Cauchy and Schwarz.
        longest = u.square().mean((2, 3)) * slopes.square().sum(0).mean((2, 3))
        length = vectors.square().sum(0) + UNSURE**2 * longest + LEAST
        return vectors * length.rsqrt()

    def forward(self, x: Tensor) -> Tensor:
        """Convolve ``x``, (batch, in, height, width), to (batch, out, *out_size)."""
        check_input(x, self.ndim, self.in_channels)
        if x.ndim == 3:
            return self(x.unsqueeze(0)).squeeze(0)
        # All images become one with as many groups more; no image gets any kernel.
        images = len(x)
        copies = max(images, 1)
        directions = (
            self.image_directions(x)
            if images
            else self.P.new_zeros(2, 1, self.directions)
        )
        kernel = self._kernels(directions)
        bias = self.kernel_bias()
        y = convolve_checked(
            x.reshape(min(images, 1), copies * self.in_channels, *x.shape[2:]),
            kernel,
            None if bias is None else bias.repeat(copies),
            self.stride,
            self.padding_sides(kernel),
            copies * self.groups,
            self.padding_mode,
            'direct' if self.formulation == 'direct' else self.backend,
        )
        return y.view(images, self.out_channels, *y.shape[2:])

    def _kernels(self, directions: Tensor) -> Tensor | SparseKernel:
        """Return the kernels of images one after the other, (batch * out, ...)."""
        images = directions.shape[1]
        weight, positions, sigma = self.elements()
        weight = weight.repeat(images, 1, 1)
        positions = positions.repeat(1, images, 1, 1)
        sigma = None if sigma is None else sigma.repeat(1, images, 1, 1)
        part = self.out_channels // self.directions
        turns = directions.to(positions.dtype).repeat_interleave(part, dim=2).flatten(1)
        positions, sigma = self._turn(positions, sigma, *turns[:, :, None, None])
        name = interpolation_name(self.interpolation)
        extent = self.kernel_extent

        def dense() -> Tensor:
            return construct_checked(
                weight, positions, sigma, extent, name, self.backend
            )

        if self.formulation == 'construct' or self._reason_against_direct() is not None:
            return dense()
        return self._sparse(weight, positions, extent, dense)

    def _check_choices(self, learn_sigma: bool) -> None:
        super()._check_choices(learn_sigma)
        if self.formulation == 'sample':
            raise ValueError(
                f"formulation must not be 'sample' in a {type(self).__name__}, got "
                "'sample'"
            )
        if self.out_channels % self.directions:
            raise ValueError(
                f'directions must divide the {self.out_channels} output channels, got '
                f'{self.directions}'
            )

    def kernel(self) -> Tensor:
        """Raise a NotImplementedError: each image has its own kernel."""
        raise NotImplementedError(
            f'a {type(self).__name__} turns its kernel with each image, so it has none '
            'of its own'
        )

    def extra_repr(self) -> str:
        return f'{super().extra_repr()}, directions={self.directions}'
