"""The backends of :func:`dcls_mm.functional.convolve`, in order of preference.

A backend is a module of functions of a ``ConvolutionCall``: ``unsupported`` says in a
sentence why the backend can't serve the call (None if it can), ``worthwhile`` whether
it should be chosen by itself if it can, and ``convolve`` serves it, in any memory
format, and in a finer dtype than autocast's if that pays: :func:`.convolve` makes of
all results what torch's own would be. ``LEAST_TAPS``, if it has one, says by the number
of axes from how many taps on it may be worthwhile. A backend for CUDA stands before
'native', which runs on every device.
"""

from . import cpu_depthwise, fft, native

BACKENDS = {'fft': fft, 'cpu_depthwise': cpu_depthwise, 'native': native}
