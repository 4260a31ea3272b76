"""The search for the checkpoint from which an interrupted training can resume."""

import contextlib
import os
import re
import stat
import string
from collections.abc import Sequence
from typing import Any, NamedTuple

from mmengine.runner.checkpoint import CheckpointLoader

from .._files import NEITHER_FOLLOW_NOR_WAIT
from .content import check_training
from .errors import CheckpointError, DamagedCheckpointError
from .mmengine_loaders import as_data, hand_on

# mmengine's names for the checkpoints of a training.
TEMPLATES = ('epoch_{}.pth', 'iter_{}.pth')
# Its prefix for those that hold only weights, the best so far.
_BEST = '(best_.+_)?'

# The file in which mmengine notes the path of the last one.
LAST = 'last_checkpoint'
_LONGEST_NOTE = 4096  # bytes, like Linux's longest path


def check_resumable(filename: str) -> None:
    """Read a checkpoint, and check that it has what resuming needs.

    Inside :func:`.as_data` it is then handed on to mmengine, which does not read it
    again.

    Args:
        filename: a path, or a URL that mmengine knows.

    Raises:
        DamagedCheckpointError: it was truncated, or is a broken link.
        CheckpointError: it can't be read for another reason, has only weights, or has
            parts that are not as mmengine writes them.
    """
    if '://' not in filename:
        _check_file(filename)
    try:
        with as_data():
            checkpoint = CheckpointLoader.load_checkpoint(
                filename, 'cpu', logger='silent'
            )
    except OSError as error:
        if isinstance(error, CheckpointError):
            raise
        raise _unreadable(filename, error) from error
    check_training(checkpoint, filename)
    hand_on(filename, checkpoint)


def _check_file(path: str) -> None:
    """Refuse anything but a regular file, before it is read."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError as error:
        if not os.path.islink(path):
            return  # the loader says so
        raise DamagedCheckpointError(
            f'checkpoint {path} is a link to {os.readlink(path)}, which does not exist'
        ) from error
    except (OSError, ValueError) as error:
        if os.path.islink(path):
            raise DamagedCheckpointError(
                f'checkpoint {path} is a broken link ({error})'
            ) from error
        raise _unreadable(path, error) from error
    if stat.S_ISDIR(mode):
        raise CheckpointError(
            f'checkpoint {path} is a folder, expected a file as mmengine writes it'
        )
    if not stat.S_ISREG(mode):
        raise DamagedCheckpointError(
            f'checkpoint {path} is a {_kind(mode)}, expected a file'
        )


def _kind(mode: int) -> str:
    return {stat.S_IFIFO: 'pipe', stat.S_IFSOCK: 'socket'}.get(
        stat.S_IFMT(mode), 'device'
    )


def _unreadable(filename: str, error: Exception) -> CheckpointError:
    reason = getattr(error, 'strerror', None) or error
    return CheckpointError(f"checkpoint {filename} can't be read ({reason})")


def check_template(template: Any) -> None:
    """Check a ``filename_tmpl`` of ``CheckpointHook``.

    Raises:
        ValueError: it is not a string with one ``{}`` for the epoch or iteration.
    """
    fields = []
    with contextlib.suppress(ValueError, TypeError):
        fields = [
            field
            for _, field, *_ in string.Formatter().parse(template)
            if field is not None
        ]
    if len(fields) != 1:
        raise ValueError(
            'must be a string with one {} for the epoch or iteration, such as '
            f'epoch_{{}}.pth; got {template!r}'
        )


def checkpoint_folder(work_dir: str, out_dir: str | None = None) -> str:
    """Return the folder of mmengine's ``CheckpointHook``, as in ``before_train``."""
    if out_dir is None or str(out_dir) == work_dir:
        return work_dir
    return os.path.join(out_dir, os.path.basename(work_dir.rstrip(os.sep)))


def find_resumable(
    work_dir: str,
    templates: Sequence[str] = TEMPLATES,
    out_dir: str | None = None,
) -> tuple[str | None, list[str]]:
    """Find the last whole checkpoint of a training.

    mmengine only looks at the file ``last_checkpoint``, which a killed training may
    leave empty, or naming a truncated checkpoint.

    Damaged files are skipped. A file that may be whole but can't be read or resumed
    from is not: resuming from an earlier one would overwrite it.

    Args:
        work_dir: the work directory of the training.
        templates: the file names to look for, with ``{}`` for the epoch or iteration,
            like ``filename_tmpl`` of ``CheckpointHook``.
        out_dir: that of ``CheckpointHook``, if it has one.

    Returns:
        The path, or None if no checkpoint file of any kind exists; and why files were
        skipped.

    Raises:
        CheckpointError: there are checkpoints, but training can't resume from any of
            them. Starting from scratch might overwrite them.
    """
    note = _read_note(work_dir)
    if out_dir is not None and '://' in out_dir:
        return _find_remote(work_dir, out_dir, note)
    folders = [
        os.path.join(folder, os.path.dirname(template))
        for folder in (work_dir, checkpoint_folder(work_dir, out_dir))
        for template in templates
    ]
    templates = [os.path.basename(template) for template in templates]
    named = os.path.basename(note)
    names = [*templates, *TEMPLATES]
    if named.endswith('.pth'):  # by an earlier filename_tmpl
        names.append(named.replace('{', '{{').replace('}', '}}'))
    files = _files(folders, names)
    if not files and os.path.dirname(note):  # elsewhere, by an earlier out_dir
        files = _files([os.path.dirname(note)], names)
    skipped = []
    for file in _candidates(files, templates, named):
        try:
            check_resumable(file.path)
        except DamagedCheckpointError as error:
            skipped.append(str(error))
        except CheckpointError as error:
            raise _nothing_found(work_dir, [*skipped, str(error)]) from error
        else:
            return file.path, skipped
    if files:
        others = [
            f'{file.path} is not named like {" or ".join(templates)}'
            for file in files
            if _step(file.name, templates) is None
        ]
        raise _nothing_found(work_dir, skipped + others)
    return None, []


def _find_remote(work_dir: str, out_dir: str, note: str) -> tuple[str | None, list]:
    """Do the same as ``find_resumable`` for checkpoints that are not local files."""
    if note.startswith(f'{out_dir.rstrip("/")}/'):
        check_resumable(note)
        return note, []
    if os.path.lexists(os.path.join(work_dir, LAST)):
        raise _nothing_found(
            work_dir, [f'{work_dir}/{LAST} does not name a checkpoint in {out_dir}']
        )
    return None, []


def _nothing_found(work_dir: str, reasons: list[str]) -> CheckpointError:
    return CheckpointError(
        f'no checkpoint in {work_dir} to resume from: {"; ".join(reasons)}. Starting '
        'from scratch might overwrite them: name the one to resume from by --resume '
        'FILE, move them away, choose another --work-dir, or leave out --resume to '
        'start from scratch'
    )


class _File(NamedTuple):
    path: str
    name: str
    age: int  # time of modification, in ns; 0 for a broken link


def _read_note(work_dir: str) -> str:
    """Return the path in the file ``last_checkpoint``, or '' if that can't be one.

    mmengine writes it in place, so a power cut may leave anything there.
    """
    try:
        handle = os.open(
            os.path.join(work_dir, LAST), os.O_RDONLY | NEITHER_FOLLOW_NOR_WAIT
        )
    except OSError:
        return ''
    try:
        is_file = stat.S_ISREG(os.fstat(handle).st_mode)
        content = os.read(handle, _LONGEST_NOTE + 1) if is_file else b''
    finally:
        os.close(handle)
    try:
        text = content.decode().strip()
    except UnicodeDecodeError:
        return ''
    return text if len(content) <= _LONGEST_NOTE and text.isprintable() else ''


def _files(folders: Sequence[str], templates: Sequence[str]) -> list[_File]:
    """Return everything in the folders that has a checkpoint's name.

    Raises:
        CheckpointError: a folder can't be read.
    """
    found = []
    for folder in dict.fromkeys(map(os.path.realpath, folders)):
        try:
            entries = list(os.scandir(folder)) if os.path.isdir(folder) else []
        except OSError as error:
            raise CheckpointError(
                f"{folder} can't be searched for checkpoints ({error.strerror})"
            ) from error
        found += [
            _File(entry.path, entry.name, _age(entry))
            for entry in entries
            if _step(entry.name, templates, _BEST) is not None
        ]
    return found


def _age(entry: os.DirEntry) -> int:
    try:
        return entry.stat().st_mtime_ns
    except OSError:
        return 0


def _step(name: str, templates: Sequence[str], before: str = '') -> int | None:
    """Return the number in a checkpoint's name, or 0; None if no template fits."""
    for template in templates:
        pattern = before
        for text, field, *_ in string.Formatter().parse(template):
            pattern += re.escape(text) + (r'(?P<step>\d+)' if field is not None else '')
        match = re.fullmatch(pattern, name)
        if match:
            return int(match.groupdict().get('step', 0))
    return None


def _candidates(
    files: Sequence[_File], templates: Sequence[str], named: str
) -> list[_File]:
    """Return the checkpoints of a training, the last one first.

    Files with a higher number than the one that ``last_checkpoint`` names, but an older
    date, were left by an earlier training in the same folder: they come last.
    """
    steps = {file: _step(file.name, templates) for file in files}
    steps = {file: step for file, step in steps.items() if step is not None}
    last = next((file for file in steps if file.name == named), None)

    def order(file: _File):
        leftover = last and steps[file] > steps[last] and file.age < last.age
        return not leftover, steps[file], file.age

    return sorted(steps, key=order, reverse=True)
