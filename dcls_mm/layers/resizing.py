"""Changes of a layer's extent and of its elements that keep its parameter objects.

The extent grows and shrinks around the kernel's centre, so positions keep their values.
Elements are reordered, dropped and added along the last axis of ``weight``, ``P`` and
``SIG``. Optimizers and averaged models refer to the parameters as objects, so these
stay and get other data.

A layer that was changed notes it in its state_dict (``adapted``). A layer that loads
such a state_dict takes over its extent and number of elements.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from ..functional._arguments import IntOrTuple, as_tuple
from ..functional.interpolation import GAUSS_BASE_WIDTH, MAX_BASE_WIDTH
from .geometry import Geometry, grown_padding
from .noted import StateDictError, as_noted
from .positions import LearnedPositions
from .starts import starting_sigma

if TYPE_CHECKING:
    from .dcls import DCLSConvNd

# Widths from the centre at which a 'gauss' profile has fallen to 1.5e-8.
_GAUSS_REACH = 6.0


class Rearrangement(NamedTuple):
    """Which elements the kernels of a layer have afterwards.

    Both are shaped like a row of P, with the new number of elements last.

    Attributes:
        source: the index of the element that is kept at this place.
        fresh: whether a new element takes the place instead.
    """

    source: Tensor
    fresh: Tensor

    def moved(self, values: Tensor) -> Tensor:
        """Return ``values``, (..., old count), in the new order, zero where fresh."""
        shape = (*values.shape[:-1], self.source.shape[-1])
        taken = values.gather(-1, self.source.expand(shape))
        return taken.masked_fill(self.fresh, 0)


def why_fixed(layer: nn.Module) -> str | None:
    """Return why a layer with positions can't change its extent and count, or None."""
    if any(factor != 1 for factor in getattr(layer, 'spacing', ())):
        return f'its spacing is {layer.spacing}, not the 1 of training'
    return _why_as_built(layer)


def _why_as_built(layer: nn.Module) -> str | None:
    if getattr(layer, 'transposed', False):
        return 'it is transposed'
    ours = getattr(layer, '_kernel_is_ours', False)
    if not (ours and getattr(layer, 'adaptable', False)):
        return f'a {type(layer).__name__} has the sizes that it was built with'
    return None


def layers_by_positions(model: nn.Module) -> dict[str, list['DCLSConvNd']]:
    """Return the layers with positions, those that share them together.

    Returns:
        The name of the first of them -> the layers, in the model's order.
    """
    names: dict[int, str] = {}
    groups: dict[str, list[Any]] = {}
    for name, module in model.named_modules():
        if isinstance(module, LearnedPositions):
            first = names.setdefault(id(module.P), name)
            groups.setdefault(first, []).append(module)
    return groups


@torch.no_grad()
def outermost_taps(layer: 'DCLSConvNd') -> list[tuple[float, float]]:
    """Return the first and the last tap that an element or local branch has, in pixels.

    They are counted from the kernel's centre, per learned axis in order, whether the
    extent has these taps or not. A 'gauss' element, which has no end, reaches to where
    it has fallen to 1.5e-8 of its peak.
    """
    bounds = tap_bounds(layer)
    return list(zip(*(side.tolist() for side in bounds)))


def tap_bounds(layer: 'DCLSConvNd') -> tuple[Tensor, Tensor]:
    """Return :func:`outermost_taps` as two tensors (learned axes,), on the device."""
    _, positions, sigma = layer.elements()
    if layer.integer_positions:  # evaluation rounds them, training doesn't
        positions = torch.cat([positions, positions.round()], 1)
        sigma = None if sigma is None else torch.cat([sigma, sigma], 1)
    places = positions.double().flatten(1)
    width: float | Tensor = 1.0
    if sigma is not None and layer.interpolation == 'max':
        width = MAX_BASE_WIDTH + sigma.double().abs().flatten(1)
    elif sigma is not None and layer.interpolation == 'gauss':
        width = _GAUSS_REACH * (GAUSS_BASE_WIDTH + sigma.double().abs().flatten(1))
    # Both profiles that end do so before the tap at this distance.
    first = (places - width).floor() + 1
    last = (places + width).ceil() - 1
    firsts, lasts = first.amin(1), last.amax(1)
    if layer.local_size is not None:
        sizes = [layer.local_size[axis] for axis in layer.learned_axes]
        size = firsts.new_tensor(sizes)
        firsts = torch.minimum(firsts, -(size // 2))
        lasts = torch.maximum(lasts, size - 1 - size // 2)
    return firsts, lasts


def resize_extent(layer: 'DCLSConvNd', extent: IntOrTuple) -> None:
    """Give a layer another extent and the padding that keeps its output's size.

    Positions stay, in pixels from the kernel's centre, so the layer computes what it
    did: a larger extent only adds taps around the kernel, and a smaller one is refused
    if an element has taps outside. (Where the old extent cut taps off, a larger one
    gives them back.) Layers that share positions must all get the same extent.

    Args:
        layer: the layer; its parameters don't change.
        extent: in pixels; one int for the learned axes, or one per axis.

    Raises:
        ValueError: the layer can't change (:func:`why_fixed`), the change of an axis is
            odd, a dense axis would change, no padding keeps the output's size, or the
            kernel reaches further.
        TypeError: ``extent`` is not one int or one per axis.
    """
    _check_changeable(layer)
    wanted = as_tuple('extent', extent, layer.ndim, minimum=1)
    if isinstance(extent, int):
        learned = layer.position_axes
        wanted = tuple(
            n if axis in learned else layer.extent[axis]
            for axis, n in enumerate(wanted)
        )
    padding = _padding_for(layer, wanted)
    for axis, (first, last) in zip(layer.learned_axes, outermost_taps(layer)):
        size = wanted[axis]
        fits = first >= -(size // 2) and last <= size - 1 - size // 2
        if size < layer.extent[axis] and not fits:
            raise ValueError(
                f'extent {size} along axis {axis} is too small: the kernel reaches '
                f'from {first:g} to {last:g} pixels from the centre'
            )
    _set_extent(layer, wanted, padding)


@torch.no_grad()
def rearrange_elements(
    layers: Sequence['DCLSConvNd'],
    arrangement: Rearrangement,
    places: Tensor | None = None,
) -> list[nn.Parameter]:
    """Reorder, drop and add elements of the layers that share their positions.

    New elements have weight zero. So the layers compute what they did if each element
    that is dropped had weight zero.

    Args:
        layers: all layers with this ``P``.
        arrangement: the elements to keep and where new ones go.
        places: rows of P for new elements, (learned axes, *source's shape); None leaves
            them at the centre.

    Returns:
        The parameters whose elements changed. Whatever has the shape of one, such as an
        optimizer's state, follows by ``arrangement.moved``.

    Raises:
        ValueError: the layers don't share their positions, one of them can't change, or
            the arrangement doesn't fit them.
    """
    first = layers[0]
    for layer in layers:
        _check_changeable(layer)
        if layer.P is not first.P:
            raise ValueError('layers must all share their positions (the parameter P)')
    source, fresh = arrangement
    if source.shape[:-1] != first.P.shape[1:-1] or source.shape != fresh.shape:
        raise ValueError(
            f'source and fresh must be {tuple(first.P.shape[1:-1])} and a number of '
            f'elements, got {tuple(source.shape)} and {tuple(fresh.shape)}'
        )
    if places is not None and places.shape != (len(first.P), *source.shape):
        raise ValueError(
            f'places must be {(len(first.P), *source.shape)}, got {tuple(places.shape)}'
        )
    weights = {id(layer.weight): layer.weight for layer in layers}
    changed = [first.P, *weights.values()]
    moved = [arrangement.moved(parameter) for parameter in changed]
    if places is not None:
        moved[0] = torch.where(fresh, places.to(moved[0]), moved[0])
    if first.SIG is not None:
        changed.append(first.SIG)
        sigma = arrangement.moved(first.SIG)
        moved.append(sigma.masked_fill(fresh, starting_sigma(first)))
    for parameter, values in zip(changed, moved):
        _set_values(parameter, values)
    for layer in layers:
        if layer.kernel_count != source.shape[-1]:
            layer.kernel_count = source.shape[-1]
            layer.adapted = True
        layer.forget()
    return changed


def adopts(layer: nn.Module, notes: Mapping[str, Any]) -> bool:
    """Return whether a layer takes its extent and count from a state_dict.

    Args:
        layer: the layer that loads it.
        notes: the state_dict's metadata for the layer.
    """
    return notes.get('adapted') is True and _why_as_built(layer) is None


def adopted_shapes(
    layer: 'DCLSConvNd', state_dict: Mapping, prefix: str, notes: Mapping[str, Any]
) -> dict[str, tuple[int, ...]]:
    """Return the shapes that weight, P and SIG get from a state_dict, by name.

    Nothing if the layer keeps its own.
    """
    values = [state_dict.get(f'{prefix}{name}') for name in ('weight', 'P')]
    counts = {
        value.shape[-1]
        for value in values
        if isinstance(value, Tensor) and value.ndim and value.numel()
    }
    if not adopts(layer, notes) or len(counts) != 1 or values[1] is None:
        return {}  # torch will say what doesn't fit, or is missing
    count = counts.pop()
    own = {'weight': layer.weight, 'P': layer.P, 'SIG': layer.SIG}
    return {
        name: (*parameter.shape[:-1], count)
        for name, parameter in own.items()
        if parameter is not None
    }


@torch.no_grad()
def adopt(
    layer: 'DCLSConvNd', state_dict: Mapping, prefix: str, notes: Mapping[str, Any]
) -> None:
    """Give a layer the extent and the number of elements that a state_dict has.

    The values of its parameters are then undefined, until they are loaded.

    Raises:
        StateDictError: the layer can't have that extent.
    """
    shapes = adopted_shapes(layer, state_dict, prefix, notes)
    if not shapes:
        return
    extent = as_noted(notes.get('extent'))
    try:
        extent = as_tuple('its extent', extent, layer.ndim, minimum=1)
        padding = _padding_for(layer, extent)
    except (TypeError, ValueError) as error:
        reason = f'{prefix}P: the state_dict is of a layer that was adapted; {error}'
        raise StateDictError(layer, reason) from error
    _set_extent(layer, extent, padding)
    layer.adapted = True
    for name, shape in shapes.items():
        parameter = getattr(layer, name)
        if parameter.shape != shape:  # else a layer that shares it was first
            _set_values(parameter, parameter.new_zeros(shape))
    layer.kernel_count = shapes['P'][-1]


def _check_changeable(layer: nn.Module) -> None:
    reason = why_fixed(layer)
    if reason is not None:
        raise ValueError(f'extent and elements of a layer are fixed: {reason}')


def _padding_for(layer: 'DCLSConvNd', extent: tuple[int, ...]) -> Any:
    for axis, (old, new) in enumerate(zip(layer.extent, extent)):
        if (new - old) % 2:
            raise ValueError(
                f'extent must change by an even number, to keep the centre, got {new} '
                f'for {old} along axis {axis}'
            )
        if new != old and axis in layer.dense_axes:
            raise ValueError(
                f'extent must stay {old} along axis {axis}, which is dense, got {new}'
            )
    geometry = Geometry(
        layer.kernel_size, layer.dilation, layer.extent, extent, layer.position_axes
    )
    return grown_padding(layer.padding, geometry)


def _set_extent(layer: 'DCLSConvNd', extent: tuple[int, ...], padding: Any) -> None:
    if extent != layer.extent:
        layer.extent, layer.padding = extent, padding
        layer.adapted = True
        layer.forget()


def _set_values(parameter: nn.Parameter, values: Tensor) -> None:
    if values.shape == parameter.shape:
        parameter.copy_(values)
    else:  # not by parameter.data, as backward would expect the old shape
        parameter.set_(values.contiguous())  # type: ignore[call-overload]
    parameter.grad = None
