"""The peak memory of a call, measured in a separate process."""

import ctypes
import gc
import multiprocessing
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import torch

# From a method's name and a case to a function without arguments.
Build = Callable[..., Callable[[], Any]]

# The least that a function counts for: below it, the kernel's counters are not exact.
RESOLUTION_MB = 1.0

STATUS = Path('/proc/self/status')
CLEAR_REFS = Path('/proc/self/clear_refs')


def extra_memory(
    build: Build, methods: Iterable[str], tiny: tuple, case: tuple, threads: int
) -> dict[str, float]:
    """Return {method: MB of its first call}, or {} if that can't be measured.

    ``build(method, *case)`` makes the inputs and returns the function to call. The
    figure is how far the first call raises the process's peak of resident memory above
    what was resident before: outputs, gradients, caches and all temporary memory, but
    not the inputs. Every method gets a fresh process, in which ``build(method, *tiny)``
    has warmed up the libraries.
    """
    if not memory_is_measurable():
        return {}
    peaks = {}
    for method in methods:
        # A pool of one process, closed after one task: nothing is left over.
        with _fresh_processes().Pool(1) as pool:
            arguments = (build, (method, *tiny), (method, *case), threads)
            peak = pool.apply(_first_call_peak, arguments)
        peaks[method] = max(RESOLUTION_MB, peak)
    return peaks


@cache
def _fresh_processes() -> multiprocessing.context.BaseContext:
    """Return a context that forks a process with only torch and dcls_mm imported."""
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(['torch', 'dcls_mm'])
    return context


def _first_call_peak(build: Build, tiny: tuple, case: tuple, threads: int) -> float:
    torch.set_num_threads(threads)
    build(*tiny)()
    function = build(*case)
    gc.collect()
    _return_free_memory()
    CLEAR_REFS.write_text('5')
    before = _status_mb('VmRSS')
    result = function()  # noqa: F841  the outputs must live until the peak is read
    return _status_mb('VmHWM') - before


def _return_free_memory() -> None:
    """Make glibc return freed memory, which the call could reuse unnoticed."""
    trim = getattr(ctypes.CDLL(None), 'malloc_trim', None)
    if trim is not None:
        trim(0)


@cache
def memory_is_measurable() -> bool:
    """Return whether /proc shows the peak of resident memory and lets it be reset."""
    try:
        CLEAR_REFS.write_text('5')
        _status_mb('VmHWM')
    except (OSError, KeyError):
        return False
    return True


def _status_mb(field: str) -> float:
    lines = STATUS.read_text().splitlines()
    values = dict(line.split(':', 1) for line in lines if ':' in line)
    return int(values[field].split()[0]) / 1024
