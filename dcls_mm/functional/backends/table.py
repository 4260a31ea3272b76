"""The backends of :func:`dcls_mm.functional.convolve`, in order of preference.

A backend is a module with three functions of a ``ConvolutionCall`` and a table:

- ``unsupported`` returns a sentence that says why the backend doesn't support the call,
  or None if it does;
- ``worthwhile`` returns whether a supported call should choose it by default;
- ``convolve`` computes the result, in any memory format, and in a finer dtype than
  autocast's if that pays off. :func:`.convolve` then gives it the dtype and format that
  torch's own would have;
- ``LEAST_TAPS`` gives, by the number of axes, the taps from which it may be worthwhile
  (all but 'native').

A backend for CUDA goes before 'native', which runs on every device and comes last.
"""

from . import cpu_depthwise, direct, fft, native, triton_depthwise

BACKENDS = {
    'direct': direct,
    'fft': fft,
    'cpu_depthwise': cpu_depthwise,
    'triton': triton_depthwise,
    'native': native,
}
