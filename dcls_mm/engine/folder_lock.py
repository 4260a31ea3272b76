"""A lock that lets only one training at a time write to a folder."""

import contextlib
import json
import os
import socket
import stat
import time
from typing import Any, ClassVar

from .._files import NEITHER_FOLLOW_NOR_WAIT, take_lock
from ..checks.errors import ConfigError

LOCK = '.training.lock'
_LONGEST = 1000  # bytes to read of a lock's text
_KEYS = ('process', 'host', 'since')


class FolderLock:
    """A lock of the operating system that keeps a second training out of a folder.

    The file ``.training.lock`` says who holds the lock, and stays when nobody does. The
    lock itself is the kernel's, and ends with the process, however that ends. It works
    between machines if the shared file system supports locks (NFS, unless mounted with
    ``nolock`` or ``local_lock``; most others). If there are no locks at all,
    ``warning`` says so.

    A process that holds the lock may take it again: only the first one's release
    counts. In a distributed training, the main process takes it for all.

    Args:
        folder: the folder, created if it is missing.

    Attributes:
        warning: what to tell the user about the lock, or None.
    """

    # Path of each locked folder -> its process: a forked child holds no locks.
    _held: ClassVar[dict[str, int]] = {}

    def __init__(self, folder: str | os.PathLike) -> None:
        self.folder = os.path.realpath(folder)
        self.warning: str | None = None
        self._handle: int | None = None

    def acquire(self) -> 'FolderLock':
        """Take the lock.

        Raises:
            ConfigError: another training holds it, or the folder can't be written to.
        """
        if self._held.get(self.folder) == os.getpid():
            return self
        handle = self._open()
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise ConfigError(
                    f'work_dir {self.folder}: {LOCK} is not a regular file; remove it'
                )
            self._take(handle)
        except BaseException:
            os.close(handle)
            raise
        self._held[self.folder] = os.getpid()
        self._handle = handle
        return self

    def _open(self) -> int:
        path = os.path.join(self.folder, LOCK)
        flags = os.O_RDWR | os.O_CREAT | NEITHER_FOLLOW_NOR_WAIT
        try:
            os.makedirs(self.folder, exist_ok=True)
            return os.open(path, flags, 0o666)
        except OSError as error:
            raise ConfigError(
                f"work_dir {self.folder}: can't be written to ({error.strerror}: "
                f'{error.filename}); choose another by --work-dir'
            ) from error

    def _take(self, handle: int) -> None:
        try:
            if not take_lock(handle):
                raise ConfigError(
                    f'work_dir {self.folder}: another training writes there'
                    f'{_describe(os.read(handle, _LONGEST))}; wait until it ends, or '
                    'choose another folder by --work-dir'
                )
        except OSError as error:
            self.warning = (
                f"work_dir {self.folder}: can't be locked ({error.strerror}); make "
                'sure that no other training writes there'
            )
        try:
            # Whoever may write to the folder may lock it, also after another user.
            with contextlib.suppress(PermissionError):
                os.chmod(handle, os.stat(self.folder).st_mode & 0o666)
            os.ftruncate(handle, 0)
            os.write(handle, _own_entry())
        except OSError as error:
            raise ConfigError(
                f"work_dir {self.folder}: can't be written to ({error.strerror})"
            ) from error

    def release(self) -> None:
        """Release the lock; a no-op if this object did not take it."""
        if self._handle is not None:
            del self._held[self.folder]
            os.close(self._handle)
            self._handle = None

    def __enter__(self) -> 'FolderLock':
        return self.acquire()

    def __exit__(self, *_: Any) -> None:
        self.release()


def _own_entry() -> bytes:
    now = time.strftime('%Y-%m-%d %H:%M:%S %z')
    values = (os.getpid(), socket.gethostname()[:200], now)
    return json.dumps(dict(zip(_KEYS, values))).encode()


def _describe(entry: bytes) -> str:
    """Describe who holds a lock; return '' if the file does not say so (yet)."""
    with contextlib.suppress(ValueError, RecursionError):
        holder = json.loads(entry)
        if isinstance(holder, dict):
            named = [f'{key} {holder[key]!r}' for key in _KEYS if key in holder]
            return f' ({", ".join(named)})' if named else ''
    return ''
