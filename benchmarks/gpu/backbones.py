"""A whole ConvNeXt under autocast to float16, against the same with plain 7x7.

A training step is a forward pass and a backward pass to all parameters, from fixed
random gradients of the four outputs. Inference is a forward pass in evaluation mode,
after a first one that constructs the kernels.
"""

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import paths  # noqa: F401
import torch
from cases import FORMATS, NETWORKS, STEP_TARGET, Images, images_of
from common import verdict
from convnext import ConvNeXt
from depthwise import OURS, PLAIN, absent, kinds
from results import Results, prepared, times_faster

TASKS = ('training step', 'inference')
MODES = ('eager', 'graph')


def measure(device, results: Results, args) -> None:
    results.table(f'ConvNeXt {args.backbone}')
    batches = images_of(device)
    for images, task in results.in_time(
        product(batches[:1] if args.quick else batches, TASKS)
    ):
        _measure_task(device, results, images, task, args)
        device.free()
    results.note(
        'Under autocast to float16, without an optimizer. `time ratio`: relative to '
        'plain 7x7 in its better memory format, in the same mode. `launches`: kernels, '
        'copies and fills put on the GPU. `MB`: what a call adds to the peak of '
        f'allocated memory.{absent()}'
    )


def _measure_task(device, results: Results, images: Images, task: str, args) -> None:
    names = kinds(device)
    timings, counted = {}, {}
    # Not all graphs at once: each keeps the memory of a whole step.
    for mode, memory_format in product(MODES, FORMATS):
        builds = {
            (kind, memory_format, mode): partial(
                _build, device, images, task, args.backbone, kind, memory_format, mode
            )
            for kind in names
            if mode == 'eager' or kind in (PLAIN, OURS)
        }
        functions = prepared(results, f'{images}, {task}', builds)
        if mode == 'eager':
            for network, call in functions.items():
                counted[network[:2]] = device.launches(call), device.peak_mb(call)
        timings |= device.interleave(functions, 3 * args.seconds)
        functions = call = None
        device.free()
    for kind, memory_format in product(names, FORMATS):
        cells = dict(images=str(images), task=task, depthwise=kind)
        cells['memory'] = memory_format
        for mode in MODES:
            mine = timings.get((kind, memory_format, mode))
            peers = [timings.get((PLAIN, name, mode)) for name in FORMATS]
            faster = times_faster([mine], peers)
            cells[f'{mode} ms'] = mine or 'none'
            cells[f'{mode}, time ratio'] = 'none' if faster == 'none' else 1 / faster
        ratio = cells['eager, time ratio']
        has_target = kind == OURS and task == TASKS[0] and ratio != 'none'
        cells['target'] = verdict(ratio, most=STEP_TARGET) if has_target else ''
        counts = counted.get((kind, memory_format), ('none', 'none'))
        results.row(cells | dict(zip(('launches', 'MB'), counts)))


def _build(
    device,
    images: Images,
    task: str,
    arch: str,
    kind: str,
    memory_format: str,
    mode: str,
) -> Callable[[], Any]:
    torch.manual_seed(0)
    model = ConvNeXt(*NETWORKS[arch], kinds(device)[kind])
    model.to(device.name).train(task == TASKS[0])
    x = torch.randn(images.batch, 3, images.height, images.width, device=device.name)
    x = x.contiguous(memory_format=FORMATS[memory_format])
    autocast = partial(torch.autocast, device.name, torch.float16)

    @torch.no_grad()
    def infer():
        with autocast():
            return model(x)

    call = infer
    if task == TASKS[0]:
        seeds = [torch.randn_like(y) for y in infer()]

        def call():
            with autocast():
                outputs = model(x)
            torch.autograd.backward(outputs, seeds)
            model.zero_grad()

    return call if mode == 'eager' else device.captured(call)
