"""A hook that looks at what a training takes from ``load_from``."""

import logging
import re
from collections import OrderedDict
from typing import Any, Optional

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import nn

from .checkpoint import CheckpointError

# Of the values of a backbone, or of a model without one, that a checkpoint must have.
_LEAST_SHARE = 0.5


class LoadFromHook(Hook):
    """Stops a training whose ``load_from`` is of another model, and says what is taken.

    mmengine logs what does not fit, and trains from random weights. A head for other
    classes is usual, and so is one that is missing; a backbone is not. What a layer
    itself says against a file (positions in another order, of another extent or
    interpolation) stops the training too; mmengine logs it and goes on.

    Args:
        filename: What the error calls the checkpoint.
    """

    priority = 'LOWEST'

    def __init__(self, filename: str) -> None:
        self.filename = filename

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Loads the checkpoint, as mmengine is about to, and counts.

        Raises:
            CheckpointError: none of the model's values is there, or less than half of
                its backbone's; or a layer refuses the file.
        """
        model = runner.model
        while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
            model = model.module
        given = checkpoint.get('state_dict', checkpoint)
        state_dict = OrderedDict(
            (key.removeprefix('module.'), value) for key, value in given.items()
        )
        state_dict._metadata = getattr(given, '_metadata', OrderedDict())
        notice = count_matching(model, state_dict, self.filename)
        if notice:
            print_log(notice, 'current', logging.WARNING)


def count_matching(model: nn.Module, state_dict: dict, filename: str) -> Optional[str]:
    """Loads what fits, and says how much that is.

    Comparing keys would not do: a model may rename those of older versions.

    Args:
        model: The model.
        state_dict: As read from a file.
        filename: What the error calls the checkpoint.

    Returns:
        What to log, if not all of it fits.

    Raises:
        CheckpointError: see ``LoadFromHook``.
    """
    missing, misfits, refusals = _load(model, state_dict)
    if refusals:
        raise CheckpointError(f'load_from {filename}: {"; ".join(refusals)}')
    expected = [
        key for key in model.state_dict() if not key.endswith('num_batches_tracked')
    ]
    matching = {*expected} - {*missing} - {*misfits}
    if len(matching) == len(expected):
        return None
    missing = [key for key in expected if key in {*missing}]
    lacks = '; '.join(
        f'{len(values)} {what} ({_first(values)})'
        for what, values in (
            ('are not in it', missing),
            ("don't fit", [f'{key} {shapes}' for key, shapes in misfits.items()]),
        )
        if values
    )
    backbone = [key for key in expected if 'backbone' in key.split('.')]
    part = "model's backbone" if backbone else 'model'
    needed = backbone or expected
    count = len(matching.intersection(needed))
    if count < _LEAST_SHARE * len(needed):
        raise CheckpointError(
            f'load_from {filename}: only {count} of the {len(needed)} values of the '
            f'{part} are taken from it, so it is of another model; of all '
            f'{len(expected)}, {lacks}. It holds {_first(list(state_dict))}. For '
            'weights of a part of the model give that part init_cfg=dict(type='
            "'Pretrained', checkpoint=..., prefix=...) instead"
        )
    return (
        f'load_from {filename}: {len(matching)} of {len(expected)} values are taken '
        f'from it; {lacks}: these train from their initial values'
    )


def _load(
    model: nn.Module, state_dict: dict
) -> tuple[list[str], dict[str, str], list[str]]:
    """Loads; gives keys that are missing, shapes that don't fit, and other errors."""
    missing: list[str] = []
    misfits: dict[str, str] = {}
    refusals: list[str] = []

    def note(module: nn.Module, keys: Any) -> None:
        if module is model:  # the last of all
            missing.extend(keys.missing_keys)

    handle = model.register_load_state_dict_post_hook(note)
    try:
        model.load_state_dict(state_dict, strict=False)
    except RuntimeError as error:
        for line in str(error).split('\n\t')[1:]:
            shapes = re.findall(r'torch\.Size\((.*?)\)', line)
            key = re.match(r'size mismatch for (\S+):', line)
            if key and len(shapes) == 2:
                misfits[key[1]] = f'{shapes[0]} instead of {shapes[1]}'
            else:
                refusals.append(line.strip())
    finally:
        handle.remove()
    return missing, misfits, refusals


def _first(names: list[str], count: int = 3) -> str:
    return ', '.join(names[:count]) + (', ...' if len(names) > count else '')
