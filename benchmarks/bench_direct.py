"""The compiled direct convolution against our dense path, and against a plain 7x7.

34 elements of a 17x17 kernel, spread by 4 pixels: bilinear, and with positions rounded
to whole pixels. The plain 7x7 is torch's, in the faster of both memory formats. Ratios
are of medians. 'element gradient' is that of weight, positions and bias. 'taps' are
those that are not zero, on average over the channels.

The first table has what the machine can do: the bytes per second of a sum of arrays
that are larger than the caches, and the taps per second of the operator itself where
almost all of its time goes into multiplying: 1008 taps in full rows, with the whole
image in the second-level cache.
"""

import math
import statistics
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from common import Report, argument_parser, interleave, progress, verdict

from dcls_mm.functional import construct_kernel, convolve, native_code
from dcls_mm.functional.operators.direct import (
    convolve_elements,
    convolve_taps,
    elements_gradient,
    elements_input_gradient,
    taps_of_kernel,
)

EXTENT, COUNT, SPREAD = 17, 34, 4.0

SHAPES = [
    (1, 96, 128, 128),
    (1, 192, 64, 64),
    (1, 384, 32, 32),
    (1, 768, 16, 16),
    (1, 96, 200, 320),
    (1, 96, 56, 56),
]
TINY = [(1, 16, 8, 8)]
FORMATS = {
    'channels_last': torch.channels_last,
    'contiguous': torch.contiguous_format,
}
PASSES = 'forward', 'input gradient', 'element gradient'
TRIAD_NUMBERS = 2**24
PEAK_CHANNELS, PEAK_SIZE, PEAK_EXTENT = 16, (32, 32), (16, 63)


class Case(NamedTuple):
    """One layer's tensors."""

    x: torch.Tensor
    grad_y: torch.Tensor
    bias: torch.Tensor
    weight: torch.Tensor
    positions: torch.Tensor

    @property
    def arguments(self):
        """The extent, the zeros before the image, and the size."""
        return [EXTENT] * 2, [EXTENT // 2] * 2, list(self.x.shape[2:])

    def rounded(self):
        return self._replace(positions=self.positions.round())


def make_case(shape, layout) -> Case:
    torch.manual_seed(0)
    x, grad_y = (torch.randn(shape).contiguous(memory_format=layout) for _ in range(2))
    channels, limit = shape[1], EXTENT // 2
    positions = (SPREAD * torch.randn(2, channels, COUNT)).clamp(-limit, limit)
    weight = torch.randn(channels, COUNT)
    return Case(x, grad_y, torch.randn(channels), weight, positions)


def dense_kernel(weight, positions):
    return construct_kernel(
        weight.unsqueeze(1), positions.unsqueeze(2), kernel_size=EXTENT
    )


def dense_functions(case):
    """Return our dense path's passes. Each gradient is on a graph of its own."""
    x, grad_y, bias, weight, positions = case
    channels = len(bias)

    def convolution(image, kernel, offset):
        return convolve(image, kernel, offset, padding='same', groups=channels)

    def forward():
        with torch.no_grad():
            convolution(x, dense_kernel(weight, positions), bias)

    image = x.clone().requires_grad_()
    of_image = convolution(image, dense_kernel(weight, positions), bias)
    learned = [t.clone().requires_grad_() for t in (bias, weight, positions)]
    of_elements = convolution(x, dense_kernel(*learned[1:]), learned[0])
    return {
        'forward': forward,
        'input gradient': lambda: torch.autograd.grad(
            of_image, image, grad_y, retain_graph=True
        ),
        'element gradient': lambda: torch.autograd.grad(
            of_elements, learned, grad_y, retain_graph=True
        ),
    }


def direct_functions(case):
    x, grad_y, bias, weight, positions = case
    extent, before, size = case.arguments
    elements, channels = (weight, positions), len(bias)
    return {
        'forward': lambda: convolve_elements(
            x, bias, *elements, extent, before, size, False
        ),
        'input gradient': lambda: elements_input_gradient(
            grad_y, channels, *elements, extent, before, size, False
        ),
        'element gradient': lambda: elements_gradient(
            x, grad_y, *elements, extent, before, False
        ),
    }


def rounded_functions(case):
    """Return the forward passes with rounded positions: learning, and kept as taps."""
    rounded = case.rounded()
    kernel = dense_kernel(rounded.weight, rounded.positions)
    taps = taps_of_kernel(kernel)
    return {
        'rounded': direct_functions(rounded)['forward'],
        'taps': lambda: convolve_taps(case.x, case.bias, *taps, *case.arguments),
    }


def plain_functions(case):
    kernel, channels = torch.randn(len(case.bias), 1, 7, 7), len(case.bias)

    def convolution(image):
        with torch.no_grad():
            return F.conv2d(image, kernel, case.bias, padding=3, groups=channels)

    images = {
        name: case.x.contiguous(memory_format=layout)
        for name, layout in FORMATS.items()
    }
    return {name: partial(convolution, image) for name, image in images.items()}


def measured(case, seconds):
    groups = {
        'direct': direct_functions(case),
        'dense': dense_functions(case),
        'kept': rounded_functions(case),
        'plain': plain_functions(case),
    }
    functions = {
        (group, name): function
        for group, members in groups.items()
        for name, function in members.items()
    }
    return interleave(functions, seconds)


def count_taps(case) -> float:
    kernel = dense_kernel(case.weight, case.positions)
    return kernel.count_nonzero().item() / len(kernel)


def triad_gb_s(seconds, numbers) -> float:
    """Return the speed of a = b + s * c on arrays larger than the cache."""
    b, c = torch.randn(2, numbers)
    a = torch.empty_like(b)
    timing = interleave({'triad': lambda: torch.add(b, c, alpha=2, out=a)}, seconds)
    return 3 * 4 * numbers / timing['triad'].median / 1e6


def peak_taps(seconds) -> float:
    """Return the 10^9 taps per second of the operator, without padding."""
    x_size = [size + taps - 1 for size, taps in zip(PEAK_SIZE, PEAK_EXTENT)]
    x = torch.randn(1, PEAK_CHANNELS, *x_size)
    kernel = torch.randn(PEAK_CHANNELS, 1, *PEAK_EXTENT)
    arguments = (*taps_of_kernel(kernel), PEAK_EXTENT, [0, 0], PEAK_SIZE)
    timing = interleave({'peak': lambda: convolve_taps(x, None, *arguments)}, seconds)
    count = kernel.numel() * math.prod(PEAK_SIZE)
    return count / timing['peak'].median / 1e6


def main():
    parser = argument_parser(__doc__, seconds=0.3)
    parser.add_argument(
        '--instructions',
        choices=('plain', 'avx2', 'avx512'),
        help="the direct path's instruction set; default the best (torch's is "
        'ATEN_CPU_CAPABILITY and ONEDNN_MAX_CPU_ISA)',
    )
    args = parser.parse_args()
    reason = native_code.missing()
    if reason is not None:
        print(f'Direct convolution: not measured. {reason}')
        return
    name = native_code.instructions(args.instructions)
    with Report('Direct convolution', args, memory=False) as report:
        report.table('Bounds')
        speed = triad_gb_s(args.seconds, 2**12 if args.quick else TRIAD_NUMBERS)
        report.row(
            {
                'instructions': name,
                'triad GB/s': speed,
                'peak G taps/s': peak_taps(args.seconds),
            }
        )
        ratios, kept_ratios = [], []
        for shape in TINY if args.quick else SHAPES:
            report.table('x'.join(map(str, shape)))
            for layout_name, layout in FORMATS.items():
                progress(f'{shape}, {layout_name}')
                case = make_case(shape, layout)
                times = measured(case, args.seconds)
                plain = min(times['plain', f].median for f in FORMATS)
                pixels = case.x.numel()
                cases = {'bilinear': case, 'rounded': case.rounded()}
                taps = {key: count_taps(one) for key, one in cases.items()}
                for step in PASSES:
                    direct, dense = times['direct', step], times['dense', step]
                    ratios.append(direct.median / dense.median)
                    report.row(
                        row(
                            layout_name,
                            step,
                            direct,
                            dense,
                            plain,
                            pixels,
                            taps['bilinear'],
                        )
                    )
                for step, title in {
                    'rounded': 'forward, rounded',
                    'taps': 'forward, rounded, kept taps',
                }.items():
                    time = times['kept', step]
                    if step == 'taps':
                        kept_ratios.append(time.median / plain)
                    report.row(
                        row(
                            layout_name,
                            title,
                            time,
                            None,
                            plain,
                            pixels,
                            taps['rounded'],
                        )
                    )
        report.table('Ratios')
        mean, most = statistics.mean(ratios), max(ratios)
        report.row({'of': 'dense, mean', 'is': mean, 'target': verdict(mean, most=0.5)})
        report.row(
            {'of': 'dense, largest', 'is': most, 'target': verdict(most, most=1.0)}
        )
        mean = statistics.mean(kept_ratios)
        report.row(
            {
                'of': 'plain 7x7, rounded forward, mean',
                'is': mean,
                'target': verdict(mean, most=0.8),
            }
        )


def row(layout, step, direct, dense, plain, pixels, taps):
    forward = step.startswith('forward')
    return {
        'format': layout,
        'pass': step,
        'direct': direct,
        'dense': dense,
        'of dense': None if dense is None else direct.median / dense.median,
        'plain 7x7': plain if forward else None,
        'of plain': direct.median / plain if forward else None,
        'taps': taps,
        'G taps/s': pixels * taps / direct.median / 1e6,
        'GB/s': 2 * 4 * pixels / direct.median / 1e6,
    }


if __name__ == '__main__':
    main()
