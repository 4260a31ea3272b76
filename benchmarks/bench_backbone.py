"""ConvNeXt with DCLS and FlexConv, against the same with plain 7x7 convolutions.

Inference is a forward pass without gradients in evaluation mode, after a first call
that constructs the kernels. A training step is a forward pass in training mode and a
backward pass to all parameters from fixed random gradients of the four outputs. (The
gradient of their mean would vanish: the outputs leave a layer norm.) --optimizer adds a
step of AdamW. The backbone works in channels_last memory, whatever its convolutions.
"""

import logging

import torch
from common import Report, argument_parser, interleave, progress, verdict
from memory import extra_memory
from torch.utils.flop_counter import FlopCounterMode

from dcls_mm.backbones import ConvNeXtDCLS

try:
    from DCLS.construct.modules import Dcls2d
except ImportError:
    Dcls2d = None

DCLS = 'DCLS 17x17, 34 elements'
PEER = 'plain 7x7'
PUBLISHED = 'dcls 0.1.1 17x17, 34 elements'

# The configs of the depthwise convolutions; None means the default.
METHODS = {
    PEER: dict(type='Conv2d', kernel_size=7),
    DCLS: None,
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

# DCLS may take at most this many times the cost of the plain network.
TIME_TARGETS = {'inference': 1.05, 'training step': 1.1}
MEMORY_TARGETS = {'training step': 1.15}


def build(method, task, arch, batch, size, optimize):
    """Return a function without arguments that runs the network once."""
    # The published layer warns in every block that CUDA is missing.
    logging.getLogger().setLevel(logging.ERROR)
    torch.manual_seed(0)
    model = ConvNeXtDCLS(arch, depthwise_cfg=METHODS[method])
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
    network = (args.arch, args.batch, args.size)
    case = (task, *network, args.optimizer)
    timings = interleave({m: build(m, *case) for m in METHODS}, args.seconds)
    tiny = (task, SMALL, 1, 64, args.optimizer)
    memory = extra_memory(build, METHODS, tiny, case, args.threads)
    for method, timing in timings.items():
        ratio = timing.median / timings[PEER].median
        cells = {
            'task': task,
            'depthwise convolutions': method,
            'ms': timing,
            'GFLOP/s': timing.gflops(operations(method, task, *network)),
            'time ratio': ratio,
            'time target': target(method, TIME_TARGETS.get(task), ratio),
        }
        if memory:
            ratio = memory[method] / memory[PEER]
            cells['extra MB'] = memory[method]
            cells['memory ratio'] = ratio
            cells['memory target'] = target(method, MEMORY_TARGETS.get(task), ratio)
        yield cells


def target(method, most, ratio):
    return verdict(ratio, most=most) if method == DCLS and most else ''


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
        for task in TIME_TARGETS:
            for cells in measure(task, args):
                report.row(cells)


if __name__ == '__main__':
    main()
