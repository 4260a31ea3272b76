"""The depthwise 17x17 convolution at the shapes of ConvNeXt's stages.

Forward, gradient of the input and gradient of the kernel, each in a CUDA graph, so that
the times are the GPU's. The peers are torch's own convolution in both memory formats
and the plain 7x7 convolution that a ConvNeXt without DCLS has there.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import paths  # noqa: F401
import torch
from cases import (
    CONVOLUTION_TARGET,
    DTYPES,
    EXTENT,
    FORMATS,
    FORWARD_TARGET_MS,
    NETWORKS,
    Stage,
    images_of,
    stages_of,
)
from common import verdict
from results import Results, cell, prepared, times_faster

from dcls_mm.functional import convolve

PASSES = ('forward', 'input gradient', 'kernel gradient')


class Method(NamedTuple):
    extent: int
    backend: str | None  # None: the backend that is measured
    memory_format: str


METHODS = {
    'torch': Method(EXTENT, 'native', 'contiguous'),
    'torch channels_last': Method(EXTENT, 'native', 'channels_last'),
    'triton': Method(EXTENT, None, 'contiguous'),
    'triton channels_last': Method(EXTENT, None, 'channels_last'),
    '7x7': Method(7, 'native', 'contiguous'),
    '7x7 channels_last': Method(7, 'native', 'channels_last'),
}


class Case(NamedTuple):
    stage: Stage
    dtype: str
    which: str

    def __str__(self):
        return f'{self.stage}, {self.dtype}, {self.which}'


def measure(device, results: Results, args) -> None:
    _ceilings(device, results)
    results.table('Depthwise 17x17 convolutions of the stages')
    for case in results.in_time(cases(device, args)):
        results.row(_row(device, results, case, args.seconds))
        device.free()
    results.note(
        'Each call is a replay of a CUDA graph. `floor`: the time to read and write '
        'each tensor once, at the measured speed of a copy. `times faster`: of the '
        "better of triton's memory formats over the better of torch's."
    )


def cases(device, args) -> list[Case]:
    """Return all of float16 first, then one stage in the other dtypes."""
    stages = [
        stage
        for images in images_of(device)
        for stage in stages_of(images, NETWORKS[args.backbone])
    ]
    if args.quick:
        stages = stages[:1]
    half, *others = DTYPES
    wanted = [(stage, half) for stage in stages]
    wanted += [(stages[0], dtype) for dtype in others]
    return [Case(*pair, which) for pair in wanted for which in PASSES]


def _ceilings(device, results: Results) -> None:
    """Measure what the card can do at most: a copy, and a product of matrices."""
    size = 64 if device.rehearsal else 8192
    source, target = torch.randn(2, 4 * size * size, device=device.name).half()
    left, right, product = torch.randn(3, size, size, device=device.name).half()
    calls = {
        'copy': lambda: target.copy_(source),
        'product': lambda: torch.mm(left, right, out=product),
    }
    timings = device.interleave(calls, 0.1)
    rate = 2 * source.nbytes / timings['copy'].median / 1e6
    results.fact('copy, GB/s read and written', rate)
    tera = timings['product'].gflops(2 * size**3) / 1e3
    results.fact(f'float16 product of {size}x{size} matrices, TFLOP/s', tera)


def _row(device, results: Results, case: Case, seconds: float) -> dict[str, Any]:
    functions = prepared(
        results,
        str(case),
        {name: partial(_build, device, case, m) for name, m in METHODS.items()},
    )
    timings = device.interleave(functions, seconds)
    cells = {
        'images': str(case.stage),
        'dtype': case.dtype,
        'pass': case.which,
        **{f'{name} ms': cell(timings, name) for name in METHODS},
        'floor ms': _floor(results, case),
    }
    ours, peers = (
        [timings.get(f'{kind}{suffix}') for suffix in ('', ' channels_last')]
        for kind in ('triton', 'torch')
    )
    cells['times faster'] = faster = times_faster(ours, peers)
    cells['target'] = ''
    if faster != 'none':
        cells['target'] = verdict(faster, least=CONVOLUTION_TARGET)
        if case.which == 'forward':
            least = min(timing.median for timing in ours if timing)
            cells['target'] += '; ms ' + verdict(least, most=FORWARD_TARGET_MS)
    return cells


def _build(device, case: Case, method: Method) -> Callable[[], Any]:
    """Return a captured call. Each pass only differentiates what it needs."""
    torch.manual_seed(0)
    dtype, layout = DTYPES[case.dtype], FORMATS[method.memory_format]
    made = dict(device=device.name, dtype=dtype)
    x = torch.randn(case.stage, **made).contiguous(memory_format=layout)
    kernel = torch.randn(case.stage.channels, 1, *[method.extent] * 2, **made)
    call = partial(
        convolve,
        x,
        kernel,
        padding='same',
        groups=case.stage.channels,
        backend=method.backend or device.backend,
    )
    if case.which == 'forward':
        return device.captured(call)
    wanted = (x if case.which == 'input gradient' else kernel).requires_grad_()
    y, seed = call(), torch.randn_like(x)
    return device.captured(
        lambda: torch.autograd.grad(y, wanted, seed, retain_graph=True)
    )


def _floor(results: Results, case: Case) -> float:
    """Return milliseconds to move two tensors of images, which any pass must."""
    images = torch.empty(case.stage, dtype=DTYPES[case.dtype], device='meta')
    rate = results.content['facts']['copy, GB/s read and written']
    return 2 * images.nbytes / rate / 1e6
