"""A hook that looks at what a training takes from ``load_from``."""

import logging

from mmengine.hooks import Hook
from mmengine.logging import print_log
from torch import nn

from ..._listing import listing
from ...checkpoint import CheckpointError, weights_of, without_wrapper
from ...checkpoint.matching import load_what_fits, unwrapped

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

    # Before mmengine's EMAHook, which takes them from state_dict by the model's names.
    priority = 'HIGHEST'

    def __init__(self, filename: str) -> None:
        self.filename = filename

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Loads the checkpoint, as mmengine is about to, and counts.

        Raises:
            CheckpointError: none of the model's values is there, or less than half of
                its backbone's; or a layer refuses the file.
        """
        checkpoint['state_dict'] = without_wrapper(
            weights_of(checkpoint, self.filename)
        )
        notice = count_matching(
            unwrapped(runner.model), checkpoint['state_dict'], self.filename
        )
        if notice:
            print_log(notice, 'current', logging.WARNING)


def count_matching(model: nn.Module, state_dict: dict, filename: str) -> str | None:
    """Loads what fits, and says how much that is.

    Args:
        model: The model.
        state_dict: As read from a file.
        filename: What the error calls the checkpoint.

    Returns:
        What to log, if not all of it fits.

    Raises:
        CheckpointError: see ``LoadFromHook``.
    """
    expected, missing, misfits, refusals = load_what_fits(model, state_dict)
    if refusals:
        raise CheckpointError(f'load_from {filename}: {"; ".join(refusals)}')
    matching = {*expected} - {*missing} - {*misfits}
    if len(matching) == len(expected):
        return None
    lacks = '; '.join(
        f'{len(values)} {what} ({listing(values, 3)})'
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
            f'{len(expected)}, {lacks}. It holds {listing(list(state_dict), 3)}. For '
            'weights of a part of the model give that part init_cfg=dict(type='
            "'Pretrained', checkpoint=..., prefix=...) instead"
        )
    return (
        f'load_from {filename}: {len(matching)} of {len(expected)} values are taken '
        f'from it; {lacks}: these train from their initial values'
    )
