"""What the conversions share: finding the layers of a state_dict, and its metadata."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Optional

from torch import Tensor


def layers_with_positions(state_dict: Mapping[str, Tensor], prefix: str) -> list[str]:
    """What comes before ``P`` in the keys of each layer, such as 'stages.0.dwconv.'.

    Raises:
        ValueError: no key under ``prefix`` is the P of a layer with a weight.
    """
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
            'give the weights themselves, not a checkpoint around them, and a prefix '
            f'that they have. Its keys start with {list(state_dict)[:4]}'
        )
    return layers


def layer_metadata(state_dict: Mapping[str, Tensor], layer: str) -> dict:
    """What torch and the layer have noted of themselves; empty if nothing."""
    return (getattr(state_dict, '_metadata', None) or {}).get(layer[:-1], {})


def copy_with_metadata(state_dict: Mapping[str, Tensor]) -> OrderedDict:
    """A copy of the dictionary and of its metadata; the tensors are the same."""
    copied = OrderedDict(state_dict)
    metadata = getattr(state_dict, '_metadata', None) or {}
    copied._metadata = OrderedDict((name, dict(of)) for name, of in metadata.items())
    return copied


def note_position_axes(
    state_dict: OrderedDict, layer: str, axes: Optional[tuple[int, ...]]
) -> None:
    """Say which axes the rows of a layer's P stand for; None: as in other packages."""
    metadata = state_dict._metadata.setdefault(layer[:-1], {})
    metadata.setdefault('version', 1)
    if axes is not None:
        metadata['position_axes'] = axes
        return
    for own in ('position_axes', 'extent', 'interpolation'):
        metadata.pop(own, None)


def refuse_converted(state_dict: Mapping[str, Tensor], layer: str) -> None:
    """Raise a ValueError if the layer is one of dcls_mm's already."""
    if 'position_axes' in layer_metadata(state_dict, layer):
        raise ValueError(
            f'{layer}P is of a layer of dcls_mm already, as the metadata of state_dict '
            'tell: load it as it is'
        )
