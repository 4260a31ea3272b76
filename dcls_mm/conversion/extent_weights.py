"""State_dicts for layers of a different extent."""

from collections import OrderedDict
from collections.abc import Mapping

from torch import Tensor

from .state_dicts import copy_with_metadata


def without_extent(state_dict: Mapping[str, Tensor]) -> OrderedDict:
    """Make a state_dict that layers of any extent load.

    Positions and sigma are in pixels from the kernel's centre, so they mean the same in
    a larger kernel. In a smaller one, elements outside it are lost (see
    ``clamp_positions``). A FlexConv's kernel is stretched over the new extent.

    Args:
        state_dict: weights of a layer or a model; left unchanged.
    """
    converted = copy_with_metadata(state_dict)
    for notes in converted._metadata.values():
        notes.pop('extent', None)
    return converted
