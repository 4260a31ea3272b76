"""The work directory of a training: its lock, and the error once the disk is full."""

import contextlib
import errno
from collections.abc import Iterator

from ..checks.errors import ConfigError
from ..engine.folder_lock import FolderLock
from .launchers import is_first

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


@contextlib.contextmanager
def sole_training(work_dir: str, launcher: str) -> Iterator[list[str]]:
    """Keep other trainings out of a folder for as long as this one writes there.

    Of the processes that a launcher started, only the first one locks it.

    Args:
        work_dir: the folder.
        launcher: 'none', 'pytorch', 'slurm' or 'mpi'.

    Yields:
        The warnings to log.

    Raises:
        ConfigError: another training is using it, or nothing more can be written.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(_full_disk_explained(work_dir))
        warnings = []
        if is_first(launcher):
            lock = stack.enter_context(FolderLock(work_dir))
            warnings += [lock.warning] if lock.warning else []
        yield warnings


@contextlib.contextmanager
def _full_disk_explained(work_dir: str) -> Iterator[None]:
    """Turn the error of a full or read-only disk into a ConfigError."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise ConfigError(
            f'work_dir {work_dir}: the training stopped, as a file could not be '
            f'written ({error}); the checkpoints there are whole: free some space, and '
            'continue with --resume'
        ) from error
