"""Forcing of one backend on all convolutions, in a block or for a whole run."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from .._arguments import check_choice
from .table import BACKENDS

VARIABLE = 'DCLS_MM_BACKEND'

# Instead of a name: the environment variable has not been read yet.
NOT_ASKED = ''


class _Forced(threading.local):
    """The name of the backend that is forced in a thread, or None.

    torch.compile makes a new graph for each value of such an attribute, but not for a
    contextvars.ContextVar.
    """

    def __init__(self):
        self.name: str | None = NOT_ASKED


forced = _Forced()


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Force a backend on the convolutions of a ``with`` block, in this thread.

    It serves :func:`.convolve` and the layers that use it, unless the call or the layer
    names a ``backend`` of its own. Transposed convolutions and sampling have only one
    implementation. A call that the backend doesn't support raises a ValueError.

    Outside such blocks the environment variable ``DCLS_MM_BACKEND`` forces a backend on
    the whole run. It is read when a thread first convolves.

    Args:
        name: a key of ``functional.backends.BACKENDS``.

    Raises:
        ValueError: there is no such backend.
    """
    check_choice('name', name, BACKENDS)
    before, forced.name = forced.name, name
    try:
        yield
    finally:
        forced.name = before


def forced_name() -> str | None:
    """Return the name of the backend that is forced in this thread, or None."""
    return of_environment() if forced.name == NOT_ASKED else forced.name


def of_environment() -> str | None:
    """Return the backend that the environment forces, and note it in ``forced``.

    Raises:
        ValueError: there is no such backend.
    """
    name = os.environ.get(VARIABLE) or None
    if name is not None:
        check_choice(f'the environment variable {VARIABLE}', name, BACKENDS)
    if not torch.compiler.is_compiling():
        forced.name = name
    return name
