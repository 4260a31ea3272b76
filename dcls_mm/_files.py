"""Files that are there whole or not at all, and the locks that tell who writes them."""

import contextlib
import errno
import os
import secrets
import stat
from pathlib import Path

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None

_UNFINISHED = '.dcls_mm-{}.unfinished'
_BINARY = getattr(os, 'O_BINARY', 0)
# What must not happen if somebody put something else in the place of a file of ours.
NEITHER_FOLLOW_NOR_WAIT = getattr(os, 'O_NOFOLLOW', 0) | getattr(os, 'O_NONBLOCK', 0)


def take_lock(handle: int) -> bool:
    """Locks an open file until this process closes it or ends, however it ends.

    A lock of ``fcntl.lockf`` and not of ``fcntl.flock``, as forked children such as a
    dataloader's workers inherit the latter, and live on for a while if their parent is
    killed. It has the limits of POSIX locks: a process takes its own lock again, and
    loses it as soon as it closes any of its handles on the file. Over network file
    systems it reaches as far as their locks do.

    Args:
        handle: Of a file that is open for writing.

    Returns:
        Whether it is this process's now; else another has it.

    Raises:
        OSError: there are no locks on this file system, or on this platform.
    """
    if fcntl is None:
        raise OSError(errno.ENOSYS, 'Python has no file locks on this platform')
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return False
        raise
    return True


def write_whole(path: str | Path, content: bytes) -> None:
    """Writes a file, which is there whole or not at all, whenever the process ends.

    The content goes to a new file beside ``path``, with a name that nobody can
    foresee, and to the disk; then that file takes the place of ``path``. Where
    ``path`` is a link, it takes the link's place, and what the link named stays as it
    is. Folders that are missing are made.

    Raises:
        OSError: it can't be written; what was there is unchanged.
    """
    folder = os.path.dirname(path) or '.'
    os.makedirs(folder, exist_ok=True)
    unfinished, handle = _new_file(folder)
    try:
        with open(handle, 'wb') as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            if fcntl is None:  # Windows replaces no open file, and has no lock to keep
                file.close()
            os.replace(unfinished, path)
    finally:
        with contextlib.suppress(OSError):  # done, or the first error counts
            os.remove(unfinished)
    _sync_folder(folder)


def _new_file(folder: str) -> tuple[str, int]:
    """The path of a new file and the handle of it, locked where there are locks.

    Its mode is the usual one, which those of tempfile don't have.
    """
    while True:
        path = os.path.join(folder, _UNFINISHED.format(secrets.token_hex(8)))
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | _BINARY
        handle = os.open(path, flags, 0o666)
        with contextlib.suppress(OSError):  # without locks nobody removes it either
            take_lock(handle)
        if os.path.lexists(path):
            return path, handle
        os.close(handle)  # `remove_unfinished` came before the lock


def _sync_folder(folder: str) -> None:
    """Brings a file's new name to the disk, before anything is removed for it."""
    if fcntl is None:
        return
    with contextlib.suppress(OSError):  # some network file systems don't do this
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def remove_unfinished(folder: str | Path) -> None:
    """Removes what writers left that were killed; a file still being written stays."""
    for path in Path(folder).glob(_UNFINISHED.format('*')):
        with contextlib.suppress(OSError):  # gone by now, not ours, or without locks
            handle = os.open(path, os.O_RDWR | _BINARY | NEITHER_FOLLOW_NOR_WAIT)
            try:
                if stat.S_ISREG(os.fstat(handle).st_mode) and take_lock(handle):
                    os.remove(path)
            finally:
                os.close(handle)
