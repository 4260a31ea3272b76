"""mmengine's loaders, able to read training checkpoints and, for our tools, as data."""

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

# While `as_data` is in force: the checkpoints that were handed on, by file name.
_handed_on: ContextVar[dict[str, Any] | None] = ContextVar('handed_on', default=None)


@contextmanager
def as_data():
    """Make mmengine read checkpoints with :func:`read_checkpoint` inside the block.

    This applies to the current thread, and to the files and URLs that mmengine itself
    knows. It also refuses a file without weights with a clear message, where mmengine
    would end in a traceback.
    """
    token = _handed_on.set({})
    try:
        yield
    finally:
        _handed_on.reset(token)


def hand_on(filename: str, checkpoint: Any) -> None:
    """Let mmengine's loaders return a checkpoint that was already read, once.

    A file that was read to be checked is then not read again, and what was checked is
    what is used. Outside :func:`as_data` this is a no-op. Whoever loads the checkpoint
    owns it, and may change it.

    Args:
        filename: as mmengine will name it.
        checkpoint: as mmengine's loader returned it, in main memory: model, optimizer
            and averaged weights are copied from there to their devices.
    """
    waiting = _handed_on.get()
    if waiting is not None:
        waiting[filename] = checkpoint


def widen_mmengine() -> None:
    """Let mmengine load its own training checkpoints, which torch refuses since 2.6.

    Outside :func:`as_data` nothing else changes: whatever mmengine's loaders can load,
    they load as before. A file that torch refuses is read as data; if that fails too,
    torch's error is raised.
    """
    for prefix, loader in list(CheckpointLoader._schemes.items()):
        # A loader from an earlier import of this module has its own `_handed_on`.
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
