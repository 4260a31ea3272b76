"""Loading a state_dict into a model, and telling what does not fit."""

import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, NamedTuple

from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import nn

from .._listing import listing
from ..layers.noted import StateDictError
from .content import weights_of, without_wrapper
from .errors import CheckpointError


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model inside mmengine's wrappers for several processes or TTA."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model


class Loaded(NamedTuple):
    """What did not fit when a state_dict was loaded into a model.

    Attributes:
        expected: the keys that the model looks for, except the counts of batch norms,
            which files of torch < 0.4.1 lack.
        missing: the expected keys that the state_dict lacks.
        misfits: the keys with a shape mismatch, each with both shapes.
        refusals: other objections of a layer or torch.
    """

    expected: list[str]
    missing: list[str]
    misfits: dict[str, str]
    refusals: list[str]


def load_what_fits(model: nn.Module, state_dict: Mapping[str, Any]) -> Loaded:
    """Load a state_dict as mmengine does, and return what does not fit.

    Comparing keys is not enough: a model may rename those of older versions.
    """
    expected = [
        key for key in model.state_dict() if not key.endswith('num_batches_tracked')
    ]
    missing: set[str] = set()
    misfits: dict[str, str] = {}
    refusals: list[str] = []

    def note(module: nn.Module, keys: Any) -> None:
        missing.update(keys.missing_keys)

    # torch does not return the missing keys if there is a shape mismatch.
    handle = model.register_load_state_dict_post_hook(note)
    try:
        model.load_state_dict(state_dict, strict=False)
    except StateDictError as error:
        refusals.append(error.reason)
    except RuntimeError as error:  # with a line per problem
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


def load_matching(
    model: nn.Module, checkpoint: dict, filename: str
) -> OrderedDict[str, Any]:
    """Load a checkpoint that has every parameter and buffer of the model.

    Args:
        model: the model, which may be wrapped for training or testing.
        checkpoint: as read from a file, or a state_dict.
        filename: the checkpoint's name in the error message.

    Returns:
        The state_dict that was loaded, under the model's names.

    Raises:
        CheckpointError: keys are missing, shapes differ, or a layer refuses the file.
    """
    state_dict = without_wrapper(weights_of(checkpoint, filename))
    loaded = load_what_fits(unwrapped(model), state_dict)
    if loaded.refusals:
        raise CheckpointError(f'checkpoint {filename}: {"; ".join(loaded.refusals)}')
    misfits = [f'{key} {shapes}' for key, shapes in loaded.misfits.items()]
    found = [
        f'{len(values)} of {len(loaded.expected)} values {what} ({listing(values, 3)})'
        for what, values in (('are missing', loaded.missing), ("don't fit", misfits))
        if values
    ]
    if found:
        raise CheckpointError(
            f'checkpoint {filename} belongs to another model than the config '
            f'describes: {" and ".join(found)}; it holds '
            f'{listing(list(state_dict), 3)}'
        )
    return state_dict
