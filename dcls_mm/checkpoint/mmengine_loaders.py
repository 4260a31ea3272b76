"""What mmengine loads: its own training checkpoints, and under our tools only data."""

import functools
from collections.abc import Callable
from contextlib import contextmanager
from contextvars import ContextVar
from pickle import UnpicklingError
from typing import Any

from mmengine.runner.checkpoint import CheckpointLoader, _process_mmcls_checkpoint

from .content import check_content, metadata_without_wrapper, weights_of
from .errors import CheckpointError
from .reading import read_checkpoint
from .sources import is_known

# As long as data alone are read: the checkpoints that were handed on, by file name.
_handed_on: ContextVar[dict[str, Any] | None] = ContextVar('handed_on', default=None)


@contextmanager
def as_data():
    """As long as this lasts, mmengine reads checkpoints by :func:`read_checkpoint`.

    That goes for this thread, and for the files and addresses that mmengine itself
    knows. A file that holds no weights is refused with a sentence then, too, where
    mmengine would end in a traceback.
    """
    token = _handed_on.set({})
    try:
        yield
    finally:
        _handed_on.reset(token)


def hand_on(filename: str, checkpoint: Any) -> None:
    """Lets mmengine's loaders give what was read already, the next time they are asked.

    So a file that was read to be checked is not read again, and what was checked is
    what is used. It belongs to :func:`as_data`, without which nothing happens; whoever
    loads it takes it away, and may change it.

    Args:
        filename: As mmengine will name it.
        checkpoint: As mmengine's loader gave it, in main memory: model, optimizer and
            averaged weights are copied from there to their devices.
    """
    waiting = _handed_on.get()
    if waiting is not None:
        waiting[filename] = checkpoint


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
        waiting = _handed_on.get()
        if waiting and filename in waiting:
            return waiting.pop(filename)
        if waiting is not None and is_known(filename):
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
