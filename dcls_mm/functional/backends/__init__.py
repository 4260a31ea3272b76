"""The backends of :func:`dcls_mm.functional.convolve`, in order of preference.

A backend is a module of functions of a :class:`ConvolutionCall`: ``unsupported`` says
in a sentence why the backend can't serve the call (None if it can), ``worthwhile``
whether it should be chosen by itself if it can, and ``convolve`` serves it, in any
memory format, and in a finer dtype than autocast's if that pays: :func:`.convolve`
makes of all results what torch's own would be. One for CUDA stands before 'native',
which runs on every device.
"""

from types import ModuleType

from .._arguments import check_choice
from . import cpu_depthwise, fft, native
from .call import ConvolutionCall
from .timing import autotune, fastest, is_tuning

__all__ = ['BACKENDS', 'ConvolutionCall', 'autotune', 'select_backend']

BACKENDS = {'fft': fft, 'cpu_depthwise': cpu_depthwise, 'native': native}


def select_backend(name: str | None, call: ConvolutionCall) -> ModuleType:
    """The named backend, or the first that supports and suits the call.

    Raises:
        ValueError: ``name`` is unknown, or the named backend can't serve the call.
    """
    if name is None and is_tuning():
        able = [b for b in BACKENDS.values() if b.unsupported(call) is None]
        return fastest(call, able)
    if name is None:
        for backend in BACKENDS.values():
            # In this order, as most calls are quickly found not worthwhile.
            if backend.worthwhile(call) and backend.unsupported(call) is None:
                return backend
    assert name is not None  # the last backend serves every call
    check_choice('backend', name, BACKENDS)
    reason = BACKENDS[name].unsupported(call)
    if reason is not None:
        raise ValueError(f'backend {name!r} cannot serve this call: {reason}')
    return BACKENDS[name]
