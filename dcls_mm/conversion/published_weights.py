"""Conversions between the published `dcls` package's layers and :class:`DCLSConvNd`."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from ..functional._arguments import IntOrTuple, as_tuple
from ..layers.published import (
    DCLS2_1D_EXTRA_WIDTH,
    is_published,
    published_axes,
    published_interpolation,
    published_shifts,
)
from .state_dicts import (
    check_noted,
    copy_with_metadata,
    layer_metadata,
    layers_with_positions,
    note_position_axes,
    noted_axes,
    real_sigma,
    real_tensor,
    refuse_converted,
    refuse_local,
    refuse_turned,
)


@torch.no_grad()
def from_published(
    state_dict: Mapping[str, Tensor],
    *,
    version: str,
    dilated_kernel_size: IntOrTuple | None = None,
    prefix: str = '',
) -> OrderedDict:
    """Convert a state_dict so that dcls_mm computes what the published layers did.

    For every layer with positions, the rows of P and SIG are put into the order of the
    spatial axes, and P counts from the centre of its own axis. The published layers use
    the extent of another axis, so in rectangular kernels P changes. The SIG of
    ``Dcls2_1d`` with 'gauss' grows by the 0.73 pixels by which that layer is too wide.
    ``Dcls1d``, ``Dcls3_1d`` and ``Dcls2dK1d`` stay unchanged.

    Args:
        state_dict: weights of a layer or a model; left unchanged.
        version: version of its layers: 'v0', 'v1', 'max' or 'gauss'.
        dilated_kernel_size: extent of the layers, one int per axis, or any int if all
            axes are equal; needed where the order of the rows changes.
        prefix: convert only keys that start with this.

    Returns:
        All of ``state_dict``, with metadata that describe the layers, for DCLSConvNd.
        Layers with positions along the last axis need its ``position_axes``.

    Raises:
        ValueError, TypeError: an argument or a layer is invalid; the message names it.

    Example:
        The published 'v1' has columns first; dcls_mm has rows first:

        >>> import torch
        >>> from dcls_mm.conversion import from_published
        >>> P = torch.tensor([5.0, 2.0]).view(2, 1, 1, 1)
        >>> published = {'weight': torch.ones(1, 1, 1), 'P': P}
        >>> converted = from_published(published, version='v1', dilated_kernel_size=17)
        >>> converted['P'].flatten()
        tensor([2., 5.])
    """
    name = published_interpolation(version)
    converted = copy_with_metadata(state_dict)
    for layer in layers_with_positions(state_dict, prefix):
        refuse_converted(state_dict, layer)
        positions, sigma, weight = _parameters(state_dict, layer, version)
        rows = len(positions)
        if rows > 1:
            published = published_axes(name, rows)
            shift = _row_shifts(positions, name, dilated_kernel_size, layer)
            order = [published.index(axis) for axis in range(rows)]
            positions = (positions if shift is None else positions + shift)[order]
            sigma = None if sigma is None else sigma[order]
        elif extra := _extra_width(weight, name):
            sigma = sigma.abs() + extra
        _store(converted, layer, positions, sigma)
        axes = _spatial_axes(rows, weight)
        note_position_axes(converted, layer, axes)
        if axes is not None:
            converted._metadata[layer[:-1]]['interpolation'] = name
    return converted


@torch.no_grad()
def to_published(
    state_dict: Mapping[str, Tensor],
    *,
    version: str,
    dilated_kernel_size: IntOrTuple | None = None,
    prefix: str = '',
) -> OrderedDict:
    """Invert :func:`from_published`, with the same arguments.

    The rows of P are for the axes noted in the metadata of ``state_dict``, or else for
    the spatial axes in order.

    Raises:
        ValueError, TypeError: as in :func:`from_published`, or the published package
            has no such layer, none with a local branch, or none that narrow.
    """
    name = published_interpolation(version)
    converted = copy_with_metadata(state_dict)
    for layer in layers_with_positions(state_dict, prefix):
        refuse_local(state_dict, layer, 'the published package')
        refuse_turned(state_dict, layer, 'the published package')
        positions, sigma, weight = _parameters(state_dict, layer, version)
        rows = len(positions)
        axes = _own_axes(state_dict, layer, rows, weight)
        extent = None
        if rows > 1:
            published = published_axes(name, rows)
            shift = _row_shifts(positions, name, dilated_kernel_size, layer)
            extent = _extent_of(state_dict, layer, dilated_kernel_size, rows)
            order = [axes.index(axis) for axis in published]
            positions = positions[order]
            positions = positions if shift is None else positions - shift
            sigma = None if sigma is None else sigma[order]
        elif extra := _extra_width(weight, name):
            sigma = sigma.abs() - extra
            if (sigma < 0).any():
                raise ValueError(
                    f'{layer}SIG must be at least {extra:.2f} pixels for the '
                    "published Dcls2_1d of version 'gauss', which can't be narrower"
                )
        check_noted(state_dict, layer, f'version={version!r}', name, extent)
        _store(converted, layer, positions, sigma)
        note_position_axes(converted, layer, None)
    return converted


def _parameters(
    state_dict: Mapping[str, Tensor], layer: str, version: str
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Return P, SIG and weight of a layer that the published package could have."""
    positions = real_tensor(state_dict, f'{layer}P')
    weight = real_tensor(state_dict, f'{layer}weight')
    shape, elements = tuple(positions.shape), tuple(weight.shape)
    if (
        not shape
        or shape[1:] != elements
        or not (
            (shape[0] == 1 and weight.ndim in (3, 4, 5))
            or (shape[0] in (2, 3) and weight.ndim == 3)
        )
    ):
        raise ValueError(
            f"{layer}P must have the shape (rows, *weight's): 1 to 3 rows for a weight "
            '(out, in // groups, count), 1 row for one with dense axes before count; '
            f'got {shape} for the weight {elements}'
        )
    sigma = real_sigma(state_dict, layer, 'version', version)
    if sigma is not None and sigma.shape != positions.shape:
        raise ValueError(
            f'{layer}SIG must be shaped like {layer}P, {shape}, '
            f'got {tuple(sigma.shape)}'
        )
    return positions, sigma, weight


def _row_shifts(
    positions: Tensor, name: str, dilated_kernel_size: IntOrTuple | None, layer: str
) -> Tensor | None:
    """Return what to add to the published rows of P, (rows, 1, 1, 1), or None."""
    rows = len(positions)
    is_text = isinstance(dilated_kernel_size, str)
    if isinstance(dilated_kernel_size, Iterable) and not is_text:
        dilated_kernel_size = tuple(dilated_kernel_size)
        if len(dilated_kernel_size) != rows:
            raise ValueError(
                f'dilated_kernel_size {dilated_kernel_size} does not fit {layer}P, '
                f'which has {rows} rows: convert layers with other numbers of axes '
                'separately, using prefix'
            )
    if dilated_kernel_size is None:
        if published_axes(name, rows) == tuple(range(rows)):
            return None
        raise ValueError(
            f'dilated_kernel_size must be given for {layer}P, whose {rows} rows are '
            f'in another order in interpolation {name!r}: pass the extent of the kernel'
        )
    extent = as_tuple('dilated_kernel_size', dilated_kernel_size, rows, minimum=1)
    shifts = published_shifts(name, extent)
    return positions.new_tensor(shifts).view(-1, 1, 1, 1) if any(shifts) else None


def _extent_of(
    state_dict: Mapping[str, Tensor],
    layer: str,
    dilated_kernel_size: IntOrTuple | None,
    rows: int,
) -> tuple[int, ...] | None:
    """Return the given extent; None if none is given or an int meets a noted square."""
    noted = layer_metadata(state_dict, layer).get('extent') or (0,)
    if dilated_kernel_size is None or (
        isinstance(dilated_kernel_size, int) and len(set(noted)) == 1
    ):
        return None
    return as_tuple('dilated_kernel_size', dilated_kernel_size, rows, minimum=1)


def _spatial_axes(rows: int, weight: Tensor) -> tuple[int, ...] | None:
    """Return the axes of the rows; None for a Dcls1d or Dcls2dK1d, which look alike."""
    if rows > 1:
        return tuple(range(rows))
    return (weight.ndim - 3,) if weight.ndim > 3 else None


def _own_axes(
    state_dict: Mapping[str, Tensor], layer: str, rows: int, weight: Tensor
) -> tuple[int, ...] | None:
    """Return the axes of the rows of a dcls_mm layer, which may have noted them."""
    expected = _spatial_axes(rows, weight)
    metadata = layer_metadata(state_dict, layer)
    if expected is None:
        return None
    if 'position_axes' not in metadata:
        if is_published(metadata):
            raise ValueError(
                f'{layer}P is of the published package already, as the metadata of '
                'state_dict say: load it there as it is'
            )
        return expected
    axes = noted_axes(state_dict, layer, expected)
    if sorted(axes) != list(expected):
        raise ValueError(
            f'{layer}P is for the axes {axes}; the published package has only layers '
            'with positions along all axes or the last one'
        )
    return axes


def _extra_width(weight: Tensor, name: str) -> float:
    """Return what the published layer with one row adds to sigma, if a Dcls2_1d."""
    return DCLS2_1D_EXTRA_WIDTH.get(name, 0.0) if weight.ndim == 4 else 0.0


def _store(
    state_dict: OrderedDict, layer: str, positions: Tensor, sigma: Tensor | None
) -> None:
    state_dict[f'{layer}P'] = positions
    if sigma is not None:
        state_dict[f'{layer}SIG'] = sigma
