"""Checkpoints read as data: checked before, during and after torch reads them."""

from .content import (
    ANY_CONTAINER_KEYS,
    check_content,
    check_training,
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
    'ANY_CONTAINER_KEYS',
    'CheckpointError',
    'ContentError',
    'DamagedCheckpointError',
    'MissingCheckpointError',
    'check_content',
    'check_training',
    'read_checkpoint',
    'weights_of',
    'without_wrapper',
]
