"""The files that a command writes to ``--out``: checked first, and written whole."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from .._files import remove_unfinished, write_whole
from ..checks.errors import ConfigError


def label(config: str, checkpoint: str) -> str:
    """Return the label of a model in pictures and reports."""
    return f'{Path(config).stem}, {Path(checkpoint).name}'


def check_picture(out: str) -> None:
    """Check, before any work, that a PNG file can be written; create its folder.

    Raises:
        ConfigError: it can't.
    """
    if Path(out).suffix.lower() != '.png':
        raise ConfigError(f'--out {out}: must be the name of a .png file')
    if os.path.isdir(out):
        raise ConfigError(f'--out {out}: is a folder')
    check_folder(str(Path(out).parent))


def check_folder(out: str) -> Path:
    """Create a folder, and check that it is writable.

    Raises:
        ConfigError: it can't.
    """
    try:
        os.makedirs(out, exist_ok=True)
    except OSError as error:
        raise ConfigError(f'--out {out}: {error.strerror}') from error
    if not os.access(out, os.W_OK):
        raise ConfigError(f'--out {out}: the folder is write-protected')
    remove_unfinished(out)
    return Path(out)


def write_picture(out: str | Path, picture: np.ndarray) -> str:
    """Write an RGB or grey array in the suffix's format; see ``write_file``."""
    bgr = picture[..., ::-1] if picture.ndim == 3 else picture
    _, content = cv2.imencode(Path(out).suffix, bgr)
    return write_file(out, content.tobytes())


def write_file(out: str | Path, content: bytes) -> str:
    """Write a file whole or not at all, and return its name.

    Raises:
        ConfigError: it can't be written.
    """
    try:
        write_whole(out, content)
    except OSError as error:
        raise ConfigError(f'--out {out}: {error.strerror}') from error
    return str(out)


def check_new(folder: str, *names: str) -> None:
    """Check that files do not exist yet.

    Raises:
        ConfigError: one does.
    """
    if not folder:
        raise ConfigError('--out must be the name of a folder, got an empty text')
    for name in names:
        if os.path.lexists(os.path.join(folder, name)):
            raise ConfigError(
                f'--out: {os.path.join(folder, name)} exists; remove it, or choose '
                'another --out'
            )


@contextmanager
def whole_files(folder: str, *names: str) -> Iterator[Path]:
    """Open a temporary folder whose files are moved to ``folder`` if all goes well.

    ``folder`` and its parents are created only at the end.

    Raises:
        ConfigError: one of the files exists already, or they can't be written.
    """
    check_new(folder, *names)
    try:
        # On the same disk, so that moving a file is atomic.
        with tempfile.TemporaryDirectory(
            prefix='.unfinished', dir=_nearest_folder(folder)
        ) as new:
            yield Path(new)
            os.makedirs(folder, exist_ok=True)
            for name in names:
                os.replace(os.path.join(new, name), os.path.join(folder, name))
    except OSError as error:
        raise ConfigError(f'--out {folder}: {error.strerror or error}') from error


def _nearest_folder(path: str) -> str:
    """Return the path, or else its closest parent that exists."""
    path = os.path.abspath(path)
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    return path
