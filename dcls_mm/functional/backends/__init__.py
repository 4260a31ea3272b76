"""The choice of a convolution's backend, by name or by what suits the call."""

import logging
import math
from types import ModuleType

import torch

from .._arguments import check_choice
from .._torch import ConvolutionCall
from . import native
from .forcing import NOT_ASKED, forced, of_environment, use_backend
from .table import BACKENDS
from .timing import autotune, fastest

__all__ = [
    'BACKENDS',
    'ConvolutionCall',
    'autotune',
    'reasons_against',
    'select_backend',
    'use_backend',
]

_logger = logging.getLogger(__name__)
_logged: set[tuple] = set()


def select_backend(name: str | None, call: ConvolutionCall) -> ModuleType:
    """Return the named backend, or the first that supports and suits the call.

    Without a name, :func:`use_backend` or the environment may force one. The choice is
    logged once per shape at debug level, but not inside torch.compile.

    Raises:
        ValueError: the name is unknown, or the named backend doesn't support the call.
    """
    if name is None:
        name = forced.name  # as forced_name does, without its frames
        if name == NOT_ASKED:
            name = of_environment()
    if name is not None:
        check_choice('backend', name, BACKENDS)
        reason = BACKENDS[name].unsupported(call)
        if reason is not None:
            raise ValueError(f'backend {name!r} cannot serve this call: {reason}')
        chosen = BACKENDS[name]
    elif autotune.is_on and call.state.is_plain:
        reasons = reasons_against(call)
        chosen = fastest(call, [BACKENDS[n] for n, why in reasons.items() if not why])
    else:
        _, _, *extent = call.source.shape
        taps, axes = math.prod(extent), len(extent)
        for chosen in BACKENDS.values():
            # In this order, as most calls are quickly ruled out as not worthwhile.
            if chosen is native or (
                taps >= chosen.LEAST_TAPS[axes]
                and chosen.worthwhile(call)
                and chosen.unsupported(call) is None
            ):
                break
    # First what torch.compile takes for a constant: it can't trace loggers.
    if not torch.compiler.is_compiling() and _logger.isEnabledFor(logging.DEBUG):
        _log(chosen, call)
    return chosen


def reasons_against(call: ConvolutionCall) -> dict[str, str | None]:
    """Return backend -> why it doesn't support the call, as a sentence, or None."""
    return {name: backend.unsupported(call) for name, backend in BACKENDS.items()}


def _log(chosen: ModuleType, call: ConvolutionCall) -> None:
    if not call.state.is_plain:  # torch.jit.trace has tensors for sizes
        return
    what = (
        next(name for name, backend in BACKENDS.items() if backend is chosen),
        *(tuple(call.image.shape), tuple(call.source.shape), call.stride),
        *(tuple(call.sides), call.groups, call.image.dtype, call.image.device),
        'channels_last' if call.state.channels_last else 'contiguous',
    )
    if what in _logged:
        return
    _logged.add(what)
    _logger.debug(
        'backend %r: input %s, kernel %s, stride %s, padding %s, groups %s, %s on %s, '
        '%s',
        *what,
    )
