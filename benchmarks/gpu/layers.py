"""One depthwise layer with all gradients, under autocast to float16.

A DCLS layer constructs its kernel, convolves with it, and gets the gradients of image,
weights, positions and bias. 'eager' includes what the host does not hide; 'graph' is
the GPU's time alone.
"""

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import paths  # noqa: F401
import torch
from cases import FORMATS, LAYER_TARGET, NETWORKS, Stage, images_of, stages_of
from common import verdict
from depthwise import CAPTURED, OURS, TORCH, absent, kinds
from results import Results, cell, prepared, times_faster

MODES = ('eager', 'graph')


def measure(device, results: Results, args) -> None:
    results.table('One depthwise layer, forward and backward')
    network = NETWORKS[args.backbone]
    stages = [s for images in images_of(device) for s in stages_of(images, network)]
    for stage in results.in_time(stages[:1] if args.quick else stages):
        _measure_stage(device, results, stage, args.seconds)
        device.free()
    results.note(
        "`times faster`: than torch's in its better memory format. `launches`: "
        'kernels, copies and fills put on the GPU, as torch.profiler counts them. '
        f'`MB`: what it adds to the peak of allocated memory.{absent()}'
    )


def _measure_stage(device, results: Results, stage: Stage, seconds: float) -> None:
    layers = list(product(kinds(device), FORMATS))
    functions = {}
    for mode in MODES:
        builds = {
            (*layer, mode): partial(_build, device, stage, *layer, mode)
            for layer in layers
            if mode == 'eager' or layer[0] in CAPTURED
        }
        functions |= prepared(results, str(stage), builds)
    timings = device.interleave(functions, seconds)
    for layer in layers:
        cells = {'images': str(stage), 'layer': layer[0], 'memory': layer[1]}
        for mode in MODES:
            cells[f'{mode} ms'] = cell(timings, (*layer, mode))
            peers = [timings.get((TORCH, name, mode)) for name in FORMATS]
            faster = times_faster([timings.get((*layer, mode))], peers)
            cells[f'{mode}, times faster'] = faster
        faster = cells['eager, times faster']
        has_target = layer[0] == OURS and faster != 'none'
        cells['target'] = verdict(faster, least=LAYER_TARGET) if has_target else ''
        eager = functions.get((*layer, 'eager'))
        cells['launches'] = device.launches(eager) if eager else 'none'
        cells['MB'] = device.peak_mb(eager) if eager else 'none'
        results.row(cells)


def _build(
    device, stage: Stage, kind: str, memory_format: str, mode: str
) -> Callable[[], Any]:
    torch.manual_seed(0)
    layer = kinds(device)[kind](stage.channels).to(device.name)
    x = torch.randn(stage, device=device.name).half()
    x = x.contiguous(memory_format=FORMATS[memory_format]).requires_grad_()
    seed = torch.randn_like(x)
    inputs = [x, *layer.parameters()]

    def step():
        with torch.autocast(device.name, torch.float16):
            y = layer(x)
        return torch.autograd.grad(y, inputs, seed.to(y.dtype))

    return step if mode == 'eager' else device.captured(step)
