"""A hook that checks what a training takes from ``load_from``."""

import logging

from mmengine.hooks import Hook
from mmengine.logging import print_log
from torch import nn

from ..._listing import listing
from ...checkpoint import CheckpointError, weights_of, without_wrapper
from ...checkpoint.matching import load_what_fits, unwrapped

# The share of a backbone's (or else model's) values that a checkpoint must have.
_LEAST_SHARE = 0.5


class LoadFromHook(Hook):
    """A hook that stops a training whose ``load_from`` belongs to another model.

    mmengine logs what does not fit, and trains from random weights. It is normal that a
    head is missing or has other classes, but not that a backbone does not fit. A layer
    that refuses a file (for positions in another order, or another extent or
    interpolation) stops the training too; mmengine would log it and continue.

    Args:
        filename: the checkpoint's name in the error message.
    """

    # Before mmengine's EMAHook, which takes the weights by the model's names.
    priority = 'HIGHEST'

    def __init__(self, filename: str) -> None:
        self.filename = filename

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Load the checkpoint, as mmengine is about to, and log what does not fit.

        Raises:
            CheckpointError: less than half of the backbone's values are there, or of
                the model's if it has no backbone; or a layer refuses the file.
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
    """Load what fits, and describe how much that is.

    Args:
        model: the model.
        state_dict: as read from a file.
        filename: the checkpoint's name in the error message.

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
            f'{part} are taken from it, so it belongs to another model; of all '
            f'{len(expected)}, {lacks}. It holds {listing(list(state_dict), 3)}. To '
            'load weights into a part of the model, give that part init_cfg=dict(type='
            "'Pretrained', checkpoint=..., prefix=...) instead"
        )
    return (
        f'load_from {filename}: {len(matching)} of {len(expected)} values are taken '
        f'from it; {lacks}: these keep their initial values'
    )
