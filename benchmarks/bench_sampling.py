"""The im2col formulation, which samples the input, against constructing the kernel.

The time and memory ratios are relative to forward + backward of 'construct'.
'difference' is the largest difference from its output, relative to the largest value.
"""

from functools import partial
from typing import NamedTuple

import torch
from common import Report, argument_parser, interleave, progress
from memory import extra_memory

from dcls_mm.functional import construct_kernel, convolve
from dcls_mm.functional.sampling import sampled_convolution

try:
    from mmcv.ops import deform_conv2d
except ImportError:
    deform_conv2d = None

PEER = 'construct'


class Case(NamedTuple):
    """A convolution of stride 1 that keeps the size, on a batch of one."""

    name: str
    channels: int
    size: tuple
    extent: int
    count: int
    depthwise: bool


CASES = [
    Case('2-d depthwise, extent 17', 96, (64, 64), 17, 34, True),
    Case('2-d dense, extent 9', 64, (56, 56), 9, 9, False),
    Case('2-d dense, extent 33', 64, (56, 56), 33, 9, False),
    Case('1-d depthwise, extent 1025', 64, (4096,), 1025, 8, True),
    Case('3-d depthwise, extent 9', 16, (16, 32, 32), 9, 27, True),
]
TINY = {
    ndim: Case(f'tiny, {ndim}-d', 4, (16,) * ndim, 5, 3, True) for ndim in (1, 2, 3)
}


def sampled(case, x, weight, positions):
    return sampled_convolution(
        x,
        weight,
        positions,
        kernel_size=case.extent,
        padding=case.extent // 2,
        groups=groups_of(case),
    )


def constructed(case, x, weight, positions, backend=None):
    positions = positions if case.depthwise else positions.unsqueeze(1)
    kernel = construct_kernel(weight, positions, kernel_size=case.extent)
    return convolve(
        x, kernel, padding=case.extent // 2, groups=groups_of(case), backend=backend
    )


def deformable(case, x, weight, positions):
    """Run a deformable convolution: count taps in a row, each moved to its position."""
    places = positions.reshape(2, case.channels, case.count).permute(1, 2, 0)
    column = torch.arange(case.count, dtype=x.dtype) - case.count // 2
    offsets = places - torch.stack([torch.zeros_like(column), column], -1)
    height, width = case.size
    # An even number of taps gives one extra column.
    extra = 1 - case.count % 2
    offsets = offsets.reshape(1, -1, 1, 1).expand(-1, -1, height, width + extra)
    y = deform_conv2d(
        x,
        offsets.contiguous(),
        weight.unsqueeze(2),
        1,
        (0, case.count // 2),
        1,
        groups_of(case),
        case.channels,
    )
    return y[..., :width]


METHODS = {
    PEER: constructed,
    'construct, native': partial(constructed, backend='native'),
    'sampled': sampled,
    'mmcv deform_conv2d': deformable,
}


def methods_of(case):
    """Return the METHODS that support the case; mmcv's is 2-d only and optional."""
    return [
        method
        for method, run in METHODS.items()
        if run is not deformable or (deform_conv2d is not None and len(case.size) == 2)
    ]


def groups_of(case):
    return case.channels if case.depthwise else 1


def make_inputs(case):
    """Return x, weight and positions; dense channels share their positions."""
    torch.manual_seed(0)
    group_in = 1 if case.depthwise else case.channels
    kernels = (case.channels, group_in) if case.depthwise else (group_in,)
    x = torch.randn(1, case.channels, *case.size)
    weight = torch.randn(case.channels, group_in, case.count)
    positions = torch.rand(len(case.size), *kernels, case.count) - 0.5
    positions = positions * (case.extent - 1)
    return [tensor.requires_grad_() for tensor in (x, weight, positions)]


def build(method, case, gradients):
    """Return a function without arguments that runs the method, maybe with backward."""
    run = partial(METHODS[method], case)
    inputs = make_inputs(case)
    seed = torch.randn(1, case.channels, *case.size)

    def forward():
        with torch.no_grad():
            return run(*inputs)

    def forward_and_backward():
        return torch.autograd.grad(run(*inputs), inputs, seed)

    return forward_and_backward if gradients else forward


def measure(case, args):
    """Yield one row per method."""
    progress(case.name)
    methods = methods_of(case)
    forward, both = (
        interleave({m: build(m, case, gradients) for m in methods}, args.seconds)
        for gradients in (False, True)
    )
    tiny = TINY[len(case.size)]
    memory = extra_memory(build, methods, (tiny, True), (case, True), args.threads)
    expected = build(PEER, case, False)()
    for method in methods:
        difference = (build(method, case, False)() - expected).abs().max()
        cells = {
            'convolution': case.name,
            'method': method,
            'forward ms': forward[method],
            'forward + backward ms': both[method],
            'time ratio': both[method].median / both[PEER].median,
            'difference': f'{difference / expected.abs().max():.1e}',
        }
        if memory:
            cells['extra MB'] = memory[method]
            cells['memory ratio'] = memory[method] / memory[PEER]
        yield cells


def main():
    args = argument_parser(__doc__, seconds=1.5).parse_args()
    with Report('Sampling instead of constructing', args) as report:
        report.table('One convolution')
        for case in TINY.values() if args.quick else CASES:
            for cells in measure(case, args):
                report.row(cells)


if __name__ == '__main__':
    main()
