"""The files that a command writes to ``--out``: checked before, and written whole."""

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
    """What a picture or a report calls a model."""
    return f'{Path(config).stem}, {Path(checkpoint).name}'


def check_picture(out: str) -> None:
    """Checks, before the work, that a PNG file can be written; makes its folder.

    Raises:
        ConfigError: it can't.
    """
    if Path(out).suffix.lower() != '.png':
        raise ConfigError(f'--out {out}: must be the name of a .png file')
    if os.path.isdir(out):
        raise ConfigError(f'--out {out}: is a folder')
    check_folder(str(Path(out).parent))


def check_folder(out: str) -> Path:
    """Makes a folder, and checks that it can be written to.

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
    """Writes an RGB or grey array in the format of the suffix; see ``write_file``."""
    bgr = picture[..., ::-1] if picture.ndim == 3 else picture
    _, content = cv2.imencode(Path(out).suffix, bgr)
    return write_file(out, content.tobytes())


def write_file(out: str | Path, content: bytes) -> str:
    """Writes a file whole or not at all, and returns its name.

    Raises:
        ConfigError: it can't be written.
    """
    try:
        write_whole(out, content)
    except OSError as error:
        raise ConfigError(f'--out {out}: {error.strerror}') from error
    return str(out)


def check_new(folder: str, *names: str) -> None:
    """Checks that files are not there yet.

    Raises:
        ConfigError: one is.
    """
    if not folder:
        raise ConfigError('--out must be the name of a folder, is empty')
    for name in names:
        if os.path.lexists(os.path.join(folder, name)):
            raise ConfigError(
                f'--out: {os.path.join(folder, name)} exists; remove it, or choose '
                'another place'
            )


@contextmanager
def whole_files(folder: str, *names: str) -> Iterator[Path]:
    """A new folder whose files take their places in ``folder`` if all went well.

    ``folder`` and those above it are made at the end only.

    Raises:
        ConfigError: one of the files is there already, or they can't be written.
    """
    check_new(folder, *names)
    try:
        # On the same disk, so that files move as a whole.
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
    """The path, or the lowest above it that is there."""
    path = os.path.abspath(path)
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    return path
