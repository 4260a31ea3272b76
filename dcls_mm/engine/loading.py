"""A state_dict loaded into a model, and what of it does not fit."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import nn

from ..layers.noted import StateDictError


def unwrapped(model: nn.Module) -> nn.Module:
    """The model in what mmengine wraps around it for several processes, or for TTA."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model


class Loaded(NamedTuple):
    """What of a state_dict a model did not take.

    Attributes:
        expected: the keys that the model looks for, but the counts of batch norms,
            which files of torch < 0.4.1 lack.
        missing: those of them that the state_dict lacks.
        misfits: the keys whose values have another shape, each with both shapes.
        refusals: what a layer, or torch, has against it otherwise.
    """

    expected: list[str]
    missing: list[str]
    misfits: dict[str, str]
    refusals: list[str]


def load_what_fits(model: nn.Module, state_dict: Mapping[str, Any]) -> Loaded:
    """Loads a state_dict, as mmengine does, and says what does not fit.

    Comparing keys would not do: a model may rename those of older versions.
    """
    expected = [
        key for key in model.state_dict() if not key.endswith('num_batches_tracked')
    ]
    missing: set[str] = set()
    misfits: dict[str, str] = {}
    refusals: list[str] = []

    def note(module: nn.Module, keys: Any) -> None:
        missing.update(keys.missing_keys)

    # torch does not return the missing keys where shapes don't fit.
    handle = model.register_load_state_dict_post_hook(note)
    try:
        model.load_state_dict(state_dict, strict=False)
    except StateDictError as error:
        refusals.append(error.reason)
    except RuntimeError as error:  # a line for each trouble
        for line in str(error).split('\n\t')[1:]:
            shapes = re.findall(r'torch\.Size\((.*?)\)', line)
            key = re.match(r'size mismatch for (\S+):', line)
            if key and len(shapes) == 2:
                misfits[key[1]] = f'{shapes[0]} instead of {shapes[1]}'
            else:
                refusals.append(line.strip())
    finally:
        handle.remove()
    return Loaded(
        expected, [key for key in expected if key in missing], misfits, refusals
    )
