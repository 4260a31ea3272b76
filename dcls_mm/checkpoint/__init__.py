"""Checkpoints read as data, with checks before, while and after torch reads them."""

from .content import (
    check_content,
    check_training,
    tensors_of,
    weights_of,
    without_wrapper,
)
from .errors import (
    CheckpointError,
    ContentError,
    DamagedCheckpointError,
    MissingCheckpointError,
)
from .reading import read_checkpoint

__all__ = [
    'CheckpointError',
    'ContentError',
    'DamagedCheckpointError',
    'MissingCheckpointError',
    'check_content',
    'check_training',
    'read_checkpoint',
    'tensors_of',
    'weights_of',
    'without_wrapper',
]
