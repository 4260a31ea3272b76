"""What the conversions share: layers, values and metadata of a state_dict."""

from collections import OrderedDict
from collections.abc import Mapping

from torch import Tensor, nn

from ..functional import INTERPOLATIONS
from ..functional.interpolation import interpolation_name
from ..layers.noted import as_noted, is_other_interpolation

SHOWN_KEYS = 4


def check_state_dict(state_dict: Mapping[str, Tensor]) -> None:
    """Raise a TypeError unless it is a dict with string keys and valid metadata."""
    if not isinstance(state_dict, Mapping):
        hint = ''
        if isinstance(state_dict, nn.Module):
            hint = ': call its state_dict()'
        elif isinstance(state_dict, (str, bytes)):
            hint = ': load the file and pass the weights in it'
        raise TypeError(
            'state_dict must be a dict of tensors by name, as state_dict() of a module '
            f'gives, got {type(state_dict).__name__}{hint}'
        )
    for key in state_dict:
        if not isinstance(key, str):
            raise TypeError(
                'the keys of state_dict must be the names of parameters, got '
                f'{key!r} ({type(key).__name__})'
            )
    metadata = getattr(state_dict, '_metadata', None)
    values = [metadata] if metadata is not None else []
    if isinstance(metadata, Mapping):
        values += metadata.values()
    for value in values:
        if not isinstance(value, Mapping):
            raise TypeError(
                '_metadata of state_dict must be a dict with one dict per module, '
                f'got {value!r}'
            )


def real_tensor(state_dict: Mapping[str, Tensor], key: str) -> Tensor:
    """Return the value of a key; raise a TypeError unless it is a real tensor."""
    value = state_dict[key]
    if not isinstance(value, Tensor) or not value.is_floating_point():
        got = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f'{key} must be a tensor of floating point, got {got}')
    return value


def real_sigma(
    state_dict: Mapping[str, Tensor], layer: str, argument: str, value: str
) -> Tensor | None:
    """Return the SIG of a layer, or None if its interpolation has none.

    Args:
        argument, value: name and value of the argument that gives the interpolation,
            such as 'version' and 'gauss'.

    Raises:
        ValueError: SIG is missing, or the interpolation has none.
    """
    key = f'{layer}SIG'
    given = key in state_dict
    if INTERPOLATIONS[interpolation_name(value)].has_sigma != given:
        raise ValueError(
            f'state_dict {"has" if given else "lacks"} {key}, which only {argument}s '
            f"'max' and 'gauss' have: {argument} can't be {value!r}"
        )
    return real_tensor(state_dict, key) if given else None


def layers_with_positions(state_dict: Mapping[str, Tensor], prefix: str) -> list[str]:
    """List what precedes ``P`` in the keys of each layer, such as 'stages.0.dwconv.'.

    Raises:
        TypeError: ``prefix`` is not a string.
        ValueError: no key under ``prefix`` is the P of a layer with a weight.
    """
    check_prefix(prefix)
    layers = [
        key[:-1]
        for key in state_dict
        if key.startswith(prefix)
        and key.split('.')[-1] == 'P'
        and f'{key[:-1]}weight' in state_dict
    ]
    if not layers:
        raise ValueError(
            f'state_dict has no layer with P and weight under the prefix {prefix!r}; '
            'pass the weights themselves, not a checkpoint around them, and a prefix '
            f'that they have. Its first keys are {list(state_dict)[:SHOWN_KEYS]}'
        )
    return layers


def check_prefix(prefix: str) -> None:
    """Raise a TypeError unless ``prefix`` is a string."""
    if not isinstance(prefix, str):
        raise TypeError(
            f"prefix must be what keys start with, such as 'backbone.', got {prefix!r}"
        )


def layer_metadata(state_dict: Mapping[str, Tensor], layer: str) -> dict:
    """Return what torch and the layer have noted about themselves, if anything."""
    return (getattr(state_dict, '_metadata', None) or {}).get(layer[:-1], {})


def copy_with_metadata(state_dict: Mapping[str, Tensor]) -> OrderedDict:
    """Copy the dictionary and its metadata, but not the tensors.

    Raises:
        TypeError: see :func:`check_state_dict`.
    """
    check_state_dict(state_dict)
    copied = OrderedDict(state_dict)
    metadata = getattr(state_dict, '_metadata', None) or {}
    copied._metadata = OrderedDict((name, dict(of)) for name, of in metadata.items())
    return copied


def under(state_dict: Mapping[str, Tensor], prefix: str) -> OrderedDict:
    """Return what is under a prefix, without it; the metadata are kept."""
    start = len(prefix)
    inside = OrderedDict(
        (key[start:], value)
        for key, value in state_dict.items()
        if key.startswith(prefix)
    )
    metadata = getattr(state_dict, '_metadata', None) or {}
    inside._metadata = OrderedDict(
        (f'{name}.'[start:-1], of)
        for name, of in metadata.items()
        if f'{name}.'.startswith(prefix)
    )
    return inside


def noted_axes(
    state_dict: Mapping[str, Tensor], layer: str, default: tuple[int, ...] | None
) -> tuple[int, ...] | None:
    """Return the axes of the rows of a layer's P; ``default`` if none are noted.

    Raises:
        ValueError: what is noted is not a tuple of axes.
    """
    axes = layer_metadata(state_dict, layer).get('position_axes', default)
    if axes is default:
        return default
    if not isinstance(axes, (tuple, list)) or not all(type(a) is int for a in axes):
        raise ValueError(
            f'the metadata of state_dict must give axes for {layer}P, such as (0, 1), '
            f'got {axes!r}'
        )
    return tuple(axes)


def note_position_axes(
    state_dict: OrderedDict, layer: str, axes: tuple[int, ...] | None
) -> None:
    """Note the axes of the rows of a layer's P; None removes all notes of dcls_mm."""
    metadata = state_dict._metadata.setdefault(layer[:-1], {})
    metadata.setdefault('version', 1)
    if axes is not None:
        metadata['position_axes'] = axes
        return
    for own in ('position_axes', 'extent', 'interpolation'):
        metadata.pop(own, None)


def refuse_converted(state_dict: Mapping[str, Tensor], layer: str) -> None:
    """Raise a ValueError if the layer already belongs to dcls_mm."""
    if 'position_axes' in layer_metadata(state_dict, layer):
        raise ValueError(
            f'{layer}P is of a layer of dcls_mm already, as the metadata of state_dict '
            'say: load it as it is'
        )


def refuse_turned(state_dict: Mapping[str, Tensor], layer: str, target: str) -> None:
    """Raise a ValueError if a layer turns its elements, which ``target`` does not."""
    count = layer_metadata(state_dict, layer).get('orientations', 1)
    if count != 1 or f'{layer}mixtures' in state_dict:
        raise ValueError(
            f'{layer}P is of a layer that turns its elements, which {target} does not: '
            'fold the model with switch_to_deploy where the angles are fixed, and save '
            'that'
        )


def refuse_local(state_dict: Mapping[str, Tensor], layer: str, target: str) -> None:
    """Raise a ValueError if a layer has a local branch, which ``target`` has not."""
    if f'{layer}local_weight' in state_dict:
        raise ValueError(
            f'{layer}local_weight must not be in the state_dict, as {target} has no '
            'local branch: train without local_size'
        )


def check_noted(
    state_dict: Mapping[str, Tensor],
    layer: str,
    argument: str,
    interpolation: str,
    extent: tuple[int, ...] | None = None,
) -> None:
    """Raise a ValueError if a layer's metadata contradict the arguments.

    Args:
        argument: what gives the interpolation, such as ``version='gauss'``.
        interpolation: name of the interpolation.
        extent: extent in taps; None for any.
    """
    notes = layer_metadata(state_dict, layer)
    noted = notes.get('interpolation')
    if is_other_interpolation(noted, interpolation):
        raise ValueError(
            f'{layer}P is of interpolation {noted!r}, as the metadata of state_dict '
            f'say: {argument} would compute something else'
        )
    noted = as_noted(notes.get('extent'))
    if extent is not None and noted not in (None, extent):
        raise ValueError(
            f'{layer}P is of the extent {noted}, as the metadata of state_dict say, '
            f'got {extent}; conversion.without_extent(state_dict) allows another one'
        )
