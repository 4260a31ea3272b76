"""The layers of the published `dcls` package, by its names and with its arguments.

``from dcls_mm.layers.dropin import Dcls2d`` in the place of ``from
DCLS.construct.modules import Dcls2d`` ports code, and the state_dicts of its layers.
"""

from typing import Optional, Union

from torch import Tensor

from ..functional import construct_kernel
from ..functional._arguments import IntOrTuple, as_tuple
from ..functional.interpolation import interpolation_name
from .dcls import DCLSConv1d, DCLSConv2d, DCLSConv3d, DCLSConvNd
from .geometry import published_axes
from .legacy import LegacyDcls2d

__all__ = [
    'Dcls1d',
    'Dcls2_1d',
    'Dcls2d',
    'Dcls2dK1d',
    'Dcls3_1d',
    'Dcls3d',
    'LegacyDcls2d',
    'VERSIONS',
    'published_shifts',
]

# The published names of the interpolations.
VERSIONS = ('v0', 'v1', 'max', 'gauss')


def published_shifts(interpolation: str, extent: tuple[int, ...]) -> tuple[int, ...]:
    """How far the published package sets each row of P past its axis' centre.

    It centres row i by the extent of axis i, also where the row belongs to another
    axis, so that on rectangles an element at 0 is not in the kernel's centre. In
    pixels; for layers that learn along all axes.
    """
    axes = published_axes(interpolation, len(extent))
    return tuple(size // 2 - extent[axis] // 2 for size, axis in zip(extent, axes))


class PublishedLayer(DCLSConvNd):
    """The published arguments, parameters and row order on :class:`.dcls.DCLSConvNd`.

    The outputs and gradients are the published ones, but where those are wrong: here
    every row of P counts from the centre of its own axis, the positions are clamped to
    the last tap also of an even extent, and ``Dcls2_1d`` has the width of 'gauss'. A
    published state_dict that depends on the first or the last is not loaded, as it
    would compute something else: convert it with ``dcls_mm.conversion.from_published``.

    Args:
        in_channels, out_channels, stride, groups, bias, padding_mode: as in
            torch.nn.ConvNd.
        kernel_count: number of elements.
        padding: as in torch.nn.ConvNd, of the dilated kernel.
        dilated_kernel_size: extent in pixels, an int or one an axis.
        version: 'v0' (bilinear), 'v1' (triangle), 'max' or 'gauss'.
        position_axes, initial_positions, backend: as in DCLSConvNd; not published.

    Raises:
        ValueError, TypeError: an argument that doesn't fit, by its name.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_count: int,
        stride: IntOrTuple = 1,
        padding: Union[IntOrTuple, str] = 0,
        dilated_kernel_size: IntOrTuple = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = 'zeros',
        version: str = 'gauss',
        *,
        position_axes: Optional[tuple[int, ...]] = None,
        initial_positions: str = 'normal',
        backend: Optional[str] = None,
    ):
        if version not in VERSIONS:
            raise ValueError(
                f'version must be one of {list(VERSIONS)}, got {version!r}'
            )
        if position_axes is None:
            position_axes = published_axes(interpolation_name(version), self.ndim)
        super().__init__(
            in_channels,
            out_channels,
            stride=stride,
            padding=padding,
            groups=groups,
            bias=bias,
            padding_mode=padding_mode,
            kernel_count=kernel_count,
            dilated_kernel_size=as_tuple(
                'dilated_kernel_size', dilated_kernel_size, self.ndim, minimum=1
            ),
            interpolation=version,
            position_axes=position_axes,
            initial_positions=initial_positions,
            backend=backend,
        )
        self.version = version

    @classmethod
    def from_conv(cls, conv, **options):
        raise TypeError(
            f'{cls.__name__} has the arguments of the dcls package and not those of '
            f'a convolution: use DCLSConv{cls.ndim}d.from_conv'
        )

    @property
    def dilated_kernel_size(self) -> tuple[int, ...]:
        """The extent in pixels along the learned axes."""
        return tuple(self.extent[axis] for axis in self.learned_axes)

    def clamp_parameters(self) -> None:
        """The published name of :meth:`clamp_positions`."""
        self.clamp_positions()

    def _computes_as_published(self) -> bool:
        return not any(published_shifts(self.interpolation, self.dilated_kernel_size))

    def _load_from_state_dict(
        self, state_dict, prefix, local_metadata, strict, missing, unexpected, errors
    ) -> None:
        published = (
            f'{prefix}P' in state_dict
            and local_metadata.get('version') == 1
            and 'position_axes' not in local_metadata
        )
        if published and not self._computes_as_published():
            errors.append(
                f'{prefix}P: the state_dict is of the published package, whose '
                f'{type(self).__name__} of version {self.version!r} and extent '
                f'{self.extent} computes something else with it; convert it with '
                f'dcls_mm.conversion.from_published for a DCLSConv{self.ndim}d'
            )
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing, unexpected, errors
        )


class Dcls1d(PublishedLayer, DCLSConv1d):
    """:class:`PublishedLayer` over (batch, channels, length)."""


class Dcls2d(PublishedLayer, DCLSConv2d):
    """:class:`PublishedLayer` over (batch, channels, height, width).

    ``use_implicit_gemm=False`` forces torch's own convolution (backend 'native'); the
    default leaves the choice to :func:`dcls_mm.functional.convolve`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_count: int,
        stride: IntOrTuple = 1,
        padding: Union[IntOrTuple, str] = 0,
        dilated_kernel_size: IntOrTuple = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = 'zeros',
        version: str = 'gauss',
        use_implicit_gemm: bool = True,
    ):
        super().__init__(
            in_channels,
            out_channels,
            kernel_count,
            stride,
            padding,
            dilated_kernel_size,
            groups,
            bias,
            padding_mode,
            version,
            backend=None if use_implicit_gemm else 'native',
        )


class Dcls3d(PublishedLayer, DCLSConv3d):
    """:class:`PublishedLayer` over (batch, channels, depth, height, width)."""


class LastAxisLayer(PublishedLayer):
    """Positions along the last axis, ``dense_kernel_size`` taps along the others.

    weight (out, in // groups, *dense_kernel_size, kernel_count), P (1, *weight's
    shape), uniform at first. Takes 'v0' too, which the published layers do not.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_count: int,
        stride: IntOrTuple = 1,
        padding: Union[IntOrTuple, str] = 0,
        dense_kernel_size: IntOrTuple = 1,
        dilated_kernel_size: IntOrTuple = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = 'zeros',
        version: str = 'gauss',
    ):
        last = self.ndim - 1
        dense = as_tuple('dense_kernel_size', dense_kernel_size, last, minimum=1)
        learned = as_tuple('dilated_kernel_size', dilated_kernel_size, 1, minimum=1)
        super().__init__(
            in_channels,
            out_channels,
            kernel_count,
            stride,
            padding,
            dense + learned,
            groups,
            bias,
            padding_mode,
            version,
            position_axes=(last,),
            initial_positions='uniform',
        )
        self.dense_kernel_size = dense


class Dcls2_1d(LastAxisLayer, DCLSConv2d):
    """:class:`LastAxisLayer` over (batch, channels, height, width).

    The published one, which is not in every release, adds 1.0 to the |SIG| of 'gauss';
    here it is 0.27, as in all other layers.
    """

    def _computes_as_published(self) -> bool:
        return self.interpolation != 'gauss'


class Dcls3_1d(LastAxisLayer, DCLSConv3d):
    """:class:`LastAxisLayer` over (batch, channels, depth, height, width)."""


class Dcls2dK1d(PublishedLayer, DCLSConv2d):
    """A flat kernel with positions along its one axis, over (batch, channels, h, w).

    weight (out, in // groups, kernel_count), P (1, *weight's shape).

    Args:
        flat_dim: 0 for a kernel of (dilated_kernel_size, 1), 1 for one of
            (1, dilated_kernel_size). This is what the published code computes; its
            README has it the other way round.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_count: int,
        stride: IntOrTuple = 1,
        padding: Union[IntOrTuple, str] = 0,
        dilated_kernel_size: IntOrTuple = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = 'zeros',
        version: str = 'v1',
        flat_dim: int = 0,
    ):
        if flat_dim not in (0, 1):
            raise ValueError(f'flat_dim must be 0 or 1, got {flat_dim!r}')
        (size,) = as_tuple('dilated_kernel_size', dilated_kernel_size, 1, minimum=1)
        super().__init__(
            in_channels,
            out_channels,
            kernel_count,
            stride,
            padding,
            (1, size) if flat_dim else (size, 1),
            groups,
            bias,
            padding_mode,
            version,
            position_axes=(int(flat_dim),),
        )
        self.flat_dim = flat_dim

    @property
    def element_shape(self) -> tuple[int, ...]:
        """The shape of weight: (*kernel_channels, count), without the flat axis."""
        return (*self.kernel_channels, self.kernel_count)

    def kernel(self) -> Tensor:
        """The constructed kernel, (out, in // groups, *extent)."""
        kernel = construct_kernel(
            *self.elements(),
            kernel_size=self.dilated_kernel_size,
            interpolation=self.interpolation,
        )
        return kernel.unsqueeze(-1 - self.flat_dim)
