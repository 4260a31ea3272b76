"""The launch plans of the kernels: which is the fastest for which shape.

A kernel's module has its plans in a table, which is replaced here by one plan after the
other. Each is compiled and compared with the module's own in one of several processes,
as compiling takes seconds. Those that ran are then timed side by side, in CUDA graphs.
"""

import contextlib
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from functools import partial
from importlib import import_module
from itertools import product
from typing import Any, NamedTuple

import paths  # noqa: F401
import torch
from cases import DTYPES, NETWORKS, Stage, images_of, stages_of
from results import Results

from dcls_mm.functional import triton_kernels

AT_ONCE = 12

# The largest difference from the module's own plan, relative to the largest value.
TOLERANCE = {'float16': 2e-3, 'bfloat16': 2e-2, 'float32': 1e-5}


class Sweep(NamedTuple):
    """A table of plans and what is tried in its place.

    Attributes:
        module: the module of ``triton_kernels``.
        attribute: its table, or a number.
        function: what launches the kernel.
        options: values for fields of the table's plans, or for the number itself.
    """

    module: str
    attribute: str
    function: str
    options: dict[str, tuple] | tuple

    def __str__(self):
        return f'{self.module}.{self.attribute}'

    def load(self):
        return import_module(f'{triton_kernels.__name__}.{self.module}')

    def values(self) -> list[Any]:
        """Return what to assign to the attribute, the module's own value first."""
        own = getattr(self.load(), self.attribute)
        if isinstance(self.options, tuple):
            return list(dict.fromkeys([own, *self.options]))
        changes = [
            dict(zip(self.options, chosen))
            for chosen in product(*self.options.values())
        ]
        plans = dict.fromkeys(plan._replace(**c) for plan in own for c in changes)
        return [own, *((plan,) for plan in plans)]


SWEEPS = (
    Sweep(
        'kernel_gradient',
        'TILES',
        'depthwise_kernel_gradient',
        dict(
            kernel_rows=(4, 8),
            image_rows=(32, 64),
            num_warps=(4, 8),
            num_stages=(2, 3),
        ),
    ),
    Sweep(
        'kernel_gradient',
        'PROGRAMS',
        'depthwise_kernel_gradient',
        (512, 1024, 2048, 4096, 8192),
    ),
)


class Case(NamedTuple):
    stage: Stage
    dtype: str
    extent: int

    def __str__(self):
        return f'{self.stage}, {self.dtype}, {self.extent}x{self.extent}'


class Trial(NamedTuple):
    """Values for a sweep, each with its difference from the module's own to come."""

    sweep: Sweep
    case: Case
    values: list[tuple[Any, Future]]

    def __str__(self):
        return f'{self.sweep}, {self.case}'


def measure(device, results: Results, args) -> None:
    why = triton_kernels.missing()
    if why is not None:
        results.fail('plans', why)
        return
    results.table('The fastest launch plans')
    results.content['tried'] = {}
    todo = list(product(SWEEPS, cases(device, args)))
    workers = 1 if device.rehearsal else min(AT_ONCE, os.cpu_count() or 1)
    fresh = multiprocessing.get_context('spawn')
    with ProcessPoolExecutor(workers, fresh) as pool:
        trials = [
            [
                (value, pool.submit(_try, device.name, sweep, case, value))
                for value in _few(sweep.values(), device)
            ]
            for sweep, case in todo
        ]
        for trial in results.in_time(Trial(*t) for t in zip(*zip(*todo), trials)):
            _measure_case(device, results, trial, args.seconds / 3)
        pool.shutdown(wait=False, cancel_futures=True)
    results.note(
        '`own`: the plan that the module chooses by itself. Plans that did not compile '
        'or run here are counted as refused. The JSON has the times of all.'
    )


def cases(device, args) -> list[Case]:
    if device.rehearsal:
        return [Case(Stage(1, 1, 4, 16), 'float16', 3)]
    first, _, third, _ = stages_of(images_of(device)[0], NETWORKS[args.backbone])
    found = [Case(first, 'float16', 17), Case(third, 'float16', 17)]
    found += [Case(first, 'float16', 31), Case(first, 'float32', 17)]
    return found[:1] if args.quick else found


def _few(values: list[Any], device) -> list[Any]:
    return values[:3] if device.rehearsal else values


def _measure_case(device, results: Results, trial: Trial, seconds: float) -> None:
    calls, refused = {}, {}
    for value, compared in trial.values:
        error = compared.exception()
        if error is not None:
            refused[str(value)] = f'{type(error).__name__}: {error}'
            continue
        difference = compared.result()
        if not difference <= TOLERANCE[trial.case.dtype]:  # NaN neither
            results.fail(f'{trial}, {value}', f'It is off by {difference:.3g}.')
            continue
        with results.going_on(f'{trial}, {value}'):
            call = _call(device.name, trial.sweep, trial.case, value)
            calls[str(value)] = device.captured(call)
    timings = device.interleave(calls, seconds)
    results.content['tried'][str(trial)] = dict(times=timings, refused=refused)
    own = str(trial.values[0][0])
    if own not in timings:
        results.fail(str(trial), f'The own plan failed. {refused}')
        return
    best = min(timings, key=lambda name: timings[name].median)
    results.row(
        {
            'table': str(trial.sweep),
            'convolution': str(trial.case),
            'own ms': timings[own],
            'best ms': timings[best],
            'times faster': timings[own].median / timings[best].median,
            'best plan': 'its own' if best == own else best,
            'tried': len(timings),
            'refused': len(refused),
        }
    )


def _try(device: str, sweep: Sweep, case: Case, value: Any) -> float:
    """Return how far the result of a plan is from that of the module's own."""
    expected = _call(device, sweep, case, getattr(sweep.load(), sweep.attribute))()
    found = _call(device, sweep, case, value)()
    difference = (found.double() - expected.double()).abs().max()
    return (difference / expected.double().abs().max()).item()


def _call(
    device: str, sweep: Sweep, case: Case, value: Any
) -> Callable[[], torch.Tensor]:
    """Return a function that launches the kernel under a plan."""
    torch.manual_seed(0)
    made = dict(device=device, dtype=DTYPES[case.dtype])
    x = torch.randn(case.stage, **made)
    extent, before = (case.extent,) * 2, (case.extent // 2,) * 2
    module = sweep.load()
    launch = getattr(module, sweep.function)
    if sweep.function == 'convolve_depthwise':
        kernel = torch.randn(case.stage.channels, 1, *extent, **made)
        run = partial(launch, x, kernel, None, before, x.shape[2:], False)
    else:
        run = partial(launch, x, torch.randn_like(x), extent, before, False)

    def call():
        with _assigned(module, sweep.attribute, value):
            return run()

    return call


@contextlib.contextmanager
def _assigned(module, attribute: str, value: Any) -> Iterator[None]:
    before = getattr(module, attribute)
    setattr(module, attribute, value)
    try:
        yield
    finally:
        setattr(module, attribute, before)
