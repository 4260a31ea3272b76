"""Forcing one backend on all convolutions: for a block, or for a whole run."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from .._arguments import check_choice
from .table import BACKENDS

VARIABLE = 'DCLS_MM_BACKEND'

# In the place of a name: the environment was not asked yet.
NOT_ASKED = ''


class _Forced(threading.local):
    """The name of the backend that is forced in a thread, None for none.

    An attribute that every thread's instance has, as torch.compile makes another graph
    for another value of such a one, but not of a contextvars.ContextVar.
    """

    def __init__(self):
        self.name: str | None = NOT_ASKED


forced = _Forced()


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Force a backend on the convolutions of a ``with`` block, in this thread.

    On those that :func:`.convolve` serves, in layers too, but for a layer or a call
    with a ``backend`` of its own: transposed convolutions and sampling have but one
    way. Where it can't serve, it raises as one does that a call names. Outside of such
    blocks the environment variable ``DCLS_MM_BACKEND`` forces one on the whole run; it
    is read when a thread first convolves.

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


def of_environment() -> str | None:
    """The backend that the environment forces, which ``forced`` has from now on.

    Raises:
        ValueError: there is no such backend.
    """
    name = os.environ.get(VARIABLE) or None
    if name is not None:
        check_choice(f'the environment variable {VARIABLE}', name, BACKENDS)
    if not torch.compiler.is_compiling():
        forced.name = name
    return name
