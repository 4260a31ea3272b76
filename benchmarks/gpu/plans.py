"""The launch plans of the kernels: which is the fastest for which shape.

A kernel's module has its plans in a table and in some numbers, which are replaced here
by one choice after the other. Each is compiled and compared with the module's own in
one of several processes, as compiling takes seconds. Those that ran are then timed side
by side, in CUDA graphs, while these processes wait: they would share the GPU.
"""

import contextlib
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib import import_module
from itertools import product, starmap
from typing import Any, NamedTuple

import paths  # noqa: F401
import torch
from cases import COUNT, DTYPES, NETWORKS, Stage, images_of, stages_of
from results import Results

from dcls_mm.functional import triton_kernels

AT_ONCE = 12
OWN = 'its own'

# The largest difference from the module's own plan, relative to the largest value.
TOLERANCE = {'float16': 2e-3, 'bfloat16': 2e-2, 'float32': 2e-4}


class Sweep(NamedTuple):
    """What is tried in place of a module's tables and numbers.

    Attributes:
        module: of ``triton_kernels``.
        function: what launches the kernel.
        numbers: constant of the module -> values for it. Where the constant is a
            dict, all its entries get the value.
        table: the constant that has the plans, named tuples in a tuple or a dict.
        fields: field of the plans -> values for it.
    """

    module: str
    function: str
    numbers: dict[str, tuple]
    table: str | None = None
    fields: dict[str, tuple] = {}

    def __str__(self):
        names = [*self.numbers, self.table] if self.table else self.numbers
        return f'{self.function}: {", ".join(names)}'

    def load(self):
        return import_module(f'{triton_kernels.__name__}.{self.module}')

    def choices(self) -> list[dict[str, Any]]:
        """Return what to assign to which constants; first nothing, the module's own."""
        options = {name: list(values) for name, values in self.numbers.items()}
        if self.table is not None:
            own = getattr(self.load(), self.table)
            changes = [
                dict(zip(self.fields, values))
                for values in product(*self.fields.values())
            ]
            plans = own.values() if isinstance(own, dict) else own
            changed = (plan._replace(**change) for plan in plans for change in changes)
            options[self.table] = list(dict.fromkeys(changed))
        return [{}, *(dict(zip(options, v)) for v in product(*options.values()))]

    @contextlib.contextmanager
    def assigned(self, choice: dict[str, Any]) -> Iterator[None]:
        """Have the module use a choice, and nothing else, inside the block."""
        module = self.load()
        before = {name: getattr(module, name) for name in choice}
        for name, value in choice.items():
            if isinstance(before[name], dict):
                value = dict.fromkeys(before[name], value)
            elif isinstance(before[name], tuple):
                value = (value,)
            setattr(module, name, value)
        _forget(module)
        try:
            yield
        finally:
            vars(module).update(before)
            _forget(module)


def _forget(module) -> None:
    """Empty the caches of a module's functions, which keep plans."""
    for function in vars(module).values():
        clear = getattr(function, 'cache_clear', None)
        if clear is not None:
            clear()


SWEEPS = (
    Sweep(
        'convolution',
        'convolve_depthwise',
        {},
        'TILES',
        dict(
            rows=(2, 4),
            blocks=(64, 128),
            widest_chunk=(16, 32),
            num_warps=(4, 8),
            num_stages=(2, 3),
        ),
    ),
    Sweep(
        'kernel_gradient',
        'depthwise_kernel_gradient',
        {},
        'TILES',
        dict(kernel_rows=(4, 8), strip=(1, 2), num_warps=(4, 8)),
    ),
    Sweep(
        'kernel_gradient',
        'depthwise_kernel_gradient',
        dict(PROGRAMS=(512, 1024, 4096, 8192)),
    ),
    Sweep('construction', 'construct', dict(STEP=(2, 4, 8), TILE=(128, 256, 512))),
    Sweep('construction', 'construct_gradient', dict(PAIRS=(32, 64, 256))),
)


class Case(NamedTuple):
    stage: Stage
    dtype: str
    extent: int

    def __str__(self):
        return f'{self.stage}, {self.dtype}, {self.extent}x{self.extent}'

    @property
    def kernel(self) -> tuple[int, ...]:
        return (self.stage.channels, 1, self.extent, self.extent)

    @property
    def before(self) -> tuple[int, int]:
        return (self.extent // 2,) * 2


class Trial(NamedTuple):
    """A sweep at one case."""

    case: Case
    sweep: Sweep

    def __str__(self):
        return f'{self.sweep}, {self.case}'


def measure(device, results: Results, args) -> None:
    why = triton_kernels.missing()
    if why is not None:
        results.fail('plans', why)
        return
    results.table('The fastest launch plans')
    results.content['tried'] = {}
    workers = 1 if device.rehearsal else min(AT_ONCE, os.cpu_count() or 1)
    fresh = multiprocessing.get_context('spawn')
    with ProcessPoolExecutor(workers, fresh) as pool:
        trials = starmap(Trial, product(cases(device, args), SWEEPS))
        for trial in results.in_time(trials):
            choices = trial.sweep.choices()[: 2 if device.rehearsal else None]
            compare = partial(_compare, device.name, trial)
            compared = list(zip(choices, pool.map(compare, choices), strict=True))
            _measure(device, results, trial, compared, args.seconds / 3)
    results.note(
        '`own`: what the module chooses by itself. Plans that did not compile or run '
        'are counted as refused. The JSON has the times of all.'
    )


def cases(device, args) -> list[Case]:
    if device.rehearsal:
        return [Case(Stage(1, 1, 4, 16), 'float16', 3)]
    first, _, third, _ = stages_of(images_of(device)[0], NETWORKS[args.backbone])
    found = [Case(first, 'float16', 17), Case(third, 'float16', 17)]
    found += [Case(first, 'float16', 31), Case(first, 'float32', 17)]
    return found[:1] if args.quick else found


def _measure(
    device,
    results: Results,
    trial: Trial,
    compared: list[tuple[dict, float | str]],
    seconds: float,
) -> None:
    """Time the choices that make no difference to the result; see :func:`_compare`."""
    calls, refused = {}, {}
    for choice, difference in compared:
        name = _name(choice)
        if isinstance(difference, str):
            refused[name] = difference
            continue
        if not difference <= TOLERANCE[trial.case.dtype]:  # NaN neither
            results.fail(f'{trial}, {name}', f'It is off by {difference:.3g}.')
            continue
        with results.going_on(f'{trial}, {name}'):
            call = _call(device.name, trial, choice)
            calls[name] = device.captured(call)
    timings = device.interleave(calls, seconds)
    results.content['tried'][str(trial)] = dict(times=timings, refused=refused)
    if OWN not in timings:
        results.fail(str(trial), f'Its own plan failed. {refused}')
        return
    best = min(timings, key=lambda name: timings[name].median)
    results.row(
        {
            'kernel': str(trial.sweep),
            'convolution': str(trial.case),
            'own ms': timings[OWN],
            'best ms': timings[best],
            'times faster': timings[OWN].median / timings[best].median,
            'best plan': best,
            'tried': len(timings),
            'refused': len(refused),
        }
    )


def _name(choice: dict[str, Any]) -> str:
    return ', '.join(f'{k}={v}' for k, v in choice.items()) or OWN


def _compare(device: str, trial: Trial, choice: dict) -> float | str:
    """Return the largest difference that a choice makes, relative to the results.

    If it can't be launched, return why: some errors of the compiler can't be pickled.
    """
    try:
        found = _call(device, trial, choice)()
    except Exception as error:
        return f'{type(error).__name__}: {error}'
    pairs = zip(found, _call(device, trial, {})(), strict=True)
    differences = [
        ((found.double() - own.double()).abs().max() / own.double().abs().max()).item()
        for found, own in pairs
    ]
    return max(differences)


def _call(device: str, trial: Trial, choice: dict) -> Callable[[], list[torch.Tensor]]:
    """Return a function that launches the kernel under a choice."""
    case, sweep = trial
    launch = partial(
        getattr(sweep.load(), sweep.function), *ARGUMENTS[sweep.function](device, case)
    )

    def call():
        with sweep.assigned(choice):
            result = launch()
        tensors = [result] if isinstance(result, torch.Tensor) else result
        return [tensor for tensor in tensors if tensor is not None]

    return call


def _convolution(device: str, case: Case) -> tuple:
    x, kernel = _randn(device, case, case.stage), _randn(device, case, case.kernel)
    return x, kernel, None, case.before, x.shape[2:], False


def _kernel_gradient(device: str, case: Case) -> tuple:
    x, grad_y = _randn(device, case, 2, *case.stage)
    return x, grad_y, case.kernel[2:], case.before, False


def _construction(device: str, case: Case) -> tuple:
    torch.manual_seed(0)
    weight = torch.randn(*case.kernel[:2], COUNT, device=device)
    positions = (torch.rand(2, *weight.shape, device=device) - 0.5) * case.extent
    extent = case.kernel[2:]
    return weight, positions, None, extent, 'bilinear', DTYPES[case.dtype]


def _construction_gradient(device: str, case: Case) -> tuple:
    *elements, _ = _construction(device, case)
    return torch.randn(case.kernel, device=device), *elements, (True, True, False)


def _randn(device: str, case: Case, *shape) -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(*shape, device=device).to(DTYPES[case.dtype])


# From a device and a case to the arguments of a launching function.
ARGUMENTS = {
    'convolve_depthwise': _convolution,
    'depthwise_kernel_gradient': _kernel_gradient,
    'construct': _construction,
    'construct_gradient': _construction_gradient,
}
