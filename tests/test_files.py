"""Files are complete or absent, and written under unpredictable names."""

import errno
import os
import resource
import signal
import stat

import pytest
from processes import child

from dcls_mm import _files
from dcls_mm._files import remove_unfinished, take_lock, write_whole


def left(folder):
    return sorted(os.listdir(folder))


def test_folders_are_made_and_files_replaced(tmp_path):
    path = tmp_path / 'a' / 'b' / 'x'
    for content in (b'', b'first', b'second'):
        write_whole(path, content)
        assert path.read_bytes() == content
    assert left(path.parent) == ['x']


def test_a_name_in_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_whole('x', b'1')
    assert left(tmp_path) == ['x']


@pytest.mark.parametrize('umask', [0o022, 0o077, 0o002])
def test_the_mode_is_that_of_any_new_file(tmp_path, umask):
    before = os.umask(umask)
    try:
        write_whole(tmp_path / 'x', b'1')
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / 'x').stat().st_mode) == 0o666 & ~umask


def test_a_link_is_replaced_and_not_written_through(tmp_path):
    (tmp_path / 'kept').write_bytes(b'precious')
    (tmp_path / 'x').symlink_to('kept')
    (tmp_path / 'loop').symlink_to('loop')
    for name in ('x', 'loop'):
        write_whole(tmp_path / name, b'new')
        assert not (tmp_path / name).is_symlink()
        assert (tmp_path / name).read_bytes() == b'new'
    assert (tmp_path / 'kept').read_bytes() == b'precious'


def test_a_name_that_is_taken_is_not_followed(tmp_path, monkeypatch):
    (tmp_path / 'kept').write_bytes(b'precious')
    monkeypatch.setattr(_files.secrets, 'token_hex', lambda size: 'guessed')
    (tmp_path / '.dcls_mm-guessed.unfinished').symlink_to('kept')
    with pytest.raises(FileExistsError):
        write_whole(tmp_path / 'x', b'new')
    assert (tmp_path / 'kept').read_bytes() == b'precious'
    assert left(tmp_path) == ['.dcls_mm-guessed.unfinished', 'kept']


def test_names_can_not_be_foreseen(tmp_path):
    names = set()
    for _ in range(20):
        path, handle = _files._new_file(str(tmp_path))
        names.add(path)
        os.close(handle)
    assert len(names) == 20


@pytest.mark.parametrize('call', ['fsync', 'replace'])
def test_a_failure_leaves_what_was_there(tmp_path, monkeypatch, call):
    write_whole(tmp_path / 'x', b'old')

    def fail(*arguments):
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(_files.os, call, fail)
    with pytest.raises(OSError, match='No space left'):
        write_whole(tmp_path / 'x', b'new')
    assert left(tmp_path) == ['x']
    assert (tmp_path / 'x').read_bytes() == b'old'


def test_a_file_larger_than_the_limit_leaves_nothing(tmp_path):
    """Writing really fails halfway, as on a full disk."""

    def write():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        with pytest.raises(OSError, match='File too large'):
            write_whole(tmp_path / 'x', b'n' * 5000)

    write_whole(tmp_path / 'x', b'old')
    with child(write):
        assert left(tmp_path) == ['x']
    assert (tmp_path / 'x').read_bytes() == b'old'


def test_what_a_killed_writer_left_is_removed_and_others_are_not(tmp_path):
    for name in ('x.tmp', '.hidden', 'epoch_1.pth'):
        (tmp_path / name).write_bytes(b'1')
    with child(_files._new_file, str(tmp_path)) as writer:
        (running,) = set(left(tmp_path)) - {'x.tmp', '.hidden', 'epoch_1.pth'}
        remove_unfinished(tmp_path)
        assert running in left(tmp_path)
        writer.kill()
    assert running in left(tmp_path)
    remove_unfinished(tmp_path)
    assert left(tmp_path) == ['.hidden', 'epoch_1.pth', 'x.tmp']


def test_what_only_has_the_name_of_a_left_over_stays(tmp_path):
    (tmp_path / 'kept').write_bytes(b'precious')
    (tmp_path / '.dcls_mm-1.unfinished').symlink_to('kept')
    os.mkfifo(tmp_path / '.dcls_mm-2.unfinished')
    (tmp_path / '.dcls_mm-3.unfinished').mkdir()
    before = left(tmp_path)
    remove_unfinished(tmp_path)
    assert left(tmp_path) == before
    remove_unfinished(tmp_path / 'missing')


def test_files_are_written_where_there_are_no_locks(tmp_path, monkeypatch):
    def fail(*arguments):
        raise OSError(errno.ENOLCK, 'No locks available')

    monkeypatch.setattr(_files, 'take_lock', fail)
    write_whole(tmp_path / 'x', b'1')
    (tmp_path / '.dcls_mm-1.unfinished').write_bytes(b'')
    remove_unfinished(tmp_path)  # somebody may be writing it
    assert left(tmp_path) == ['.dcls_mm-1.unfinished', 'x']


def test_without_fcntl(tmp_path, monkeypatch):
    monkeypatch.setattr(_files, 'fcntl', None)
    write_whole(tmp_path / 'x', b'1')
    write_whole(tmp_path / 'x', b'2')
    assert (tmp_path / 'x').read_bytes() == b'2'
    with (
        open(tmp_path / 'x', 'rb+') as file,
        pytest.raises(OSError, match='no file lo'),
    ):
        take_lock(file.fileno())


def test_a_new_file_that_was_removed_before_it_was_locked(tmp_path, monkeypatch):
    """Another process's ``remove_unfinished`` ran in between."""
    removed = []

    def take(handle):
        if not removed:
            removed.extend(tmp_path.iterdir())
            removed[0].unlink()
        return True

    monkeypatch.setattr(_files, 'take_lock', take)
    write_whole(tmp_path / 'x', b'1')
    assert len(removed) == 1
    assert left(tmp_path) == ['x']


def test_the_name_is_on_the_disk_too(tmp_path, monkeypatch):
    """The content is synced before the file is replaced, the folder afterwards."""
    done = []
    sync, replace = os.fsync, os.replace

    def fsync(handle):
        done.append('folder' if stat.S_ISDIR(os.fstat(handle).st_mode) else 'file')
        sync(handle)

    def replaced(*paths):
        done.append('replace')
        replace(*paths)

    monkeypatch.setattr(os, 'fsync', fsync)
    monkeypatch.setattr(os, 'replace', replaced)
    write_whole(tmp_path / 'x', b'1')
    assert done == ['file', 'replace', 'folder']
