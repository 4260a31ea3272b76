"""Loading the checkpoints that mmengine writes, with ``weights_only`` on.

A training checkpoint of mmengine 0.10 holds more than tensors: the logged
values (``HistoryBuffer``), numpy numbers and arrays, and, for one-cycle
schedules, a function. torch refuses those by default since 2.6 and unpickles
anything before. Putting the real types on torch's allow-list is not safe: a
``HistoryBuffer`` needs ``builtins.getattr``, and ``numpy.ndarray`` and
``numpy.dtype`` can be made to take raw bytes for object pointers.

So every name on the list here stands for a small class of this module that
only keeps the data. Once the file is read, it is checked and turned into the
real thing.
"""

import errno
import functools
import os
import pickle
import re
from contextlib import contextmanager
from typing import Any, Callable
from urllib.error import URLError

import mmengine.runner.checkpoint
import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler
from mmengine.runner.checkpoint import CheckpointLoader, load_from_local

# Older versions can be kept from unpickling, but not be given the stand-ins.
_HAS_STAND_INS = hasattr(torch.serialization, 'get_unsafe_globals_in_checkpoint')


class CheckpointError(RuntimeError):
    """A checkpoint that can't be used, and why."""


class MissingCheckpointError(CheckpointError, FileNotFoundError):
    """A checkpoint that does not exist."""


class DamagedCheckpointError(CheckpointError):
    """A file that was cut off, or is no checkpoint."""


class _Dtype:
    """Stands for ``numpy.dtype``; numbers only."""

    def __init__(self, code, align=False, copy=False):
        if not re.fullmatch('[biuf][1248]', str(code)):
            raise pickle.UnpicklingError(f'GLOBAL numpy.dtype({code!r})')
        self.dtype = np.dtype(code)

    def __setstate__(self, state):
        if '>' in state:
            self.dtype = self.dtype.newbyteorder('>')


class _Array:
    """Stands for ``numpy.ndarray`` and for numpy's function that makes one."""

    def __init__(self, *empty_array):
        self.value = None

    def __setstate__(self, state):
        _, shape, dtype, column_major, data = state
        order = 'F' if column_major else 'C'
        self.value = np.ndarray(shape, dtype.dtype, data, order=order).copy()

    def restore(self):
        return self.value


class _History:
    """Stands for ``HistoryBuffer``, without its table of functions."""

    def __setstate__(self, state):
        self.state = state

    def restore(self):
        return HistoryBuffer(
            self.state['_log_history'].restore(),
            self.state['_count_history'].restore(),
            self.state['max_length'],
        )


class _OneCycle:
    """Stands for ``OneCycleParamScheduler``, which only names functions."""


_METHODS = {
    **{(_History, name): None for name in ('min', 'max', 'mean', 'current')},
    **{
        (_OneCycle, name): getattr(OneCycleParamScheduler, name)
        for name in ('_annealing_cos', '_annealing_linear')
    },
}


def _method(owner, name):
    """Stands for ``getattr``, by which pickle names a method of a class."""
    if (owner, name) not in _METHODS:
        raise pickle.UnpicklingError('GLOBAL builtins.getattr')
    return _METHODS[owner, name]


def _scalar(dtype, data):
    """Stands for numpy's function that makes a number of type ``dtype``."""
    return np.frombuffer(data, dtype.dtype, count=1)[0]


_STAND_INS = {
    'builtins.bytes': bytes,  # an empty array's
    'builtins.getattr': _method,
    'mmengine.logging.history_buffer.HistoryBuffer': _History,
    'mmengine.optim.scheduler.param_scheduler.OneCycleParamScheduler': _OneCycle,
    'numpy.dtype': _Dtype,
    'numpy.ndarray': _Array,
    'numpy._core.multiarray._reconstruct': _Array,
    'numpy._core.multiarray.scalar': _scalar,
    'numpy.core.multiarray._reconstruct': _Array,  # as numpy 1 names it
    'numpy.core.multiarray.scalar': _scalar,
}


def _global_name(entry: Any) -> str:
    """The name under which torch's allow-list knows one of its entries."""
    if isinstance(entry, tuple):
        return entry[1]
    return f'{entry.__module__}.{entry.__qualname__}'


@contextmanager
def _stand_ins():
    """Lets ``torch.load`` make the stand-ins, for as long as this lasts.

    Types that a program itself gave to ``torch.serialization.add_safe_globals``
    stay allowed, unless a stand-in bears the same name.
    """
    if not _HAS_STAND_INS:
        yield
        return
    allowed = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals(
        [entry for entry in allowed if _global_name(entry) not in _STAND_INS]
        + [(stand_in, name) for name, stand_in in _STAND_INS.items()]
    )
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(allowed)


@contextmanager
def _weights_only():
    """Switches ``weights_only`` on in every ``torch.load``, for as long as it lasts.

    torch's environment variable, unlike the argument, also reaches the call
    inside torch.hub, whose default is to unpickle what it downloaded.
    """
    force = 'TORCH_FORCE_WEIGHTS_ONLY_LOAD'
    names = (force, 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD')
    before = {name: os.environ.pop(name) for name in names if name in os.environ}
    os.environ[force] = '1'
    try:
        yield
    finally:
        del os.environ[force]
        os.environ.update(before)


def _restore(value: Any) -> Any:
    """Puts the real arrays and histories in the place of their stand-ins."""
    if isinstance(value, (_Array, _History)):
        return value.restore()
    if isinstance(value, dict):
        for key, item in value.items():
            value[key] = _restore(item)
    elif isinstance(value, list):
        value[:] = [_restore(item) for item in value]
    elif type(value) is tuple:
        return tuple(_restore(item) for item in value)
    return value


def _explain(filename: str, error: Exception) -> CheckpointError:
    """Says in a sentence why ``filename`` could not be loaded."""
    refused = re.search(r'GLOBAL (\S+)', str(error))
    if not refused:
        reason = str(error).strip().splitlines() or ['']
        return DamagedCheckpointError(
            f'checkpoint {filename} is damaged, or is no checkpoint '
            f'({type(error).__name__}: {reason[-1]})'
        )
    if refused[1] in _STAND_INS and not _HAS_STAND_INS:
        return CheckpointError(
            f'checkpoint {filename} holds {refused[1]}, which torch '
            f'{torch.__version__} can only load by running what the file says: '
            'use torch 2.6 or later, or a file with the state_dict alone'
        )
    return CheckpointError(
        f'checkpoint {filename} holds {refused[1]}, which is not among the types '
        'that mmengine writes; dcls_mm does not load it, because loading would '
        'run what the file says: ask its author for the state_dict alone'
    )


def guarded(loader: Callable) -> Callable:
    """Makes a loader of mmengine load data only, and explain what it refuses.

    Args:
        loader: Takes a file name or URL and a ``map_location``, and calls
            ``torch.load`` or ``torch.hub.load_state_dict_from_url``.

    Returns:
        A loader with the same arguments. It raises a ``CheckpointError`` for
        a type that mmengine does not write and for a failed download, and its
        subclasses for a file that does not exist or can't be read.
    """

    @functools.wraps(loader)
    def load(filename, map_location=None):
        try:
            with _weights_only(), _stand_ins():
                checkpoint = loader(filename, map_location)
            checkpoint = _restore(checkpoint)
        except FileNotFoundError as error:
            raise MissingCheckpointError(
                f'checkpoint {filename} does not exist (looked in {os.getcwd()})'
            ) from error
        except URLError as error:
            raise CheckpointError(
                f'checkpoint {filename} could not be downloaded ({error.reason}); '
                'fetch it where there is a network, and give the path of the file'
            ) from error
        except (MemoryError, torch.cuda.OutOfMemoryError):
            raise
        except Exception as error:
            # torch seeks before the start of some files that were cut off.
            if isinstance(error, OSError) and error.errno != errno.EINVAL:
                raise
            raise _explain(filename, error) from error
        # Runner.resume would run this string as Python, to find the number of
        # GPUs in it; mmengine itself no longer writes it.
        if isinstance(checkpoint, dict) and isinstance(checkpoint.get('meta'), dict):
            checkpoint['meta'].pop('config', None)
        return checkpoint

    load.is_guarded = True
    return load


load_checkpoint_file = guarded(load_from_local)


def guard_mmengine() -> None:
    """Guards every loader that mmengine knows: files, URLs, model zoos."""
    # onedl-mmengine would allow types of which the stand-ins take the place.
    if hasattr(mmengine.runner.checkpoint, '_safe_torch_load'):
        mmengine.runner.checkpoint._safe_torch_load = torch.load
    for prefix, loader in list(CheckpointLoader._schemes.items()):
        if not hasattr(loader, 'is_guarded'):
            CheckpointLoader.register_scheme(prefix, guarded(loader), force=True)
