"""Time and memory of the im2col formulation against constructing the kernel.

Every row runs in a process of its own. 'difference' is the largest one to the output
of 'construct', relative to its largest value; 'memory' is what forward and backward
add to the process's peak, the first call's caches included.
"""

import argparse
import multiprocessing
import platform
import resource
import statistics
import time
from functools import partial
from typing import NamedTuple

import torch

from dcls_mm.functional import construct_kernel, convolve
from dcls_mm.functional.sampling import sampled_convolution


class Case(NamedTuple):
    """One convolution of stride 1 that keeps the size, on a batch of one."""

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
    """A deformable convolution with count taps in a row, each moved to its position."""
    from mmcv.ops import deform_conv2d

    if len(case.size) != 2:
        raise NotImplementedError('mmcv has it in 2-d only')
    places = positions.reshape(2, case.channels, case.count).permute(1, 2, 0)
    column = torch.arange(case.count, dtype=x.dtype) - case.count // 2
    offsets = places - torch.stack([torch.zeros_like(column), column], -1)
    height, width = case.size
    # An even number of taps gives one column more.
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
    'sampled': sampled,
    'construct': constructed,
    'construct, native': partial(constructed, backend='native'),
    'mmcv deform_conv2d': deformable,
}


def groups_of(case):
    return case.channels if case.depthwise else 1


def make_inputs(case):
    """x, weight and positions; of each channel, or in the dense case shared ones."""
    torch.manual_seed(0)
    group_in = 1 if case.depthwise else case.channels
    kernels = (case.channels, group_in) if case.depthwise else (group_in,)
    x = torch.randn(1, case.channels, *case.size)
    weight = torch.randn(case.channels, group_in, case.count)
    positions = torch.rand(len(case.size), *kernels, case.count) - 0.5
    positions = positions * (case.extent - 1)
    return [tensor.requires_grad_() for tensor in (x, weight, positions)]


def measure(case, method, threads, repeats):
    """Cells of the table's row, or why there are none."""
    torch.set_num_threads(threads)
    run = partial(METHODS[method], case)
    inputs = make_inputs(case)
    seed = torch.randn(1, case.channels, *case.size)

    def forward():
        with torch.no_grad():
            return run(*inputs)

    def forward_and_backward():
        torch.autograd.grad(run(*inputs), inputs, seed)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        forward_and_backward()
    except (ImportError, NotImplementedError) as error:
        return [f'skipped: {error}']
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    with torch.no_grad():
        expected = constructed(case, *inputs)
        difference = (forward() - expected).abs().max() / expected.abs().max()
    return [
        f'{timing(forward, repeats):>22}',
        f'{timing(forward_and_backward, repeats):>22}',
        f'{memory / 1024:7.0f} MB',
        f'{difference:10.1e}',
    ]


def timing(function, repeats):
    """Median (least-largest) in ms, after one call to warm up."""
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(1e3 * (time.perf_counter() - start))
    return f'{statistics.median(times):.1f} ({min(times):.1f}-{max(times):.1f})'


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--threads', type=int, default=torch.get_num_threads())
    parser.add_argument('--repeats', type=int, default=5)
    return parser.parse_args()


def main():
    args = parse_args()
    print(
        f'Python {platform.python_version()}, torch {torch.__version__}, '
        f'{platform.machine()}, threads {args.threads}, repeats {args.repeats}; '
        'ms: median (least-largest)'
    )
    print(f'{"":47}{"forward":>22} {"forward + backward":>22}     memory difference')
    # A new process for every row: its peak of memory is that row's alone.
    with multiprocessing.get_context('spawn').Pool(1, maxtasksperchild=1) as pool:
        for case in CASES:
            for method in METHODS:
                row = pool.apply(measure, (case, method, args.threads, args.repeats))
                print(f'{case.name:27} {method:19}', *row, flush=True)


if __name__ == '__main__':
    main()
