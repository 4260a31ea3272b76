"""Constructing the kernels of depthwise layers, alone and with all gradients."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import paths  # noqa: F401
import torch
from cases import COUNT, EXTENT
from depthwise import absent
from results import Results, cell, prepared, times_faster

from dcls_mm.functional import INTERPOLATIONS, construct_kernel, use_backend

try:
    from DCLS.construct.modules import ConstructKernel2d
except ImportError:
    ConstructKernel2d = None

PUBLISHED_NAMES = {'bilinear': 'v0', 'triangle': 'v1', 'max': 'max', 'gauss': 'gauss'}
PASSES = ('forward', 'forward + backward')
METHODS = ('dcls', 'torch', 'triton', 'triton, graph')
CHANNELS = (96, 192, 384, 768)


class Case(NamedTuple):
    interpolation: str
    channels: int
    which: str

    def __str__(self):
        return f'{self.channels} kernels, {self.interpolation}, {self.which}'


def measure(device, results: Results, args) -> None:
    results.table(f'Constructing {EXTENT}x{EXTENT} kernels of {COUNT} elements')
    for case in results.in_time(cases(device, args)):
        results.row(_row(device, results, case, args.seconds))
    results.note(
        "With the gradients of weight, positions and sigma. `graph` is the GPU's time "
        'alone. `times faster`: of triton over torch, both eager. `launches`: kernels, '
        f'copies and fills put on the GPU.{absent()}'
    )


def cases(device, args) -> list[Case]:
    channels = (8,) if device.rehearsal else CHANNELS[:1] if args.quick else CHANNELS
    sizes = [('bilinear', n) for n in channels]
    sizes += [(name, channels[-1]) for name in INTERPOLATIONS if name != 'bilinear']
    return [Case(*size, which) for size in sizes for which in PASSES]


def _row(device, results: Results, case: Case, seconds: float) -> dict[str, Any]:
    functions = prepared(
        results, str(case), {m: partial(_build, device, case, m) for m in METHODS}
    )
    timings = device.interleave(functions, seconds)
    launches = {name: device.launches(f) for name, f in functions.items()}
    faster = times_faster([timings.get('triton')], [timings.get('torch')])
    return {
        'kernels': case.channels,
        'interpolation': case.interpolation,
        'pass': case.which,
        **{f'{name} ms': cell(timings, name) for name in METHODS},
        'times faster': faster,
        'launches, torch': launches.get('torch', 'none'),
        'launches, triton': launches.get('triton', 'none'),
    }


def _build(device, case: Case, method: str) -> Callable[[], Any] | None:
    if method == 'dcls' and ConstructKernel2d is None:
        return None
    torch.manual_seed(0)
    weight = torch.randn(case.channels, 1, COUNT, device=device.name)
    positions = (torch.rand(2, *weight.shape, device=device.name) - 0.5) * (EXTENT - 1)
    inputs = [weight, positions]
    if INTERPOLATIONS[case.interpolation].has_sigma:
        inputs.append(torch.rand_like(positions) + 0.3)
    seed = torch.randn(case.channels, 1, EXTENT, EXTENT, device=device.name)
    construct = _published(device, case) if method == 'dcls' else _ours(case)
    backend = device.backend if method.startswith('triton') else 'native'

    def call():
        with use_backend(backend):
            kernel = construct(*inputs)
        return torch.autograd.grad(kernel, inputs, seed) if gradients else kernel

    gradients = case.which == PASSES[1]
    for tensor in inputs:
        tensor.requires_grad_(gradients)
    return device.captured(call) if method == 'triton, graph' else call


def _ours(case: Case) -> Callable:
    return partial(
        construct_kernel, kernel_size=EXTENT, interpolation=case.interpolation
    )


def _published(device, case: Case) -> Callable:
    n, name = case.channels, PUBLISHED_NAMES[case.interpolation]
    module = ConstructKernel2d(n, n, n, COUNT, (EXTENT, EXTENT), name).to(device.name)
    return lambda weight, positions, sigma=None: module(weight, positions, sigma)
