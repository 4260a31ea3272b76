"""Convolving with a dense kernel, against torch's own convolution.

The first table has the depthwise 17x17 convolutions of ConvNeXt's stages, compared with
torch on contiguous input. The second has other shapes that the layers accept, compared
with torch on input of the same memory format. Every call pays for the conversions that
it needs; 'backward' computes the gradients of input and kernel.
"""

import itertools
import math
import statistics
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from common import Report, argument_parser, interleave, number, progress, verdict
from memory import extra_memory

from dcls_mm.functional import convolve
from dcls_mm.functional.backends import ConvolutionCall, select_backend

PASSES = {'forward': False, 'forward + backward': True}

MEMORY_FORMATS = {
    ('channels_last', 2): torch.channels_last,
    ('channels_last', 3): torch.channels_last_3d,
}


class Case(NamedTuple):
    """A convolution padded by half of its extent."""

    input: tuple  # batch, channels, *size
    extent: tuple
    out: int
    groups: int
    stride: int = 1

    @property
    def padding(self):
        return tuple(size // 2 for size in self.extent)

    @property
    def output(self):
        sizes = zip(self.input[2:], self.padding, self.extent)
        size = [(n + 2 * p - k) // self.stride + 1 for n, p, k in sizes]
        return (self.input[0], self.out, *size)

    @property
    def kernel(self):
        return (self.out, self.input[1] // self.groups, *self.extent)

    @property
    def operations(self):
        """FLOPs of the forward pass, including those on the padding."""
        return 2 * math.prod(self.output) * math.prod(self.kernel[1:])

    def __str__(self):
        channels = self.input[1]
        parts = ['x'.join(map(str, self.input)), 'x'.join(map(str, self.extent))]
        if self.groups == channels:
            parts.append('depthwise')
        elif self.groups > 1:
            parts.append(f'{self.groups} groups')
        else:
            parts.append('dense')
        if self.out != channels:
            parts.append(f'{self.out} outputs')
        if self.stride > 1:
            parts.append(f'stride {self.stride}')
        return ', '.join(parts)


def depthwise(*shape, extent=(17, 17), multiplier=1, stride=1):
    return Case(shape, extent, multiplier * shape[1], shape[1], stride)


def grouped(*shape, extent, groups=1):
    return Case(shape, extent, shape[1], groups)


STAGES = [
    depthwise(1, 96, 200, 320),
    depthwise(1, 192, 100, 160),
    depthwise(1, 384, 50, 80),
    depthwise(1, 768, 25, 40),
    depthwise(2, 96, 128, 128),
    depthwise(2, 192, 64, 64),
    depthwise(2, 384, 32, 32),
    depthwise(2, 768, 16, 16),
]
# How many times faster than torch on contiguous input dcls_mm should be: for every
# shape, and in the geometric mean.
STAGE_TARGETS = {
    ('forward', 'channels_last'): (30, None),
    ('forward', 'contiguous'): (20, None),
    ('forward + backward', 'channels_last'): (12, 18),
    ('forward + backward', 'contiguous'): (12, 18),
}

OTHERS = [
    *(
        depthwise(1, 64, 56, 56, extent=(size, size))
        for size in (3, 5, 7, 9, 11, 13, 17, 21, 31)
    ),
    *(depthwise(1, 64, 56, 56, extent=pair) for pair in ((1, 17), (17, 1), (5, 17))),
    depthwise(1, 64, 56, 56, extent=(7, 7), stride=2),
    depthwise(1, 64, 56, 56, stride=2),
    depthwise(1, 64, 56, 56, extent=(7, 7), multiplier=2),
    depthwise(1, 64, 56, 56, multiplier=2),
    grouped(1, 64, 56, 56, extent=(3, 3)),
    grouped(1, 64, 56, 56, extent=(7, 7)),
    grouped(1, 64, 56, 56, extent=(7, 7), groups=4),
    *(depthwise(batch, 64, 28, 28) for batch in (1, 4, 16)),
    depthwise(16, 64, 28, 28, extent=(7, 7)),
    depthwise(1, 61, 53, 47, extent=(7, 7)),
    depthwise(1, 61, 53, 47),
    depthwise(1, 64, 4096, extent=(17,)),
    depthwise(1, 64, 4096, extent=(65,)),
    depthwise(1, 16, 16, 32, 32, extent=(7, 7, 7)),
    # As large as continuous kernels get.
    depthwise(1, 64, 56, 56, extent=(55, 55)),
    depthwise(1, 64, 4096, extent=(1025,)),
    grouped(1, 16, 4096, extent=(1025,)),
]
OTHERS_TARGET = 1.05

TINY = depthwise(1, 8, 20, 20)
QUICK_STAGES = [depthwise(1, 16, 24, 24)]
QUICK_OTHERS = [depthwise(1, 4, 64, extent=(5,)), grouped(1, 4, 8, 8, extent=(3, 3))]


def build(method, case, gradients):
    """Return a function without arguments; method names a library and a format."""
    torch.manual_seed(0)
    library, memory_format = method.split()
    x = arranged(torch.randn(case.input), memory_format)
    kernel = torch.randn(case.kernel)
    function = convolve
    if library == 'torch':
        function = getattr(F, f'conv{len(case.extent)}d')
    run = partial(
        function, stride=case.stride, padding=case.padding, groups=case.groups
    )

    def forward():
        with torch.no_grad():
            return run(x, kernel)

    def forward_and_backward():
        return torch.autograd.grad(run(x, kernel), [x, kernel], seed)

    if not gradients:
        return forward
    seed = arranged(torch.randn(case.output), memory_format)
    x.requires_grad_()
    kernel.requires_grad_()
    return forward_and_backward


def arranged(x, memory_format):
    """Return the tensor in a memory format; 1-d tensors only have a contiguous one."""
    chosen = MEMORY_FORMATS.get((memory_format, x.ndim - 2), torch.contiguous_format)
    return x.contiguous(memory_format=chosen)


def backend_name(case, memory_format, gradients):
    x = arranged(torch.randn(case.input), memory_format).requires_grad_(gradients)
    kernel = torch.randn(case.kernel).requires_grad_(gradients)
    stride = (case.stride,) * len(case.extent)
    sides = [*zip(case.padding, case.padding)]
    call = ConvolutionCall(x, kernel, None, stride, sides, case.groups)
    return select_backend(None, call).__name__.rpartition('.')[2]


def cells_of(case, name, memory_format, peer, candidate):
    """Return the cells that both tables start with."""
    gradients = PASSES[name]
    operations = case.operations * (3 if gradients else 1)
    return {
        'convolution': str(case),
        'pass': name,
        'dcls_mm on': memory_format,
        'backend': backend_name(case, memory_format, gradients),
        'torch ms': peer,
        'dcls_mm ms': candidate,
        'torch GFLOP/s': peer.gflops(operations),
        'dcls_mm GFLOP/s': candidate.gflops(operations),
    }


def measure_stage(case, name, args):
    """Yield one row per memory format of dcls_mm's input."""
    progress(f'{case}, {name}')
    peer, *candidates = methods = [
        'torch contiguous',
        'dcls_mm channels_last',
        'dcls_mm contiguous',
    ]
    gradients = PASSES[name]
    timings = interleave({m: build(m, case, gradients) for m in methods}, args.seconds)
    tiny, whole = (TINY, gradients), (case, gradients)
    memory = extra_memory(build, methods, tiny, whole, args.threads)
    for method in candidates:
        memory_format = method.split()[1]
        cells = cells_of(case, name, memory_format, timings[peer], timings[method])
        faster = timings[peer].median / timings[method].median
        least, _ = STAGE_TARGETS[name, memory_format]
        cells['times faster'] = faster
        cells['target'] = verdict(faster, least=least)
        if memory:
            cells['torch extra MB'] = memory[peer]
            cells['dcls_mm extra MB'] = memory[method]
        yield cells


def report_stages(report, cases, args):
    report.table("Depthwise convolutions of the stages, against torch's on contiguous")
    ratios = {key: [] for key in STAGE_TARGETS}
    for case in cases:
        for name in PASSES:
            for row in measure_stage(case, name, args):
                ratios[name, row['dcls_mm on']].append(row['times faster'])
                report.row(row)
    report.table('Times faster over these shapes')
    for (name, memory_format), values in ratios.items():
        mean = statistics.geometric_mean(values)
        _, least = STAGE_TARGETS[name, memory_format]
        report.row(
            {
                'pass': name,
                'dcls_mm on': memory_format,
                'least': min(values),
                'geometric mean': mean,
                'target of the mean': verdict(mean, least=least) if least else '',
            }
        )


def measure_other(case, memory_format, name, args):
    progress(f'{case}, {memory_format}, {name}')
    peer, candidate = (f'{m} {memory_format}' for m in ('torch', 'dcls_mm'))
    functions = {m: build(m, case, PASSES[name]) for m in (peer, candidate)}
    timings = interleave(functions, args.seconds / 4)
    cells = cells_of(case, name, memory_format, timings[peer], timings[candidate])
    cells['time ratio'] = timings[candidate].median / timings[peer].median
    cells['target'] = verdict(cells['time ratio'], most=OTHERS_TARGET)
    return cells


def report_others(report, cases, args):
    report.table("Other shapes, against torch's in the same memory format")
    worst = {}
    for case in cases:
        formats = ['contiguous', 'channels_last']
        if len(case.extent) == 1:
            formats.pop()
        for memory_format, name in itertools.product(formats, PASSES):
            cells = measure_other(case, memory_format, name, args)
            report.row(cells)
            worst[f'{case}, {name}, {memory_format}'] = cells['time ratio']
    where = max(worst, key=worst.get)
    report.note(f'Worst time ratio: {number(worst[where])}, at {where}.')


def main():
    parser = argument_parser(__doc__, seconds=1.5)
    parser.add_argument(
        '--shapes',
        choices=['stages', 'other', 'all'],
        help='the tables to make: all by default, stages with --quick',
    )
    args = parser.parse_args()
    shapes = args.shapes or ('stages' if args.quick else 'all')
    with Report('Convolving', args) as report:
        if shapes != 'other':
            report_stages(report, QUICK_STAGES if args.quick else STAGES, args)
        if shapes != 'stages':
            report_others(report, QUICK_OTHERS if args.quick else OTHERS, args)


if __name__ == '__main__':
    main()
