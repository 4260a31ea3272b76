"""Trained networks with their depthwise convolutions replaced."""

import copy
import warnings
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dcls_mm import DCLSConv2d, replace_convs

Outputs = dict[str, Tensor]

# Options of the layers beside the default, 'bilinear'. A wide element spreads over its
# neighbours: its weights are a fit with an error, the larger the wider it is.
INTERPOLATIONS: list[dict[str, Any]] = [
    dict(interpolation='triangle'),
    dict(interpolation='max'),
    *(dict(interpolation='max', initial_sigma=sigma) for sigma in (0.1, 0.5)),
    *(dict(interpolation='gauss', initial_sigma=sigma) for sigma in (0, 0.1, 0.23)),
]

# A ring of elements around the kernel cancels what wide ones spread there.
IN_A_RING: list[dict[str, Any]] = [
    dict(interpolation='gauss', initial_sigma=sigma) for sigma in (0.05, 0.1, 0.23)
]


class Swap(NamedTuple):
    """Which depthwise convolutions are replaced, and by which layers.

    Attributes:
        extents: from the kernel size of the convolutions to the layers' extent.
        name: regular expression for the convolutions' names; None for all.
        options: other keyword arguments of the layers.
        loaded: whether an empty network is changed, and then loads the state_dict.
        rings: rings of elements around the taps of each kernel.
    """

    extents: dict[int, int]
    name: str | None = None
    options: Mapping[str, Any] = MappingProxyType({})
    loaded: bool = False
    rings: int = 0


def swapped(model: nn.Module, swap: Swap) -> nn.Module:
    """Return a copy of a model with its depthwise convolutions replaced."""
    published = model.state_dict()
    model = copy.deepcopy(model)
    if swap.loaded:
        for parameter in model.parameters():
            nn.init.zeros_(parameter)
    with warnings.catch_warnings():
        # Of positions that can't learn, which are just compared, and of errors, which
        # the table has.
        warnings.filterwarnings('ignore', "start='conv'")
        for size, extent in swap.extents.items():
            replace_convs(
                model,
                DCLSConv2d,
                name=swap.name,
                kernel_size=size,
                depthwise=True,
                kernel_count=(size + 2 * swap.rings) ** 2,
                dilated_kernel_size=extent,
                **swap.options,
            )
    if swap.loaded:
        model.load_state_dict(published)
    return model


def layers_of(model: nn.Module) -> list[DCLSConv2d]:
    return [module for module in model.modules() if isinstance(module, DCLSConv2d)]


def compare(
    tables: Any,
    model: nn.Module,
    run: Callable[[nn.Module, torch.dtype], Outputs],
    agreement: Callable[[Outputs, Outputs], str],
    swaps: list[Swap],
) -> None:
    """Write a table row per swap: how far its outputs are from the model's.

    Args:
        tables: receives the rows.
        model: the trained network.
        run: from a network and a dtype to its outputs by name, in that dtype.
        agreement: says how many predictions of two networks agree.
        swaps: what to compare.
    """
    expected = {dtype: run(model, dtype) for dtype in (torch.float32, torch.float64)}
    for swap in swaps:
        ours = swapped(model, swap)
        layers = layers_of(ours)
        error = max(layer.kernel_error for layer in layers)
        # Rounding is told from other differences by what is left of it in float64.
        made = {d: run(ours, d) for d in expected if d == torch.float32 or not error}
        row = {
            'replaced': ', '.join(
                f'{k}x{k} by {n}x{n}' for k, n in swap.extents.items()
            ),
            'layers': len(layers),
            'of stride 2': sum(max(layer.stride) > 1 for layer in layers),
            'start': 'loaded' if swap.loaded else 'replaced',
            'interpolation': _interpolation(layers[0]),
            'rings': swap.rings,
            'kernel error': error,
        }
        for dtype, outputs in expected.items():
            for name, values in outputs.items():
                row[f'{name}, {str(dtype).removeprefix("torch.")}'] = (
                    difference(made[dtype][name], values) if dtype in made else None
                )
        single = made[torch.float32], expected[torch.float32]
        tables.row({**row, 'the same predictions': agreement(*single)})


def _interpolation(layer: DCLSConv2d) -> str:
    sigma = '' if layer.SIG is None else f', sigma {layer.SIG.max():.2g}'
    return f'{layer.interpolation}{sigma}'


def difference(ours: Tensor, theirs: Tensor) -> float:
    """Return the largest difference, relative to the largest value."""
    return float((ours - theirs).abs().max() / theirs.abs().max())
