"""ConvNeXt with DCLS and FlexConv, against the same with plain 7x7 convolutions.

Inference is a forward pass without gradients in evaluation mode, after a first call
that constructs the kernels. A training step is a forward pass in training mode and a
backward pass to all parameters from fixed random gradients of the four outputs. (The
gradient of their mean would vanish: the outputs leave a layer norm.) --optimizer adds a
step of AdamW. The backbone works in channels_last memory, whatever its convolutions.

The positions are spread by 4 pixels, as training spreads them: those of the published
start lie within a few pixels, where there are fewer taps to compute.
"""

import logging

import torch
from common import Report, argument_parser, interleave, number, progress, verdict
from memory import extra_memory
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dcls_mm.backbones import ConvNeXtDCLS
from dcls_mm.backbones.convnext import DCLS_17X17
from dcls_mm.backbones.convnext_blocks import ChannelsLinear

try:
    from DCLS.construct.modules import Dcls2d
except ImportError:
    Dcls2d = None

SPREAD = 4.0

DCLS = 'DCLS 17x17, 34 elements'
ROUNDED = 'DCLS 17x17, positions rounded'
WIDE = 'DCLS 31x31, 34 elements'
PEER = 'plain 7x7'
PEER_LINEAR = 'plain 7x7, torch.nn.Linear'
PUBLISHED = 'dcls 0.1.1 17x17, 34 elements'

# The configs of the depthwise convolutions.
METHODS = {
    PEER: dict(type='Conv2d', kernel_size=7),
    PEER_LINEAR: dict(type='Conv2d', kernel_size=7),
    DCLS: DCLS_17X17,
    'DCLS 17x17, constructed': dict(DCLS_17X17, formulation='construct'),
    ROUNDED: dict(DCLS_17X17, integer_positions=True),
    WIDE: dict(DCLS_17X17, dilated_kernel_size=31),
    'dense 17x17': dict(type='Conv2d', kernel_size=17),
    # With the mask width that its configs start from, and without a mask.
    'FlexConv 17x17, now 7x7': dict(
        type='FlexConv2d', dilated_kernel_size=17, mask_width=0.2
    ),
    'CKConv 17x17': dict(type='FlexConv2d', dilated_kernel_size=17, mask_width=None),
}
if Dcls2d is not None:
    METHODS[PUBLISHED] = dict(
        type=Dcls2d,
        kernel_count=34,
        dilated_kernel_size=17,
        version='v0',
        use_implicit_gemm=False,
    )

SMALL = dict(depths=(1, 1, 1, 1), dims=(4, 8, 16, 32))

TASKS = 'inference', 'training step'

# {(row, task): (row to compare it with, at most this many times its cost)}
TIME_TARGETS = {
    (DCLS, 'inference'): (PEER, 1.05),
    (DCLS, 'training step'): (PEER, 1.05),
    (ROUNDED, 'inference'): (PEER, 0.97),
    (WIDE, 'inference'): (DCLS, 1.02),
    (WIDE, 'training step'): (DCLS, 1.02),
}
MEMORY_TARGETS = {(DCLS, 'training step'): (PEER, 1.0)}


def methods_of(task):
    """Return the methods to measure: training does not round, whatever the layer."""
    return [m for m in METHODS if m != ROUNDED or task == 'inference']


def build_model(method, arch):
    torch.manual_seed(0)
    model = ConvNeXtDCLS(arch, depthwise_cfg=METHODS[method])
    for module in model.modules():
        if hasattr(module, 'P'):
            limit = module.dilated_kernel_size[0] // 2
            with torch.no_grad():
                nn.init.normal_(module.P, std=SPREAD).clamp_(-limit, limit)
        if method == PEER_LINEAR and isinstance(module, ChannelsLinear):
            module.__class__ = nn.Linear  # the same layer with torch's own forward
    return model


def build(method, task, arch, batch, size, optimize):
    """Return a function without arguments that runs the network once."""
    # The published layer warns in every block that CUDA is missing.
    logging.getLogger().setLevel(logging.ERROR)
    model = build_model(method, arch)
    x = torch.randn(batch, 3, size, size)

    @torch.no_grad()
    def infer():
        return model(x)

    if task == 'inference':
        model.eval()
        return infer

    model.train()
    seeds = [torch.randn(shape) for shape in output_shapes(arch, batch, size)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6) if optimize else None

    def train():
        model.zero_grad()
        torch.autograd.backward(model(x), seeds)
        if optimizer is not None:
            optimizer.step()

    return train


def output_shapes(arch, batch, size):
    with torch.device('meta'):
        model = ConvNeXtDCLS(arch, depthwise_cfg=METHODS[PEER])
        return [y.shape for y in model(torch.empty(batch, 3, size, size))]


def operations(method, task, arch, batch, size):
    """Count the FLOPs of matrix products and convolutions, three times for training."""
    infer = build(method, 'inference', arch, batch, size, False)
    infer()
    with FlopCounterMode(display=False) as counter:
        infer()
    return counter.get_total_flops() * (1 if task == 'inference' else 3)


def measure(task, args):
    """Yield one row per kind of depthwise convolution."""
    progress(task)
    methods = methods_of(task)
    network = (args.arch, args.batch, args.size)
    case = (task, *network, args.optimizer)
    timings = interleave({m: build(m, *case) for m in methods}, args.seconds)
    tiny = (task, SMALL, 1, 64, args.optimizer)
    medians = {method: timing.median for method, timing in timings.items()}
    memory = extra_memory(build, methods, tiny, case, args.threads)
    for method, timing in timings.items():
        cells = {
            'task': task,
            'depthwise convolutions': method,
            'ms': timing,
            'GFLOP/s': timing.gflops(operations(method, task, *network)),
            'time ratio': timing.median / medians[PEER],
            'time target': target(TIME_TARGETS.get((method, task)), method, medians),
        }
        if memory:
            most = MEMORY_TARGETS.get((method, task))
            cells['extra MB'] = memory[method]
            cells['memory ratio'] = memory[method] / memory[PEER]
            cells['memory target'] = target(most, method, memory)
        yield cells


def target(entry, method, figures):
    """Describe a target of the table, with the ratio if it is not to the plain row."""
    if entry is None:
        return ''
    peer, most = entry
    ratio = figures[method] / figures[peer]
    found = '' if peer == PEER else f'{number(ratio)} of {peer}, '
    return found + verdict(ratio, most=most)


def main():
    parser = argument_parser(__doc__, seconds=6.0)
    parser.add_argument('--arch', default='tiny', help="of ConvNeXtDCLS ('tiny')")
    parser.add_argument('--size', type=int, default=512, help='of the square image')
    parser.add_argument('--batch', type=int, default=1)
    parser.add_argument(
        '--optimizer', action='store_true', help='training steps with AdamW'
    )
    args = parser.parse_args()
    if args.quick:
        args.arch, args.size = SMALL, 64
    with Report('The backbone', args) as report:
        name = 'small' if args.quick else args.arch
        report.table(f'ConvNeXt {name}, {args.batch}x3x{args.size}x{args.size}')
        for task in TASKS:
            for cells in measure(task, args):
                report.row(cells)


if __name__ == '__main__':
    main()
