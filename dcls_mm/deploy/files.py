"""Files that come into being together, or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..checks.errors import ConfigError


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
