"""Files that are written whole or not at all, and locks that tell who writes them."""

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
# Flags to open a file of ours that may have been replaced with a link or a pipe.
NEITHER_FOLLOW_NOR_WAIT = getattr(os, 'O_NOFOLLOW', 0) | getattr(os, 'O_NONBLOCK', 0)


def take_lock(handle: int) -> bool:
    """Lock an open file until this process closes it or ends, however it ends.

    The lock comes from ``fcntl.lockf``. Forked children, such as a dataloader's
    workers, would inherit one from ``fcntl.flock`` and may outlive a parent that is
    killed. The limits of POSIX locks apply: a process can take its own lock again, and
    loses it as soon as it closes any of its handles on the file. On a network file
    system the lock holds as far as that system's locks do.

    Args:
        handle: a file descriptor that is open for writing.

    Returns:
        True if this process holds the lock now, False if another one does.

    Raises:
        OSError: the file system or the platform has no locks.
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
    """Write a file whole or not at all, whenever the process ends.

    The content is written and synced to a new file beside ``path``, with an
    unpredictable name; then that file replaces ``path``. If ``path`` is a link, the
    link is replaced and its target stays unchanged. Missing folders are created.

    Raises:
        OSError: the file can't be written; what was there is unchanged.
    """
    folder = os.path.dirname(path) or '.'
    os.makedirs(folder, exist_ok=True)
    unfinished, handle = _new_file(folder)
    try:
        with open(handle, 'wb') as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            if fcntl is None:  # Windows can't replace an open file; no lock to keep
                file.close()
            os.replace(unfinished, path)
    finally:
        with contextlib.suppress(OSError):  # already moved, or the first error counts
            os.remove(unfinished)
    _sync_folder(folder)


def _new_file(folder: str) -> tuple[str, int]:
    """Create a file, locked where there are locks; return its path and handle.

    Its mode follows the umask, unlike that of a file from tempfile.
    """
    while True:
        path = os.path.join(folder, _UNFINISHED.format(secrets.token_hex(8)))
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | _BINARY
        handle = os.open(path, flags, 0o666)
        with contextlib.suppress(OSError):  # without locks, nobody removes it either
            take_lock(handle)
        if os.path.lexists(path):
            return path, handle
        os.close(handle)  # `remove_unfinished` got there before the lock


def _sync_folder(folder: str) -> None:
    """Sync a file's new name to the disk before anything is removed in its favour."""
    if fcntl is None:
        return
    with contextlib.suppress(OSError):  # some network file systems can't do this
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def remove_unfinished(folder: str | Path) -> None:
    """Remove what killed writers left behind; files still being written stay."""
    for path in Path(folder).glob(_UNFINISHED.format('*')):
        with contextlib.suppress(OSError):  # already gone, not ours, or no locks here
            handle = os.open(path, os.O_RDWR | _BINARY | NEITHER_FOLLOW_NOR_WAIT)
            try:
                if stat.S_ISREG(os.fstat(handle).st_mode) and take_lock(handle):
                    os.remove(path)
            finally:
                os.close(handle)
