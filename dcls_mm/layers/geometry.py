"""The extent and padding of a DCLS layer, from the arguments of the replaced conv."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ..functional._arguments import IntOrTuple, as_tuple


def extent_of(kernel_size: Sequence[int], dilation: Sequence[int]) -> tuple[int, ...]:
    """Return the extent of a dilated convolution in pixels, along each axis."""
    return tuple(step * (taps - 1) + 1 for taps, step in zip(kernel_size, dilation))


class Geometry(NamedTuple):
    """Sizes of a DCLS layer, one int per axis.

    Attributes:
        kernel_size, dilation: those of the replaced convolution.
        replaced: its extent, ``dilation * (kernel_size - 1) + 1``.
        extent: taps of the DCLS kernel.
        position_axes: the spatial axis of each row of P.
    """

    kernel_size: tuple[int, ...]
    dilation: tuple[int, ...]
    replaced: tuple[int, ...]
    extent: tuple[int, ...]
    position_axes: tuple[int, ...]

    @property
    def dense_axes(self) -> list[int]:
        """The axes without learned positions, in order."""
        return [i for i in range(len(self.extent)) if i not in self.position_axes]


def layer_geometry(
    ndim: int,
    kernel_size: IntOrTuple | None,
    dilation: IntOrTuple,
    kernel_count: int | None,
    dilated_kernel_size: IntOrTuple | None,
    position_axes: tuple[int, ...] | None,
) -> Geometry:
    """Check arguments of :class:`.dcls.DCLSConvNd`, and fill in the defaults.

    Raises:
        ValueError, TypeError: an argument doesn't fit; the message names it.
    """
    position_axes = _checked_axes(position_axes, ndim)
    if kernel_size is None:
        if kernel_count is None or dilated_kernel_size is None:
            raise ValueError(
                'kernel_size may be left out only where kernel_count and '
                'dilated_kernel_size are both given'
            )
        kernel_size = dilated_kernel_size
    kernel_size = as_tuple('kernel_size', kernel_size, ndim, minimum=1)
    dilation = as_tuple('dilation', dilation, ndim, minimum=1)
    replaced = extent_of(kernel_size, dilation)
    extent = replaced
    if dilated_kernel_size is not None:
        extent = as_tuple('dilated_kernel_size', dilated_kernel_size, ndim, minimum=1)
    if not isinstance(dilated_kernel_size, Iterable):
        extent = tuple(
            extent[axis] if axis in position_axes else replaced[axis]
            for axis in range(ndim)
        )
    geometry = Geometry(kernel_size, dilation, replaced, extent, position_axes)
    for axis in geometry.dense_axes:
        if dilation[axis] != 1 or extent[axis] != kernel_size[axis]:
            raise ValueError(
                f'axis {axis} is dense, as position_axes {position_axes} leaves it '
                'out: there dilation must be 1 and dilated_kernel_size the kernel '
                f'size {kernel_size[axis]}, got {dilation[axis]} and {extent[axis]}'
            )
    return geometry


def grown_padding(padding: IntOrTuple | str, geometry: Geometry) -> IntOrTuple | str:
    """Return the padding that keeps the output size of the replaced conv.

    Raises:
        ValueError: there is none, or ``padding`` is an unknown string.
    """
    extent, replaced = geometry.extent, geometry.replaced
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


def margins(size: Sequence[int], extent: Sequence[int]) -> list[tuple[int, int]]:
    """Return how many taps are (before, after) a smaller kernel, per axis.

    It is around the centre of the larger one, tap ``extent // 2``.
    """
    starts = [large // 2 - small // 2 for small, large in zip(size, extent)]
    return [
        (start, large - small - start)
        for start, small, large in zip(starts, size, extent)
    ]


def _checked_axes(axes: tuple[int, ...] | None, ndim: int) -> tuple[int, ...]:
    if axes is None:
        return tuple(range(ndim))
    if not isinstance(axes, Iterable):
        axes = (axes,)
    axes = as_tuple('position_axes', axes, len(tuple(axes)), minimum=0)
    if not axes or len(set(axes)) != len(axes) or max(axes) >= ndim:
        raise ValueError(
            f'position_axes must be different axes of 0..{ndim - 1}, at least one, '
            f'got {axes}'
        )
    return axes
