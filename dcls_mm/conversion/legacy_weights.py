"""Conversions between :class:`.LegacyDcls2d` (first `dcls` releases) and DCLSConv2d."""

from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import Tensor

from ..functional._arguments import IntOrTuple, as_tuple, check_choice
from ..layers.dropin.legacy_layer import (
    FORMULATIONS,
    pixel_positions,
    position_scale,
    regular_taps,
)
from ..layers.geometry import extent_of
from .state_dicts import (
    check_noted,
    copy_with_metadata,
    layers_with_positions,
    note_position_axes,
    noted_axes,
    real_tensor,
    refuse_converted,
    refuse_local,
    refuse_turned,
)


@torch.no_grad()
def from_legacy(
    state_dict: Mapping[str, Tensor],
    *,
    dilation: IntOrTuple,
    gain: float = 1.0,
    formulation: str = 'construct',
    prefix: str = '',
) -> OrderedDict:
    """Convert a state_dict so that DCLSConv2d computes what :class:`.LegacyDcls2d` did.

    The DCLSConv2d needs the legacy layer's arguments and ``formulation``, and
    ``per_output_positions=False`` for 'sample'. The conversion clamps the positions.

    Args:
        state_dict: weights of a layer or a model; left unchanged.
        dilation, gain, formulation: arguments of its legacy layers.
        prefix: convert only keys that start with this.

    Returns:
        All of ``state_dict``. Its legacy layers now have weight (out, in // groups,
        count) and P (2, out, in // groups, count), or (2, in // groups, count) for
        'sample', in pixels from the kernel's centre.

    Raises:
        ValueError, TypeError: an argument or a layer is invalid; the message names it.
    """
    dilation = as_tuple('dilation', dilation, 2, minimum=1)
    converted = copy_with_metadata(state_dict)
    for layer in layers_with_positions(state_dict, prefix):
        refuse_converted(state_dict, layer)
        positions = real_tensor(state_dict, f'{layer}P')
        weight = real_tensor(state_dict, f'{layer}weight')
        _check_shapes(positions, weight, 4, formulation, layer)
        pixels = pixel_positions(positions, dilation, gain)
        converted[f'{layer}weight'] = weight.flatten(2)
        converted[f'{layer}P'] = pixels.flatten(-2).to(positions.dtype)
        note_position_axes(converted, layer, (0, 1))
        converted._metadata[layer[:-1]].update(
            interpolation='bilinear',
            extent=extent_of(positions.shape[-2:], dilation),
        )
    return converted


@torch.no_grad()
def to_legacy(
    state_dict: Mapping[str, Tensor],
    *,
    kernel_size: IntOrTuple,
    dilation: IntOrTuple,
    gain: float = 1.0,
    formulation: str = 'construct',
    prefix: str = '',
) -> OrderedDict:
    """Invert :func:`from_legacy`, except for clamping.

    Args:
        state_dict: weights of DCLSConv2d layers whose extent is
            ``dilation * (kernel_size - 1) + 1``.
        kernel_size: taps per axis of the legacy layers.
        dilation, gain, formulation, prefix: as in :func:`from_legacy`.

    Raises:
        ValueError, TypeError: an argument or a layer is invalid, or positions are
            beyond the extent, where a legacy layer can have none; the message names it.
    """
    kernel_size = as_tuple('kernel_size', kernel_size, 2, minimum=1)
    dilation = as_tuple('dilation', dilation, 2, minimum=1)
    regular = regular_taps(kernel_size, dilation)
    extent = extent_of(kernel_size, dilation)
    converted = copy_with_metadata(state_dict)
    for layer in layers_with_positions(state_dict, prefix):
        refuse_local(state_dict, layer, 'a legacy layer')
        refuse_turned(state_dict, layer, 'a legacy layer')
        positions = real_tensor(state_dict, f'{layer}P')
        weight = real_tensor(state_dict, f'{layer}weight')
        _check_shapes(positions, weight, 3, formulation, layer)
        axes = noted_axes(state_dict, layer, (0, 1))
        if axes != (0, 1):
            raise ValueError(f'{layer}P must stand for the axes (0, 1), got {axes}')
        if weight.shape[2] != regular[0].numel():
            raise ValueError(
                f'kernel_size {kernel_size} has {regular[0].numel()} elements, but '
                f'{layer}weight has {weight.shape[2]}'
            )
        check_noted(state_dict, layer, 'a legacy layer', 'bilinear', extent)
        if f'{layer}SIG' in state_dict:
            raise ValueError(
                f'state_dict has {layer}SIG, so the layer has interpolation '
                "'max' or 'gauss': legacy layers are 'bilinear'"
            )
        moves = []
        for row, taps in zip(positions.unflatten(-1, kernel_size), regular):
            last = int(taps[-1, -1])
            index = row + (last + 1) // 2
            if not ((index >= 0) & (index <= last)).all():
                raise ValueError(
                    f'{layer}P has positions beyond the extent of kernel_size '
                    f'{kernel_size} and dilation {dilation}, where a legacy layer has '
                    'none: correct the arguments, or clamp the positions'
                )
            moves.append(index - taps.to(index))
        converted[f'{layer}weight'] = weight.unflatten(2, kernel_size)
        scale = position_scale(positions, gain)
        converted[f'{layer}P'] = torch.stack(moves) / scale
        note_position_axes(converted, layer, None)
    return converted


def _check_shapes(
    positions: Tensor, weight: Tensor, ndim: int, formulation: str, layer: str
) -> None:
    check_choice('formulation', formulation, FORMULATIONS)
    if weight.ndim != ndim:
        kinds = {3: '(out, in // groups, count)', 4: '(out, in // groups, kh, kw)'}
        raise ValueError(
            f'{layer}weight must have the shape {kinds[ndim]}, '
            f'got {tuple(weight.shape)}'
        )
    elements = tuple(weight.shape if formulation == 'construct' else weight.shape[1:])
    if tuple(positions.shape) != (2, *elements):
        raise ValueError(
            f'{layer}P must have the shape {(2, *elements)} in the formulation '
            f'{formulation!r}, got {tuple(positions.shape)}'
        )
