"""PyTorch's own test inputs for its convolutions, given to ours on every backend.

They are in torch.testing._internal, which also needs the package ``expecttest``.
"""

import os
import warnings
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from conftest import assert_close

from dcls_mm.functional import convolve, convolve_transposed
from dcls_mm.functional.backends import BACKENDS

ERRORS = (RuntimeError, TypeError, ValueError)


@pytest.fixture(scope='module')
def samples():
    """Return {name of a function in torch.nn.functional: how torch tests it}."""
    # The import would affect all later tests: it sets an environment variable and
    # freezes flags of torch.backends (such as cudnn.benchmark).
    unfrozen = mock.patch.object(torch.backends, 'disable_global_flags')
    with warnings.catch_warnings(), mock.patch.dict(os.environ), unfrozen:
        warnings.simplefilter('ignore')
        internal = pytest.importorskip(
            'torch.testing._internal.common_methods_invocations', exc_type=ImportError
        )
    return {info.name.rpartition('.')[2]: info for info in internal.op_db}


def stretched(kernel, dilation):
    """Insert zeros between the kernel's taps, as we have no dilation."""
    ndim = kernel.ndim - 2
    steps = dilation if isinstance(dilation, tuple) else (dilation,) * ndim
    steps = steps * (ndim // len(steps))
    extent = [step * (size - 1) + 1 for step, size in zip(steps, kernel.shape[2:])]
    large = kernel.new_zeros(*kernel.shape[:2], *extent)
    large[(..., *(slice(None, None, step) for step in steps))] = kernel
    return large


def ours(function, sample, **options):
    """Call our ``function`` on a sample, with its dilation put into the kernel."""
    kernel, *bias = sample.args
    given = dict(sample.kwargs)
    if 'dilation' in given:
        kernel = stretched(kernel, given.pop('dilation'))
    return function(sample.input, kernel, *bias, **given, **options)


def outcome(function, *arguments, **options):
    """Return a value or the error; None if a backend doesn't support the call."""
    try:
        return function(*arguments, **options)
    except ERRORS as error:
        return None if 'cannot serve this call' in str(error) else error


def assert_same(y, expected, tensors):
    assert y.dtype == expected.dtype
    assert_close(y, expected, factor=5)
    seed = torch.linspace(-1, 2, y.numel()).sin().view(y.shape).to(y)
    for gradient, wanted in zip(
        torch.autograd.grad(y, tensors, seed),
        torch.autograd.grad(expected, tensors, seed),
    ):
        scale = max(1.0, wanted.abs().max().item())  # a gradient may be all zeros
        assert_close(gradient / scale + 1, wanted / scale + 1, factor=5)


def learned(sample):
    tensors = [sample.input, *sample.args]
    return [t for t in tensors if isinstance(t, torch.Tensor) and t.requires_grad]


def test_the_import_leaves_no_marks(samples):
    assert samples and not torch.backends.flags_frozen()


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('name', ['conv1d', 'conv2d', 'conv3d'])
def test_convolutions(samples, name, dtype):
    """Output and all gradients are equal."""
    served = dict.fromkeys(BACKENDS, 0)
    for sample in samples[name].sample_inputs('cpu', dtype, requires_grad=True):
        expected = getattr(F, name)(sample.input, *sample.args, **sample.kwargs)
        assert_same(ours(convolve, sample), expected, learned(sample))
        for backend in BACKENDS:
            y = outcome(ours, convolve, sample, backend=backend)
            if y is None:
                continue
            assert isinstance(y, torch.Tensor), y
            expected = getattr(F, name)(sample.input, *sample.args, **sample.kwargs)
            assert_same(y, expected, learned(sample))
            served[backend] += 1
    assert served['native'] == served['fft'] >= 10
    assert (served['cpu_depthwise'] > 0) == (name == 'conv2d' and dtype == torch.float)


@pytest.mark.parametrize('name', ['conv1d', 'conv2d', 'conv3d'])
def test_what_is_wrong_for_torch_is_wrong_here(samples, name):
    """The error is the same for every backend."""
    tried = 0
    for wrong in samples[name].error_inputs('cpu'):
        sample = wrong.sample_input
        if 'dilation' in sample.kwargs:
            continue
        error = outcome(ours, convolve, sample)
        assert isinstance(error, Exception), wrong.error_regex
        for backend in BACKENDS:
            other = outcome(ours, convolve, sample, backend=backend)
            assert (type(other), str(other)) == (type(error), str(error))
        tried += 1
    assert tried >= 8


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('ndim', [1, 2, 3])
def test_transposed_convolutions(samples, ndim, dtype):
    name, tried = f'conv_transpose{ndim}d', 0
    for sample in samples[name].sample_inputs('cpu', dtype, requires_grad=True):
        if sample.kwargs.get('dilation', 1) != 1 and 'output_padding' in sample.kwargs:
            continue  # torch also bounds it by the dilation
        expected = getattr(F, name)(sample.input, *sample.args, **sample.kwargs)
        assert_same(ours(convolve_transposed, sample), expected, learned(sample))
        tried += 1
    assert tried >= 2
