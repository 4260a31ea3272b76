"""The folder of a training: for it alone, and what is said once it is full."""

import contextlib
import errno
from collections.abc import Iterator

from ..checks.errors import ConfigError
from ..engine.folder_lock import FolderLock
from .launchers import is_first

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


@contextlib.contextmanager
def sole_training(work_dir: str, launcher: str) -> Iterator[list[str]]:
    """Keeps other trainings out of a folder for as long as this one writes there.

    Of the processes that a launcher started only the first one locks it.

    Args:
        work_dir: The folder.
        launcher: 'none', 'pytorch', 'slurm' or 'mpi'.

    Yields:
        What there is to warn of.

    Raises:
        ConfigError: another training is at work there, or nothing more can be written.
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
    """Makes a sentence of what happens where logs can't be written any more."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise ConfigError(
            f'work_dir {work_dir}: the training stopped, as a file could not be '
            f'written ({error}); the checkpoints there are whole: make room, and go '
            'on by --resume'
        ) from error
