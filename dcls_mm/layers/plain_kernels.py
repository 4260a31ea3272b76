"""Layers that start from the kernel of a plain convolution.

Their elements reproduce it or, if there is a local branch, that takes it over.
"""

import warnings
from collections.abc import Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..functional.scatter import construct_checked
from .geometry import extent_of, margins
from .noted import StateDictError
from .starts import grid_places, grid_size, starting_sigma

if TYPE_CHECKING:
    from .dcls import DCLSConvNd

# Singular values below this part of the largest are left out. Wide elements overlap so
# much that they would need huge weights of both signs, from which nothing can learn.
LEAST_SINGULAR_VALUE = 1e-2

PlainConv = (
    nn.Conv1d
    | nn.Conv2d
    | nn.Conv3d
    | nn.ConvTranspose1d
    | nn.ConvTranspose2d
    | nn.ConvTranspose3d
)


class Start(NamedTuple):
    """Parameters of a layer that reproduce a plain kernel.

    Attributes:
        parameters: what the parameters of the layer should be, by name.
        error: the norm of what the constructed kernel differs by, relative to the plain
            kernel's; 0 if each element stays on one tap.
    """

    parameters: dict[str, Tensor]
    error: float


def start_layer(
    cls: type['DCLSConvNd'], conv: PlainConv, options: Mapping[str, Any]
) -> 'DCLSConvNd':
    """Return a layer that computes what ``conv`` does; see DCLSConvNd.from_conv."""
    kind = getattr(nn, f'Conv{"Transpose" * cls.transposed}{cls.ndim}d')
    if not isinstance(conv, kind):
        raise TypeError(
            f'conv must be a torch.nn.{kind.__name__} to become a {cls.__name__}, '
            f'got {type(conv).__name__}'
        )
    arguments = {name: getattr(conv, name) for name in cls.CONV_ARGUMENTS}
    if options.get('local_size') is None:
        arguments['initial_positions'] = 'grid'
    layer = cls(
        **arguments,
        bias=conv.bias is not None,
        device=conv.weight.device,
        dtype=conv.weight.dtype,
        **options,
    )
    start = start_from(layer, conv.weight, layer.dilation)
    with torch.no_grad():
        for name, value in start.parameters.items():
            getattr(layer, name).copy_(value)
        if conv.bias is not None and layer.bias is not None:
            layer.bias.copy_(conv.bias)
    layer.kernel_error = start.error
    return layer


@torch.no_grad()
def start_from(layer: 'DCLSConvNd', kernel: Tensor, dilation: tuple[int, ...]) -> Start:
    """Return the parameters with which a layer computes a plain kernel.

    A local branch takes it over exactly, and the elements stay where they are, with
    weight 0. Without one see :func:`_elements_on_taps`.

    Args:
        layer: the layer that gets them.
        kernel: weight of the plain convolution, (out, in // groups, *kernel_size), or
            as a transposed one has it.
        dilation: its dilation per axis.

    Raises:
        ValueError: the layer has another number of elements, its extent or its local
            branch can't hold the kernel, or it has norms.
    """
    if layer.local_weight is None:
        return _elements_on_taps(layer, kernel, dilation)
    if layer.branch_norms is not None:
        raise ValueError(
            'branch_norms must be False to start from a plain convolution: in training '
            "they divide by the batch's deviation, which its kernel does not tell"
        )
    local = kernel.new_zeros(layer.local_weight.shape)
    local[_places_in_local(layer, tuple(kernel.shape[2:]), dilation)] = kernel
    parameters = {
        'weight': kernel.new_zeros(layer.weight.shape),
        'P': layer.P.clone(),
        'local_weight': local,
    }
    if layer.SIG is not None:
        parameters['SIG'] = layer.SIG.clone()
    return Start(parameters, 0.0)


def _places_in_local(
    layer: 'DCLSConvNd', kernel_size: tuple[int, ...], dilation: tuple[int, ...]
) -> tuple[slice, ...]:
    """Return which taps of the local branch are those of a plain kernel."""
    assert layer.local_size is not None
    places = [slice(None)] * 2
    starts = [before for before, _ in margins(layer.local_size, layer.extent)]
    for axis, span in enumerate(extent_of(kernel_size, dilation)):
        margin = layer.extent[axis] - span
        first = margin // 2 - starts[axis]
        if margin % 2 or first < 0 or first + span > layer.local_size[axis]:
            raise ValueError(
                'local_size must be at least the extent of the plain kernel, dilation *'
                f' (kernel_size - 1) + 1, with the same centre: axis {axis} has '
                f'{layer.local_size[axis]} for {span} in {layer.extent[axis]}'
            )
        places.append(slice(first, first + span, dilation[axis]))
    return tuple(places)


def _elements_on_taps(
    layer: 'DCLSConvNd', kernel: Tensor, dilation: tuple[int, ...]
) -> Start:
    """Return the elements on the taps of a plain kernel that reproduce it best.

    Elements that stay on one tap, those of 'bilinear' and 'triangle' and of 'max' with
    sigma 0, do so exactly. Others spread over their neighbours; their weights are the
    least-squares solution over the extent, per pair of channels and dense tap. With as
    many elements as a kernel one or more rings larger has taps, those beyond the
    kernel's own start at weight 0, or cancel what the others spread there.

    The layer's interpolation, extent and initial sigma count, its values don't.
    """
    size = grid_size(layer, tuple(kernel.shape[2:]))
    rings = [(n - old) // 2 for n, old in zip(size, kernel.shape[2:])]
    kernel = F.pad(kernel, [side for n in reversed(rings) for side in (n, n)])
    places = grid_places(layer, size, dilation)  # (rows of P, taps)
    order = [0, 1, *(2 + axis for axis in (*layer.dense_axes, *layer.learned_axes))]
    target = kernel.permute(order).reshape(layer.weight.shape)
    positions = places.view(len(places), *(1,) * (layer.P.ndim - 2), -1)
    positions = positions.to(layer.P).expand_as(layer.P)
    others = {'P': positions}
    if layer.SIG is not None:
        others['SIG'] = torch.full_like(layer.SIG, starting_sigma(layer))
    if kernel.is_meta:  # it has shapes only
        return Start({'weight': target, **others}, 0.0)
    kernels = _kernels_of_elements(layer, places)
    spread = (kernels != 0).sum(1).max() > 1
    if not spread:
        weight = target / kernels.amax(1).to(target)
        return Start({'weight': weight, **others}, 0.0)
    # The plain kernel in the extent: each tap is where its element's position is.
    at = _tap_indices(layer, places)
    wanted = target.detach().double().cpu().flatten(0, -2)
    inside = wanted.new_zeros(len(wanted), kernels.shape[1])
    inside[:, at] = wanted
    solved = inside @ torch.linalg.pinv(kernels, rtol=LEAST_SINGULAR_VALUE)
    weight = solved.view(target.shape).to(layer.weight)
    made = weight.double().cpu().flatten(0, -2) @ kernels
    norm = inside.norm().item()
    error = (made - inside).norm().item() / norm if norm else 0.0
    return Start({'weight': weight, **others}, error)


def has_plain_kernel(layer: 'DCLSConvNd', state_dict: Mapping, prefix: str) -> bool:
    """Return whether a layer would start from a plain kernel in a state_dict.

    That is a ``weight`` of the form of one under ``prefix``, and no ``P``.
    """
    kernel = state_dict.get(f'{prefix}weight')
    return (
        layer.accepts_plain_kernels
        and f'{prefix}P' not in state_dict
        and isinstance(kernel, Tensor)
        and kernel.ndim == 2 + layer.ndim
        and tuple(kernel.shape[:2]) == layer.kernel_channels
    )


def load_plain(
    layer: 'DCLSConvNd',
    state_dict: MutableMapping[str, Any],
    prefix: str,
    notes: Mapping[str, Any],
) -> bool:
    """Replace a plain convolution's kernel in a state_dict by a layer's parameters.

    The layer starts from it as :func:`start_from` says, with the dilation of the
    convolution that the layer replaces if the kernel has its size. A fit that is not
    exact is a warning.

    Args:
        layer: the layer that will load the state_dict.
        state_dict: changed in place if :func:`has_plain_kernel`.
        prefix: the layer's name with a dot after it, or ''.
        notes: the state_dict's metadata for the layer; those of a DCLS layer say that
            this is no plain convolution.

    Returns:
        Whether there was one.

    Raises:
        StateDictError: the layer can't hold it.
    """
    if f'{prefix}P' in state_dict:
        layer.kernel_error = 0.0
    if 'position_axes' in notes or not has_plain_kernel(layer, state_dict, prefix):
        return False
    key = f'{prefix}weight'
    kernel = state_dict[key]
    size = tuple(kernel.shape[2:])
    same = size == layer.kernel_size
    try:
        start = start_from(layer, kernel, layer.dilation if same else (1,) * len(size))
    except ValueError as error:
        by = 'x'.join(map(str, size))
        reason = f'{key}: the state_dict has the {by} kernel of a plain convolution'
        raise StateDictError(layer, f'{reason}; {error}') from error
    for name, value in start.parameters.items():
        state_dict[f'{prefix}{name}'] = value
    layer.kernel_error = start.error
    if start.error:
        warnings.warn(
            f'{key}: {layer.interpolation!r} elements give the kernel of the plain '
            f'convolution with a relative error of {start.error:.2g}',
            stacklevel=2,
        )
    return True


def _kernels_of_elements(layer: 'DCLSConvNd', places: Tensor) -> Tensor:
    """Return the kernel of each element with weight 1, (elements, taps), in float64.

    The taps are those of the learned axes, in order.
    """
    count = places.shape[1]
    rows = [list(layer.position_axes).index(axis) for axis in layer.learned_axes]
    positions = places.double()[rows].view(-1, count, 1, 1)
    sigma = None
    if layer.SIG is not None:
        sigma = torch.full_like(positions, starting_sigma(layer))
    extent = tuple(layer.extent[axis] for axis in layer.learned_axes)
    weight = positions.new_ones(count, 1, 1)
    kernels = construct_checked(weight, positions, sigma, extent, layer.interpolation)
    return kernels.flatten(1)


def _tap_indices(layer: 'DCLSConvNd', places: Tensor) -> Tensor:
    """Return the index of the tap at each place among the taps of the learned axes."""
    index = torch.zeros(places.shape[1], dtype=torch.long)
    for axis in layer.learned_axes:
        row = places[list(layer.position_axes).index(axis)]
        first, _ = layer.position_limits(axis)
        index = index * layer.extent[axis] + (row.long() - first)
    return index
