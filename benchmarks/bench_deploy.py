"""ConvNeXt with DCLS as trained, folded (dense, sparse) and exported, at two sizes.

Each row is a forward pass of the backbone in evaluation mode, without gradients. The
kernels of the DCLS model are constructed while warming up, then kept. The files are
those that tools/deploy/export.py writes: recorded at a size other than the one they run
at, with dynamic batch and image sizes. They run in this process, with torch's number of
threads.
"""

import copy
import tempfile
import warnings
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import torch
from bench_backbone import METHODS, PEER, SMALL
from common import Report, argument_parser, interleave, progress
from torch import nn

from dcls_mm.apis.export import FORMATS
from dcls_mm.backbones.convnext import DCLS_17X17, ConvNeXtDCLS
from dcls_mm.deploy.parts import (
    RECORDED_SHAPE,
    largest_difference,
    sample_images,
    take_part,
)
from dcls_mm.functional import native_code
from dcls_mm.layers.folding import switch_to_deploy

KEPT = 'DCLS, kernels kept'
FOLDED = 'folded'
SPARSE = 'folded, sparse'
ROUNDED = 'folded, positions rounded; as dense'
ROUNDED_SPARSE = 'folded, positions rounded; sparse'
FILES = {
    'torchscript': 'folded, TorchScript',
    'torch-export': 'folded, torch.export',
    'onnx': 'folded, ONNX by onnxruntime',
}

# Positions all over the extent, as training spreads them.
TRAINED = dict(DCLS_17X17, initial_positions='uniform')


def build(depthwise_cfg, arch):
    """Return the backbone as a part that can be exported."""
    # With the initial layer scale of a training, the blocks would hardly contribute.
    backbone = ConvNeXtDCLS(
        arch, depthwise_cfg=depthwise_cfg, layer_scale_init_value=1.0
    )
    return take_part(nn.ModuleDict({'backbone': backbone}), 'backbone')


def fold(part, **options):
    part = copy.deepcopy(part)
    return part, switch_to_deploy(part, **options)


def record(format, part):
    """Return a function that runs the part from a file, or None without its package."""
    form = FORMATS[format]
    if not all(map(find_spec, form.needs)):
        return None
    progress(f'  writing {format}')
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter('ignore')
        path = Path(folder, 'model.pt2')  # torch.export insists on the suffix
        form.write(part, *sample_images(part, RECORDED_SHAPE), path)
        return form.read(path)


def build_all(arch):
    """Return {name: function from images to outputs}, and notes for the tables."""
    trained = build(TRAINED, arch)
    folded, _ = fold(trained)
    rounded, layers = fold(trained, round_positions=True)
    share = sum(f.used for f in layers) / sum(f.taps for f in layers)
    notes = [
        f'With positions rounded {share:.1%} of the taps are not zero, and all are '
        'computed in the dense form.'
    ]
    functions = {KEPT: trained, FOLDED: folded, ROUNDED: rounded}
    if native_code.missing() is None:
        functions[SPARSE], _ = fold(trained, form='sparse')
        functions[ROUNDED_SPARSE], _ = fold(
            trained, round_positions=True, form='sparse'
        )
    else:
        notes.append(f'No sparse form: {native_code.missing()}.')
    for format, name in FILES.items():
        run = record(format, folded)
        if run is None:
            notes.append(f"Not installed for '{name}': pip install dcls_mm[deploy].")
        else:
            functions[name] = run
    functions[PEER] = build(METHODS[PEER], arch)
    return functions, ' '.join(notes)


def measure(functions, images, seconds):
    """Yield one row per function, compared with the DCLS model."""
    timings = interleave({n: partial(f, images) for n, f in functions.items()}, seconds)
    expected = functions[KEPT](images)
    for name, timing in timings.items():
        difference = largest_difference(functions[name](images), expected)
        yield {
            'what runs': name,
            'ms': timing,
            'time ratio': timing.median / timings[KEPT].median,
            'difference': '' if name == PEER else f'{difference:.1e}',
        }


@torch.no_grad()
def main():
    parser = argument_parser(__doc__, seconds=6.0)
    parser.add_argument('--arch', default='tiny', help="of ConvNeXtDCLS ('tiny')")
    parser.add_argument('--batch', type=int, default=1)
    parser.add_argument(
        '--sizes',
        type=int,
        nargs='+',
        default=[512, 224],
        help='of the square images, one table per size (512 224)',
    )
    args = parser.parse_args()
    if args.quick:
        args.arch, args.sizes = SMALL, [64]
    with Report('Deployment', args, memory=False) as report:
        name = 'small' if args.quick else args.arch
        functions, note = build_all(args.arch)
        for size in args.sizes:
            report.table(f'ConvNeXt {name}, {args.batch}x3x{size}x{size}')
            images = torch.randn(args.batch, 3, size, size)
            for cells in measure(functions, images, args.seconds):
                report.row(cells)
            report.note(note)


if __name__ == '__main__':
    main()
