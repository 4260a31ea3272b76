"""autotune chooses the fastest backend, and times each shape once."""

import pytest
import torch
from conftest import assert_close

from dcls_mm.functional import autotune, convolve
from dcls_mm.functional.backends import (
    BACKENDS,
    ConvolutionCall,
    select_backend,
    timing,
)


@pytest.fixture
def trials(monkeypatch):
    """Return the backends' alleged seconds, and a list of what was timed."""
    seconds, timed = dict(fft=3.0, cpu_depthwise=1.0, native=2.0), []
    names = {backend: name for name, backend in BACKENDS.items()}

    def given(backend, call):
        timed.append((names[backend], tuple(call.x.shape)))
        return seconds[names[backend]]

    monkeypatch.setattr(timing, '_fastest', {})
    monkeypatch.setattr(timing, '_seconds', given)
    return seconds, timed


def call(size, **options):
    x = torch.randn(1, 4, size, size, **options)
    return ConvolutionCall(x, torch.randn(4, 1, 3, 3), None, (1, 1), [(1, 1)] * 2, 4)


def test_the_fastest_is_chosen_and_remembered(trials):
    seconds, timed = trials
    assert select_backend(None, call(8)) is BACKENDS['native']
    assert timed == [], 'off by default'
    with autotune():
        assert select_backend(None, call(8)) is BACKENDS['cpu_depthwise']
        assert timed == [(name, (1, 4, 8, 8)) for name in seconds]
        seconds['native'] = 0.5
        assert select_backend(None, call(8)) is BACKENDS['cpu_depthwise']
        assert select_backend(None, call(9)) is BACKENDS['native']
        assert select_backend(None, call(8, requires_grad=True)) is BACKENDS['native']
        assert len(timed) == 9
        assert select_backend('cpu_depthwise', call(9)) is BACKENDS['cpu_depthwise']
        with autotune(False):
            assert select_backend(None, call(7)) is BACKENDS['native']
        assert select_backend(None, call(0)) is BACKENDS['native']
        assert len(timed) == 9, 'nothing to choose from'
    assert select_backend(None, call(8)) is BACKENDS['native']


def test_really_timed(monkeypatch):
    """The result, gradients included, is the same whichever backend wins."""
    monkeypatch.setattr(timing, '_fastest', {})
    x = torch.randn(2, 4, 20, 20, requires_grad=True)
    kernel = torch.randn(4, 1, 11, 11, requires_grad=True)
    with autotune():
        y = convolve(x, kernel, padding=5, groups=4)
    expected = convolve(x, kernel, padding=5, groups=4, backend='native')
    assert len(timing._fastest) == 1
    assert x.grad is None and kernel.grad is None
    assert_close(y, expected, factor=5)
    y.sum().backward()
    assert kernel.grad.shape == kernel.shape


def test_as_a_function():
    autotune()
    try:
        assert autotune.is_on
    finally:
        autotune(False)
    assert not autotune.is_on


def test_transforms_choose_as_without_timing():
    """They take torch's own operators, which timing on copies would not."""
    kernel, x = torch.randn(4, 1, 15, 15), torch.randn(1, 4, 18, 18)

    def loss(kernel):
        return convolve(x, kernel, padding=7, groups=4).square().sum()

    expected = torch.func.grad(loss)(kernel)
    with autotune():
        assert_close(torch.func.grad(loss)(kernel), expected)
        assert_close(torch.func.vmap(loss)(kernel[None]), loss(kernel)[None])
