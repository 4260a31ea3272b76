"""Constructing depthwise kernels, against the published package's ConstructKernel2d.

Forward and backward, with the gradients of weight, positions and sigma (where there is
one). Both get the same elements, spread over the whole kernel.
"""

from functools import partial
from typing import NamedTuple

import torch
from common import Report, argument_parser, interleave, progress, verdict
from DCLS.construct.modules import ConstructKernel2d
from memory import extra_memory

from dcls_mm.functional import construct_kernel

PUBLISHED_NAMES = {'bilinear': 'v0', 'triangle': 'v1', 'max': 'max', 'gauss': 'gauss'}

# dcls_mm should take this many times less memory than the published package.
MEMORY_TARGET = 10


class Case(NamedTuple):
    """The kernels of a depthwise 2-d convolution, one per channel."""

    interpolation: str
    channels: int
    count: int = 34
    extent: int = 17

    @property
    def operations(self):
        """FLOPs of the sum of weighted outer products, tripled to include backward."""
        return 3 * 2 * self.channels * self.count * self.extent**2

    @property
    def time_target(self):
        """How many times faster than the published package dcls_mm should be."""
        if self.interpolation in ('bilinear', 'triangle'):
            return 40 if self.channels < 384 else 80
        return {'max': 25, 'gauss': 45}[self.interpolation]


SIZES = [(96, 34), (384, 34), (768, 34), (1024, 40)]
CASES = [Case(name, *size) for name in PUBLISHED_NAMES for size in SIZES]
QUICK_CASES = [Case(name, 8, 5, 7) for name in PUBLISHED_NAMES]


def ours(case):
    return partial(
        construct_kernel, kernel_size=case.extent, interpolation=case.interpolation
    )


def published(case):
    module = ConstructKernel2d(
        case.channels,
        case.channels,
        case.channels,
        case.count,
        (case.extent, case.extent),
        PUBLISHED_NAMES[case.interpolation],
    )
    return lambda weight, positions, sigma=None: module(weight, positions, sigma)


METHODS = {'dcls 0.1.1': published, 'dcls_mm': ours}


def build(method, case):
    """Return a function without arguments that constructs and differentiates."""
    torch.manual_seed(0)
    weight = torch.randn(case.channels, 1, case.count)
    positions = (torch.rand(2, *weight.shape) - 0.5) * (case.extent - 1)
    inputs = [weight, positions]
    if case.interpolation in ('max', 'gauss'):
        inputs.append(torch.rand(positions.shape))
    for tensor in inputs:
        tensor.requires_grad_()
    seed = torch.randn(case.channels, 1, case.extent, case.extent)
    construct = METHODS[method](case)
    return lambda: torch.autograd.grad(construct(*inputs), inputs, seed)


def measure(case, args):
    """Return the row of a case."""
    progress(f'{case}')
    timings = interleave({name: build(name, case) for name in METHODS}, args.seconds)
    tiny = Case(case.interpolation, 4, 3, 5)
    memory = extra_memory(build, METHODS, (tiny,), (case,), args.threads)
    peer, candidate = timings['dcls 0.1.1'], timings['dcls_mm']
    faster = peer.median / candidate.median
    cells = {
        'interpolation': case.interpolation,
        'kernels': f'{case.channels} of {case.extent}x{case.extent}, '
        f'{case.count} elements',
        'dcls 0.1.1 ms': peer,
        'dcls_mm ms': candidate,
        'times faster': faster,
        'time target': verdict(faster, least=case.time_target),
        'dcls_mm GFLOP/s': candidate.gflops(case.operations),
    }
    if memory:
        less = memory['dcls 0.1.1'] / memory['dcls_mm']
        cells['dcls 0.1.1 extra MB'] = memory['dcls 0.1.1']
        cells['dcls_mm extra MB'] = memory['dcls_mm']
        cells['times less'] = less
        cells['memory target'] = verdict(less, least=MEMORY_TARGET)
    return cells


def main():
    args = argument_parser(__doc__, seconds=1.5).parse_args()
    with Report('Constructing the kernel', args) as report:
        report.table('Forward and backward')
        for case in QUICK_CASES if args.quick else CASES:
            report.row(measure(case, args))


if __name__ == '__main__':
    main()
