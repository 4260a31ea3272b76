"""What mmengine loads: its own training checkpoints, and under our tools only data."""

import functools
from collections.abc import Callable
from contextlib import contextmanager
from contextvars import ContextVar
from pickle import UnpicklingError
from typing import Any

from mmengine.runner.checkpoint import CheckpointLoader, _process_mmcls_checkpoint

from . import (
    CheckpointError,
    DamagedCheckpointError,
    MissingCheckpointError,
    check_content,
    check_training,
    read_checkpoint,
    weights_of,
    without_wrapper,
)
from .content import metadata_without_wrapper
from .sources import is_known

__all__ = [
    'CheckpointError',
    'DamagedCheckpointError',
    'MissingCheckpointError',
    'as_data',
    'check_content',
    'check_training',
    'load_checkpoint_file',
    'read_checkpoint',
    'weights_of',
    'widen_mmengine',
    'without_wrapper',
]

_only_data: ContextVar[bool] = ContextVar('only_data', default=False)


def load_checkpoint_file(filename: str, map_location: Any = None) -> Any:
    """:func:`.read_checkpoint`, with torch's default for the place of tensors."""
    return read_checkpoint(filename, map_location)


@contextmanager
def as_data():
    """As long as this lasts, mmengine reads checkpoints by :func:`read_checkpoint`.

    That goes for this thread, and for the files and addresses that mmengine itself
    knows. A file that holds no weights is refused with a sentence then, too, where
    mmengine would end in a traceback.
    """
    token = _only_data.set(True)
    try:
        yield
    finally:
        _only_data.reset(token)


def widen_mmengine() -> None:
    """Lets mmengine load its own training checkpoints, which torch refuses since 2.6.

    Nothing else changes where :func:`as_data` is not in force: what mmengine's loaders
    load, they load as before; where torch refuses a file, it is read as data, and if
    that can't be done either, torch's error stands.
    """
    for prefix, loader in list(CheckpointLoader._schemes.items()):
        # An earlier import of this module asks its own `_only_data`.
        loader = getattr(loader, 'as_before', loader)
        CheckpointLoader.register_scheme(prefix, _widened(loader), force=True)


def _widened(loader: Callable) -> Callable:
    @functools.wraps(loader)
    def load(filename, map_location=None, **options):
        if _only_data.get() and is_known(filename):
            checkpoint = read_checkpoint(filename, map_location)
            check_content(checkpoint, filename)
            weights = weights_of(checkpoint, filename)
            if hasattr(weights, '_metadata'):
                weights._metadata = metadata_without_wrapper(weights)
        else:
            try:
                return loader(filename, map_location, **options)
            except UnpicklingError as refusal:
                try:
                    checkpoint = read_checkpoint(filename, map_location)
                except CheckpointError:
                    raise refusal from None
        if filename.startswith('mmcls://'):
            return _process_mmcls_checkpoint(checkpoint)
        return checkpoint

    load.as_before = loader
    return load
