"""One training at a time may write to a folder; a killed one blocks nobody."""

import errno
import os
import re
import signal
import socket
import stat

import pytest
from processes import child

from dcls_mm.checks.errors import ConfigError
from dcls_mm.engine import folder_lock
from dcls_mm.engine.folder_lock import LOCK, FolderLock


def hold(folder):
    return FolderLock(folder).acquire()


def is_free(folder):
    """Return whether another process could take the lock."""

    def take():
        with FolderLock(folder):
            pass

    try:
        with child(take):
            return True
    except AssertionError:
        return False


def test_another_process_is_refused_and_told_who_holds_it(tmp_path):
    folder = tmp_path / 'made' / 'for it'
    with child(hold, folder) as other:
        with pytest.raises(ConfigError) as caught:
            hold(folder)
        message = str(caught.value)
        assert f'work_dir {folder}: another training' in message
        assert f'process {other.pid}, host {socket.gethostname()!r}' in message
        assert re.search(r"since '\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}'", message)


def test_a_killed_process_keeps_nobody_out(tmp_path):
    with child(hold, tmp_path) as other:
        other.kill()
        assert (tmp_path / LOCK).exists()
        with FolderLock(tmp_path):
            assert not is_free(tmp_path)
    assert is_free(tmp_path)


def test_a_worker_that_outlives_its_killed_training_keeps_nobody_out(tmp_path):
    number = tmp_path / 'worker'

    def hold_and_fork():
        lock = hold(tmp_path)
        worker = os.fork()
        if worker == 0:
            signal.alarm(60)
            signal.pause()
        number.write_text(str(worker))
        return lock

    with child(hold_and_fork) as training:
        training.kill()
    worker = int(number.read_text())
    try:
        os.kill(worker, 0)  # still running
        with FolderLock(tmp_path):
            pass
    finally:
        os.kill(worker, signal.SIGKILL)


def test_the_process_that_holds_it_may_take_it_again(tmp_path):
    link = tmp_path / 'link'
    link.symlink_to('folder')
    (tmp_path / 'folder').mkdir()
    with FolderLock(tmp_path / 'folder'):
        with FolderLock(link):
            pass
        assert not is_free(link)
    assert is_free(tmp_path / 'folder')
    FolderLock(link).release()


def test_a_forked_child_does_not_hold_it(tmp_path):
    with FolderLock(tmp_path):
        assert not is_free(tmp_path)


@pytest.mark.parametrize(
    'entry', [b'', b'\0' * 99, b'[' * 900, b'{"process": 1', b'3', b'\xff{}', b'{}']
)
def test_an_entry_that_says_nothing(tmp_path, entry):
    with child(hold, tmp_path):
        (tmp_path / LOCK).write_bytes(entry)
        with pytest.raises(ConfigError, match='another training writes there; wait'):
            hold(tmp_path)


def test_the_lock_file_is_for_whoever_may_write_to_the_folder(tmp_path):
    for mode in (0o700, 0o755, 0o775, 0o777):
        tmp_path.chmod(mode)
        with FolderLock(tmp_path):
            assert stat.S_IMODE((tmp_path / LOCK).stat().st_mode) == mode & 0o666


def put_pipe(path):
    os.mkfifo(path)


@pytest.mark.parametrize(
    ('put', 'message'),
    [
        (put_pipe, 'is not a regular file; remove it'),
        (os.mkdir, "can't be written to"),
        (lambda path: os.symlink('elsewhere', path), "can't be written to"),
    ],
)
def test_something_else_in_its_place(tmp_path, put, message):
    put(tmp_path / LOCK)
    with pytest.raises(ConfigError, match=message):
        hold(tmp_path)
    assert not (tmp_path / 'elsewhere').exists()


def test_a_folder_that_can_not_be_made(tmp_path):
    (tmp_path / 'file').write_bytes(b'')
    for path, reason in (('file', 'File exists'), ('file/x', 'Not a directory')):
        with pytest.raises(
            ConfigError, match=rf"can't be written to \({reason}.*--work"
        ):
            hold(tmp_path / path)


def test_a_full_disk(tmp_path, monkeypatch):
    def fail(*arguments):
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(folder_lock.os, 'write', fail)
    with pytest.raises(ConfigError, match=r"can't be written to \(No space left"):
        hold(tmp_path)
    monkeypatch.undo()
    assert is_free(tmp_path)


def test_without_locks_it_says_so(tmp_path, monkeypatch):
    def fail(handle):
        raise OSError(errno.ENOLCK, 'No locks available')

    monkeypatch.setattr(folder_lock, 'take_lock', fail)
    with FolderLock(tmp_path) as lock:
        assert "can't be locked (No locks available); make sure" in lock.warning
