"""The time of one depthwise layer over its extent, and over its number of elements.

A training step is a forward pass and a backward pass to the input and all parameters;
inference is a forward pass without gradients in evaluation mode, after a first call
that constructs the kernel. 'dense' is torch's convolution with a kernel of that extent,
on contiguous input, where it is fastest; 'plain 7x7' is torch's in the faster of both
memory formats; the others have channels_last input. Positions are spread evenly over
the extent. A cell is empty where a call takes longer than --limit, and from there on.
--figure draws the training steps.
"""

import logging
from pathlib import Path
from typing import NamedTuple

import torch
from common import Report, argument_parser, elapsed, interleave, progress
from torch import nn

from dcls_mm import DCLSConv2d

try:
    from DCLS.construct.modules import Dcls2d
except ImportError:
    Dcls2d = None

SHAPE = (1, 384, 32, 32)
EXTENT, COUNT = 17, 34
EXTENTS = (7, 9, 13, 17, 23, 31, 47, 63)
COUNTS = (4, 9, 16, 34, 64, 128, 256)

TINY, QUICK_EXTENTS, QUICK_COUNTS = (1, 8, 16, 16), (7, 9), (4, 9)

TASKS = 'training step', 'inference'

# What each table varies.
AXES = {
    'extent': f'extent in pixels, {COUNT} elements',
    'elements': f'elements, extent {EXTENT}x{EXTENT}',
}


class Case(NamedTuple):
    """A depthwise layer that keeps the size of its input."""

    shape: tuple
    extent: int
    count: int

    @property
    def channels(self):
        return dict(
            in_channels=self.shape[1],
            out_channels=self.shape[1],
            groups=self.shape[1],
        )


def ours(case, formulation='auto'):
    return DCLSConv2d(
        **case.channels,
        kernel_count=case.count,
        dilated_kernel_size=case.extent,
        padding=case.extent // 2,
        formulation=formulation,
    )


def plain(case, extent=7):
    return nn.Conv2d(**case.channels, kernel_size=extent, padding=extent // 2)


def published(case):
    return Dcls2d(
        **case.channels,
        kernel_count=case.count,
        dilated_kernel_size=case.extent,
        padding=case.extent // 2,
        version='v0',
        use_implicit_gemm=False,
    )


# {column: {what runs, of which the fastest counts: (layer of a case, memory format)}}
METHODS = {
    'dcls_mm': {'dcls_mm': (ours, torch.channels_last)},
    'constructed': {
        'constructed': (lambda case: ours(case, 'construct'), torch.channels_last)
    },
    'dense': {
        'dense': (lambda case: plain(case, case.extent), torch.contiguous_format)
    },
    'plain 7x7': {
        'plain 7x7': (plain, torch.channels_last),
        'plain 7x7, contiguous': (plain, torch.contiguous_format),
    },
}
if Dcls2d is not None:
    METHODS['dcls 0.1.1'] = {'dcls 0.1.1': (published, torch.channels_last)}


def build(make_layer, layout, task, case):
    """Return a function without arguments that runs the layer once."""
    torch.manual_seed(0)
    layer = make_layer(case)
    if hasattr(layer, 'P'):
        limit = case.extent // 2
        nn.init.uniform_(layer.P, -limit, limit)
    x = torch.randn(case.shape).contiguous(memory_format=layout)

    @torch.no_grad()
    def infer():
        return layer(x)

    if task == 'inference':
        layer.eval()
        return infer

    inputs = [x.requires_grad_(), *layer.parameters()]
    grad_y = torch.randn(case.shape).contiguous(memory_format=layout)
    return lambda: torch.autograd.grad(layer(x), inputs, grad_y)


def affordable(function, limit):
    """Return whether a call takes at most so many seconds, the first or the second."""
    return any(elapsed(function) <= 1e3 * limit for _ in range(2))


def sweep(name, cases, args):
    """Yield a row per task and case; ``cases`` is {value of the column ``name``: case}.

    They come in ascending order, so a method that is too slow stays so.
    """
    for task in TASKS:
        columns = list(METHODS)
        for value, case in cases.items():
            progress(f'{task}, {name} {value}')
            functions = {}
            for column in columns:
                built = {
                    key: build(*method, task, case)
                    for key, method in METHODS[column].items()
                }
                if all(affordable(f, args.limit) for f in built.values()):
                    functions.update(built)
            columns = [c for c in columns if functions.keys() >= METHODS[c].keys()]
            timings = interleave(functions, args.seconds)
            row = {'task': task, name: value}
            for column, methods in METHODS.items():
                found = [timings[key] for key in methods if key in timings]
                row[column] = min(found, key=lambda t: t.median, default=None)
            yield row


def draw(tables, path):
    """Draw the training steps of the tables, {name: rows}, side by side."""
    from dcls_mm.visualization._figure import line_styles, new_figure

    figure = new_figure(10, 4)
    panels = figure.subplots(1, len(tables), sharey=True)
    for panel, (name, rows) in zip(panels, tables.items()):
        rows = [row for row in rows if row['task'] == 'training step']
        values = [row[name] for row in rows]
        for column, style in zip(METHODS, line_styles()):
            times = [row[column] for row in rows]
            medians = [float('nan') if t is None else t.median for t in times]
            panel.plot(values, medians, label=column, **style)
        panel.set_xscale('log')
        panel.set_xticks(values, map(str, values))
        panel.minorticks_off()
        panel.set_xlabel(AXES[name])
        panel.grid(alpha=0.3)
    panels[0].set_yscale('log')
    panels[0].set_ylabel('training step, ms')
    panels[0].legend(frameon=False)
    figure.savefig(path)


def main():
    parser = argument_parser(__doc__, seconds=1.0)
    parser.add_argument(
        '--shape', type=int, nargs=4, default=SHAPE, help='of the input (%(default)s)'
    )
    parser.add_argument(
        '--limit',
        type=float,
        default=2.0,
        help='seconds per call from which a method is left out (%(default)s)',
    )
    parser.add_argument('--figure', type=Path, help='draw the training steps here')
    args = parser.parse_args()
    # The published layer warns that CUDA is missing.
    logging.getLogger().setLevel(logging.ERROR)
    extents, counts = EXTENTS, COUNTS
    if args.quick:
        args.shape, extents, counts = TINY, QUICK_EXTENTS, QUICK_COUNTS
    shape = tuple(args.shape)
    sweeps = {
        'extent': {extent: Case(shape, extent, COUNT) for extent in extents},
        'elements': {count: Case(shape, EXTENT, count) for count in counts},
    }
    with Report('Cost of a layer', args, memory=False) as report:
        tables = {}
        for name, cases in sweeps.items():
            report.table(f'{"x".join(map(str, shape))}: {AXES[name]}')
            tables[name] = []
            for row in sweep(name, cases, args):
                tables[name].append(row)
                report.row(row)
    if args.figure is not None:
        draw(tables, args.figure)


if __name__ == '__main__':
    main()
