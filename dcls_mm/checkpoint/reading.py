"""Loading checkpoints as data, without running code from the file.

First the file is checked as it is (``archive``), including a dry run of its pickle
(``program``). Then torch reads it with ``weights_only``, and with records instead of
everything that the file may name (``records``). Finally the checkpoint is rebuilt from
these and plain containers (``plain``).

torch's allow-list belongs to the whole process. Our names on it begin with a character
that no module's name has, and the names in a file are read as these. So other code in
the process that loads files, at any time, sees no difference.
"""

import errno
import os
import threading
from collections import OrderedDict
from typing import Any, BinaryIO
from urllib.error import URLError

import torch
from mmengine.runner.checkpoint import CheckpointLoader

from . import archive, safetensors_file
from .errors import (
    CheckpointError,
    Damage,
    DamagedCheckpointError,
    MissingCheckpointError,
    Refusal,
)
from .plain import plain
from .program import Names
from .records import NAMES, STAND_INS
from .sources import check_sha256, fetch, is_known

_MARK = '~'
_OURS = [(item, _MARK + name[1:]) for name, item in STAND_INS.items()]
_registering = threading.Lock()


def read_checkpoint(
    filename: str, map_location: Any = 'cpu', sha256: str | None = None
) -> Any:
    """Read a checkpoint as data.

    Args:
        filename: a path, a URL, or a model zoo's name that mmengine knows. Other kinds
            (``s3://``) are left to the loader registered for them. Files whose names
            end in ``.safetensors`` need the package of that name.
        map_location: see ``torch.load``.
        sha256: the checksum that the file must have, in hexadecimal digits.

    Returns:
        The content: plain containers, numbers, strings, tensors, and numpy's and
        mmengine's types. ``meta['config']`` is left out: ``Runner.resume`` would run it
        as Python to find the number of GPUs, and mmengine itself no longer writes it.

    Raises:
        MissingCheckpointError: the file does not exist.
        DamagedCheckpointError: it is not whole, not as it was written, or another file.
        CheckpointError: it contains something that mmengine does not write, or can't be
            downloaded or read.
    """
    if not is_known(filename):
        return CheckpointLoader.load_checkpoint(filename, map_location, 'silent')
    try:
        path = fetch(filename)
        if not os.path.isfile(path):
            raise FileNotFoundError(path)
        with open(path, 'rb') as file:
            check_sha256(file, sha256, path)
            name = filename if path == filename else f'{filename} (kept as {path})'
            return _read(file, name, map_location)
    except FileNotFoundError as error:
        raise MissingCheckpointError(
            f'checkpoint {filename} does not exist (looked in {os.getcwd()})'
        ) from error
    except URLError as error:
        raise CheckpointError(
            f'checkpoint {filename} could not be downloaded ({error.reason}); '
            'fetch it where there is a network, and give the path of the file'
        ) from error
    except OSError as error:
        raise CheckpointError(
            f"checkpoint {filename} can't be read ({error.strerror or error})"
        ) from error


def _read(file: BinaryIO, name: str, map_location: Any) -> Any:
    others = _allowed_by_others()
    try:
        if str(file.name).endswith(safetensors_file.SUFFIX):
            return safetensors_file.read(file, name, map_location)
        layout = archive.check(file, _names_with(others))
        renamed = archive.Renamed(
            file,
            [
                position
                for position, (_, used) in zip(layout.positions, layout.program.used)
                if used in STAND_INS
            ],
            _MARK.encode(),
        )
        _register()
        file.seek(0)
        loaded = torch.load(
            renamed, map_location=map_location, weights_only=True, mmap=False
        )
        types = tuple(item for item in others.values() if isinstance(item, type))
        checkpoint = plain(loaded, types)
    except Refusal as refusal:
        raise CheckpointError(
            f'checkpoint {name} holds {refusal}, which mmengine does not write; '
            'dcls_mm does not load it, because loading could run code from the file: '
            'ask its author for the state_dict alone'
        ) from refusal
    except (CheckpointError, MemoryError, torch.cuda.OutOfMemoryError):
        raise
    except Exception as error:
        # torch seeks before the start of some truncated files.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        reason = (str(error).strip().splitlines() or [''])[-1]
        kind = '' if isinstance(error, Damage) else f'{type(error).__name__}: '
        raise DamagedCheckpointError(
            f'checkpoint {name} is damaged, or not a checkpoint ({kind}{reason})'
        ) from error
    if type(checkpoint) in (dict, OrderedDict) and type(checkpoint.get('meta')) in (
        dict,
        OrderedDict,
    ):
        checkpoint['meta'].pop('config', None)
    return checkpoint


def _register() -> None:
    """Register our names with torch, instead of those of an earlier import."""
    with _registering:
        given = torch.serialization.get_safe_globals()
        if set(_OURS) <= set(given):
            return
        others = [
            entry
            for entry in given
            if not (isinstance(entry, tuple) and entry[1].startswith(_MARK))
        ]
        if len(others) < len(given):
            torch.serialization.clear_safe_globals()
            torch.serialization.add_safe_globals(others)
        torch.serialization.add_safe_globals(_OURS)


def _allowed_by_others() -> dict[str, Any]:
    """Return what other code gave to ``torch.serialization.add_safe_globals``."""
    allowed = {}
    for entry in torch.serialization.get_safe_globals():
        if isinstance(entry, tuple):
            item, name = entry
        else:
            item, name = entry, f'{entry.__module__}.{entry.__qualname__}'
        if not name.startswith(_MARK) and name not in STAND_INS:
            allowed[name] = item
    return allowed


def _names_with(others: dict[str, Any]) -> Names:
    return Names(*(known | others.keys() for known in NAMES))
