"""Timing, graphs, memory and launches on a GPU, and a rehearsal of them on a CPU.

The two classes have the same methods, so a stage doesn't ask which one it has. Those of
:class:`Rehearsal` run everything once or twice, and their figures mean nothing.
"""

import gc
import json
import os
import platform
import subprocess
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import paths  # noqa: F401
import torch
from common import Timing, evenly_mixed, interleave, repetitions, timing_of
from torch.profiler import ProfilerActivity, profile

WARM_UP = 3
MB = 2**20


class Gpu:
    """The current CUDA device.

    All work runs on a stream of its own: a graph can't be captured on the default one,
    and the backward pass runs where the forward pass did.

    Attributes:
        name: of the torch.device.
        backend: the backend of ``dcls_mm`` that is measured.
        rehearsal: False.
    """

    name = 'cuda'
    backend = 'triton'
    rehearsal = False

    def __init__(self):
        # A second profile beside a CUDA graph crashes if the first ended CUPTI.
        os.environ |= {'TEARDOWN_CUPTI': '0', 'DISABLE_CUPTI_LAZY_REINIT': '1'}
        # The peers get the algorithms that cuDNN finds fastest, and float32 is float32.
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.allow_tf32 = False
        self._stream = torch.cuda.Stream()
        torch.cuda.set_stream(self._stream)
        cache = torch.cuda.get_device_properties(0).L2_cache_size
        # Written before each call, so that it finds nothing in the cache. Meanwhile the
        # host gets ahead, which keeps the gaps between launches out of the times.
        size = max(4 * cache, 256 * MB)
        self._flush = torch.empty(size, dtype=torch.uint8, device='cuda')

    def interleave(
        self, functions: Mapping[str, Callable[[], Any]], seconds: float
    ) -> dict[str, Timing]:
        """Time functions by CUDA events, repetitions evenly mixed, caches flushed."""
        counts = {}
        for name, function in functions.items():
            for _ in range(WARM_UP):
                function()
            counts[name] = repetitions(
                _milliseconds([self._timed(function)])[0], seconds
            )
        events = {name: [] for name in functions}
        for name in evenly_mixed(counts):
            events[name].append(self._timed(functions[name]))
        return {name: timing_of(_milliseconds(e)) for name, e in events.items()}

    def _timed(self, function: Callable[[], Any]) -> tuple:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self._flush.zero_()
        start.record()
        function()
        end.record()
        return start, end

    def captured(self, function: Callable[[], Any]) -> Callable[[], Any]:
        """Return the replay of a CUDA graph of the function: the GPU's time alone."""
        for _ in range(WARM_UP):
            function()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._stream):
            function()
        return graph.replay

    def peak_mb(self, function: Callable[[], Any]) -> float:
        """Return what a warm call adds to the peak of allocated memory."""
        function()
        gc.collect()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / MB

    def launches(self, function: Callable[[], Any]) -> int | str:
        """Count the kernels, copies and fills that a warm call puts on the GPU.

        It is 'none' where the profiler may not see what the GPU does.
        """
        function()
        torch.cuda.synchronize()
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
            function()
            torch.cuda.synchronize()
        return _count(seen, ('kernel', 'gpu_memcpy', 'gpu_memset')) or 'none'

    def free(self) -> None:
        """Give back the memory of what is no longer referred to."""
        gc.collect()
        torch.cuda.empty_cache()

    @staticmethod
    def describe() -> dict[str, str]:
        """Return what the figures depend on."""
        card = torch.cuda.get_device_properties(0)
        return {
            'card': f'{card.name}, sm_{card.major}{card.minor}, '
            f'{card.multi_processor_count} multiprocessors, '
            f'{card.total_memory / 2**30:.0f} GB, {card.L2_cache_size // MB} MB of L2',
            'cards': str(torch.cuda.device_count()),
            'versions': f'{_versions()}, CUDA {torch.version.cuda}, cuDNN '
            f'{torch.backends.cudnn.version()}, driver {nvidia_smi("driver_version")}',
            'times': 'milliseconds, median (lower-upper quartile), by CUDA events',
        }

    def state(self) -> str:
        """Return the card's clocks, power and temperature at this moment."""
        return nvidia_smi('pstate,clocks.sm,clocks.mem,power.draw,temperature.gpu')


class Rehearsal:
    """The same on a CPU with torch's own backend, to try the script itself."""

    name = 'cpu'
    backend = 'native'
    rehearsal = True

    def interleave(self, functions, seconds):
        return interleave(functions, 0.0)

    def captured(self, function):
        return function

    def peak_mb(self, function):
        function()
        return 0.0

    def launches(self, function):
        with profile(activities=[ProfilerActivity.CPU]) as seen:
            function()
        return _count(seen, ('cpu_op',))

    def free(self):
        gc.collect()

    @staticmethod
    def describe():
        return {
            'card': 'none: a rehearsal on a CPU, the figures mean nothing',
            'cards': '0',
            'versions': _versions(),
            'times': 'milliseconds by the clock, few repetitions',
        }

    def state(self):
        return 'a rehearsal'


def open_device(rehearsal: bool) -> Gpu | Rehearsal:
    return Rehearsal() if rehearsal else Gpu()


def nvidia_smi(fields: str) -> str:
    """Return what nvidia-smi says of torch's first card, or why it says nothing.

    It numbers the cards otherwise, and knows no CUDA_VISIBLE_DEVICES.
    """
    card = f'GPU-{torch.cuda.get_device_properties(0).uuid}'
    command = ['nvidia-smi', f'--query-gpu={fields}', '--format=csv,noheader']
    command += ['-i', card]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f'unknown ({error})'
    return done.stdout.strip() or f'unknown ({done.stderr.strip()})'


def _milliseconds(events: list[tuple]) -> list[float]:
    torch.cuda.synchronize()
    return [start.elapsed_time(end) for start, end in events]


def _count(seen: profile, categories: tuple[str, ...]) -> int:
    """Count the events of a profile that its trace has under some categories."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / 'trace.json'
        seen.export_chrome_trace(str(path))
        events = json.loads(path.read_text(errors='replace'))['traceEvents']
    return sum(event.get('cat') in categories for event in events)


def _versions() -> str:
    names = ('torch', 'triton', 'dcls')
    parts = [f'{name} {_version(name)}' for name in names]
    return ', '.join([f'Python {platform.python_version()}', *parts])


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return '(not installed)'
