"""The compiled part: a direct convolution over the taps that exist, on a CPU.

Its source is in ``csrc/``, plain C++ without torch's headers, so that one build serves
every version of torch. It is optional: nothing is compiled on import, and without it
the dense path serves. ``python -m dcls_mm.functional.native_code`` builds it.

It has no threads of its own. It borrows those of the OpenMP runtime that torch brought
into the process, because two pools on the same cores would wait for each other.
"""

import ctypes
import functools
import logging
import os

from .building import advice, library_path

_logger = logging.getLogger(__name__)


@functools.cache
def missing() -> str | None:
    """Return why the compiled part can't be used, as a sentence, or None."""
    try:
        library()
    except OSError as error:
        return str(error)
    return None


@functools.cache
def library() -> ctypes.CDLL:
    """Load the library.

    Raises:
        OSError: it isn't built or can't be loaded; the message says what to do.
    """
    path = library_path()
    if not path.is_file():
        raise OSError(f'the compiled part of dcls_mm is not built; {advice()}')
    try:
        loaded = ctypes.CDLL(os.fspath(path))
    except OSError as error:
        raise OSError(
            f'the compiled part of dcls_mm does not load ({error}); {advice()}'
        ) from error
    loaded.dcls_instructions.argtypes = [ctypes.c_char_p]
    loaded.dcls_instructions.restype = ctypes.c_char_p
    return loaded


def instructions(name: str | None = None) -> str:
    """Select an instruction set ('plain', 'avx2', 'avx512'), and return its name.

    Args:
        name: None for the best that the processor has, which is also the default.

    Raises:
        ValueError: the processor or the build lacks it.
    """
    wanted = None if name is None else name.encode()
    found = library().dcls_instructions(wanted)
    if found is None:
        raise ValueError(f'this processor or build has no instructions {name!r}')
    return found.decode()


@functools.cache
def tell_missing() -> None:
    """Warn, once in a process, that layers use the dense path for want of this part."""
    _logger.warning(
        '%s. Until then layers convolve with the zeros of their kernels too, which is '
        "slower on a CPU. formulation='construct' in a layer says that this is meant, "
        'and silences this warning.',
        missing(),
    )
