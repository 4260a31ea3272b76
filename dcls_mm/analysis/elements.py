"""The elements of a model's layers, as arrays."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from ..layers.positions import LearnedPositions
from ..layers.starts import initial_spread


@dataclass(frozen=True)
class LayerElements:
    """The elements of a layer, or of the layers that share one set of positions.

    Attributes:
        layers: names of the layers, in the order of the model.
        axes: spatial axes with learned positions, in order.
        limits: positions of the first and the last tap along each of these axes, in
            pixels.
        interpolation: interpolation of the layers.
        initial_positions: how the positions started.
        initial_spread: the standard deviation at the start in pixels, if that was
            'normal', else None.
        learned: whether the positions are learned.
        positions: (kernels, count, axes), in pixels from the kernel's centre.
        sigma: |SIG| in the same shape, in pixels; None without sigma.
        magnitudes: |weight| of each layer, (kernels, count), averaged over the outputs
            where these share the positions.
    """

    layers: tuple[str, ...]
    axes: tuple[int, ...]
    limits: tuple[tuple[int, int], ...]
    interpolation: str
    initial_positions: str
    initial_spread: float | None
    learned: bool
    positions: np.ndarray
    sigma: np.ndarray | None
    magnitudes: tuple[np.ndarray, ...]

    @property
    def name(self) -> str:
        """Name of the first layer."""
        return self.layers[0]

    @property
    def extent(self) -> tuple[int, ...]:
        """Number of taps along each learned axis."""
        return tuple(last - first + 1 for first, last in self.limits)


def at_border(positions: np.ndarray, limits: Sequence) -> np.ndarray:
    """Find the elements within half a pixel of an outermost tap, or beyond it.

    Positions (..., axes) and the ``limits`` of their layer give booleans (...).
    """
    first, last = np.array(limits).T
    return ((positions < first + 0.5) | (positions > last - 0.5)).any(-1)


def collect_elements(model: nn.Module) -> dict[str, LayerElements]:
    """Collect the elements of all DCLS layers of a model; empty if there are none.

    Returns:
        Name of the first layer among those that share positions -> elements.

    Raises:
        ValueError: positions or sigmas are NaN or infinite; the message names the
            layer.
    """
    sharing: dict[int, dict[str, LearnedPositions]] = {}
    for name, module in model.named_modules():
        if isinstance(module, LearnedPositions):
            sharing.setdefault(id(module.P), {})[name] = module
    found = {}
    for layers in sharing.values():
        name, layer = next(iter(layers.items()))
        axes = tuple(sorted(layer.position_axes))
        sigma = None if layer.SIG is None else np.abs(_rows(layer, layer.SIG))
        found[name] = LayerElements(
            layers=tuple(layers),
            axes=axes,
            limits=tuple(layer.position_limits(axis) for axis in axes),
            interpolation=layer.interpolation,
            initial_positions=layer.initial_positions,
            initial_spread=initial_spread(layer),
            learned=layer.P.requires_grad,
            positions=_rows(layer, layer.P),
            sigma=sigma,
            magnitudes=tuple(_magnitudes(layer) for layer in layers.values()),
        )
        for what, values in (('positions', found[name].positions), ('sigmas', sigma)):
            if values is not None and not np.isfinite(values).all():
                raise ValueError(f'{name} has {what} that are NaN or infinite')
    return found


def _rows(layer: LearnedPositions, parameter: Tensor) -> np.ndarray:
    """Return P or SIG as (kernels, count, axes), in the order of the spatial axes."""
    rows = _as_array(parameter)[np.argsort(layer.position_axes)]
    return np.moveaxis(rows.reshape(len(rows), -1, layer.kernel_count), 0, -1)


def _magnitudes(layer: LearnedPositions) -> np.ndarray:
    magnitudes = np.abs(_as_array(layer.weight))
    if not layer.per_output_positions:
        magnitudes = magnitudes.mean(0)
    return magnitudes.reshape(-1, layer.kernel_count)


def _as_array(parameter: Tensor) -> np.ndarray:
    return parameter.detach().float().cpu().numpy().copy()
