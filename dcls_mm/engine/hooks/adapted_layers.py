"""Layers with the same positions, as a hook changes their elements and extent."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from mmengine.dist import all_reduce
from torch import Tensor, nn

from ...checks.errors import ConfigError
from ...functional import INTERPOLATIONS
from ...layers import DCLSConvNd
from ...layers.resizing import (
    Rearrangement,
    rearrange_elements,
    resize_extent,
    tap_bounds,
)
from . import adaptation_policy as policy


class Done(NamedTuple):
    """What a visit has changed, in numbers of elements of all kernels."""

    merged: int
    faded: int
    started: int


class AdaptedLayers:
    """All layers with one ``P``, and what happens to their elements.

    Args:
        name: name of the first layer.
        layers: the layers that learn.
        copies: the layers in the same places of each averaged model.
        optimizer: its states follow the elements.
    """

    def __init__(
        self,
        name: str,
        layers: Sequence[DCLSConvNd],
        copies: Sequence[Sequence[DCLSConvNd]],
        optimizer: torch.optim.Optimizer,
    ) -> None:
        self.name, self.layers, self.copies = name, layers, copies
        self.optimizer = optimizer
        self.first = first = layers[0]
        self.axes = first.learned_axes
        self._rows = [first.position_axes.index(axis) for axis in self.axes]
        # Some taps of such elements are cut off before their position is outside.
        self.wide = not INTERPOLATIONS[first.interpolation].two_taps
        self._probes: list[_KernelGradient] = []
        shape = first.P.shape[1:]
        self.leaving = first.P.new_full(shape, policy.STAYS, dtype=torch.long)
        self.young = first.P.new_zeros(shape, dtype=torch.bool)

    @property
    def count(self) -> int:
        return self.first.kernel_count

    @property
    def extent(self) -> tuple[int, ...]:
        """The extent along the learned axes."""
        return tuple(self.first.extent[axis] for axis in self.axes)

    @property
    def weights(self) -> int:
        """The number of entries of all layers' weights."""
        return sum(layer.weight.numel() for layer in self.layers)

    @property
    def positions(self) -> Tensor:
        """(learned axes in order, *kernels, count), in pixels."""
        return self.first.P.detach()[self._rows]

    @property
    def magnitude(self) -> Tensor:
        """|weight| relative to its kernel's mean, averaged over the layers."""
        total = torch.zeros_like(self.first.P[0])
        for layer in self.layers:
            size = layer.weight.detach().abs()
            if not layer.per_output_positions:
                size = size.mean(0)
            mean = size.mean(-1, keepdim=True)
            total += size / mean.clamp(min=torch.finfo(size.dtype).tiny)
        return total / len(self.layers)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint has to keep until the next visit."""
        return {'leaving': self.leaving, 'young': self.young}

    def load_state(self, state: Any) -> bool:
        """Go on from :meth:`state`; return False if it is of other layers."""
        own = self.state()
        if type(state) is not dict or set(state) != set(own):
            return False
        for key, value in own.items():
            given = state[key]
            if type(given) is not Tensor or given.dtype != value.dtype:
                return False
            if given.shape != value.shape:
                return False
        leaving = state['leaving']
        if leaving.min() < policy.STAYS or leaving.max() >= self.count:
            return False
        self.leaving = leaving.to(self.leaving.device)
        self.young = state['young'].to(self.young.device)
        return True

    def watch(self) -> None:
        """Add up the gradients of the dense kernels, until :meth:`unwatch`."""
        if not self._probes:
            self._probes = [_KernelGradient(layer) for layer in self.layers]
        for probe in self._probes:
            probe.attach()

    def unwatch(self) -> None:
        """Let the layers convolve as before; what was added up is kept."""
        for probe in self._probes:
            probe.detach()

    def take_gradient(self) -> Tensor:
        """Return \\|gradient\\| of the dense kernel, (*kernels, *learned extent).

        It is the sum over layers (and outputs) that share positions, and over
        processes; what was added up is dropped.
        """
        first = self.first
        order = [0, 1, *(2 + axis for axis in (*first.dense_axes, *self.axes))]
        total = torch.zeros((), dtype=first.P.dtype, device=first.P.device)
        for probe in self._probes:
            all_reduce(probe.total)
            gradient = probe.total.permute(order).abs()
            total = total + (
                gradient if first.per_output_positions else gradient.sum(0)
            )
        self._probes = []
        return total.nan_to_num(0.0, 0.0, 0.0)

    @torch.no_grad()
    def fade(self, share: float) -> None:
        """Move a share of the weight of the elements that leave."""
        for layers in (self.layers, *self.copies):
            for weight in {id(layer.weight): layer.weight for layer in layers}.values():
                policy.hand_over(weight, self.leaving, share)

    @torch.no_grad()
    def replace(self, count: int, gradient: Tensor) -> Done:
        """Replace the elements that have left, and change the number of elements.

        Args:
            count: the new number of elements; if it is lower, enough must have left.
            gradient: from :meth:`take_gradient`.
        """
        left = self.leaving != policy.STAYS
        own = self.leaving == torch.arange(self.count, device=left.device)
        arrangement = policy.rearranged(left, count)
        source, fresh = arrangement
        started = int(fresh.sum())
        done = Done(int((left & ~own).sum()), int((left & own).sum()), started)
        self.leaving = torch.full_like(source, policy.STAYS)
        self.young = fresh
        if not started and count == self.count:
            return done
        places = None
        if started:
            most = int(fresh.sum(-1).max())
            wanted = policy.wanted_places(gradient, self.positions, ~left, most)
            places = policy.places_of_fresh(fresh, wanted)
            rows = [self.axes.index(axis) for axis in self.first.position_axes]
            places = places[rows]
        self._rearrange(arrangement, places)
        return done

    def _rearrange(self, arrangement: Rearrangement, places: Tensor | None) -> None:
        parameters: dict[int, nn.Parameter] = {}
        for layer in self.layers:
            for parameter in (layer.weight, layer.P, layer.SIG):
                if parameter is not None:
                    parameters[id(parameter)] = parameter
        for parameter in parameters.values():
            state = self.optimizer.state.get(parameter, {})
            for key, value in state.items():
                if not isinstance(value, Tensor) or not value.ndim:
                    continue  # such as a count of steps
                if value.shape != parameter.shape:
                    raise ConfigError(
                        f'custom_hooks: AdaptKernelsHook can not adapt {key!r} of '
                        f'{type(self.optimizer).__name__}, {tuple(value.shape)} for a '
                        f'parameter of {tuple(parameter.shape)}: use an optimizer '
                        'whose states are shaped like the parameters, such as AdamW'
                    )
                state[key] = arrangement.moved(value)
        for layers in (self.layers, *self.copies):
            rearrange_elements(layers, arrangement, places)

    def demand(self, gradient: Tensor) -> float:
        """Return what a weight of a new element would gain, as a mean over kernels."""
        stays = self.leaving == policy.STAYS
        gain = policy.wanted_places(gradient, self.positions, stays, 1).gain
        weights_each = self.weights / self.count / gain.numel()
        return gain.mean().item() / weights_each

    def spare(self) -> int:
        """Return how many elements have left in every kernel."""
        return int((self.leaving != policy.STAYS).sum(-1).min())

    def choose(
        self, meet: float, near_zero: float, turnover: float, least: int
    ) -> None:
        """Choose the elements that leave until the next visit."""
        most = 0 if turnover == 0 else max(1, int(turnover * self.count))
        self.leaving = policy.leaving_elements(
            self.positions,
            self.magnitude,
            self.young,
            meet=meet,
            near_zero=near_zero,
            most=min(most, self.count - 1),
            least=least,
        )

    def resize(self, pressed: float, largest: int | None) -> None:
        """Grow the extent where elements press against its border, else crop it."""
        lowest, highest = self._all_bounds()
        pressing = policy.pressing_shares(self.positions, self.magnitude, self.extent)
        self._set_extent(
            [
                policy.next_extent(
                    self.first.extent[axis],
                    (lowest[i], highest[i]),
                    pressing[i],
                    pressed=pressed,
                    smallest=self._smallest(axis),
                    largest=largest,
                )
                for i, axis in enumerate(self.axes)
            ]
        )

    def hold(self, bounds: Sequence[tuple[float, float]], largest: int | None) -> None:
        """Grow the extent until it has the taps within ``bounds``, per axis."""
        self._set_extent(
            [
                policy.holding_extent(size, *ends, largest)
                for size, ends in zip(self.extent, bounds)
            ]
        )

    def bounds(self) -> Tensor:
        """Return the first and last taps that elements reach, (2, learned axes)."""
        return torch.stack(tap_bounds(self.first))

    def _all_bounds(self) -> tuple[list[float], list[float]]:
        """Return the first and last taps of all layers and copies, per axis."""
        layers = [layer for each in (self.layers, *self.copies) for layer in each]
        firsts, lasts = zip(*map(tap_bounds, layers))
        lowest, highest = torch.stack(firsts).amin(0), torch.stack(lasts).amax(0)
        return lowest.tolist(), highest.tolist()

    def _smallest(self, axis: int) -> int:
        """Return the extent for which some layer's padding would be zero, or less."""

        def smallest(layer: DCLSConvNd) -> int:
            if layer.padding == 'same':
                return 1
            padding = 0 if layer.padding == 'valid' else layer.padding[axis]
            return layer.extent[axis] - 2 * padding

        return max(map(smallest, self.layers))

    def _set_extent(self, learned: Sequence[int]) -> None:
        if tuple(learned) == self.extent:
            return
        extent = list(self.first.extent)
        for axis, size in zip(self.axes, learned):
            extent[axis] = size
        for layers in (self.layers, *self.copies):
            for layer in layers:
                resize_extent(layer, tuple(extent))


class _KernelGradient:
    """The sum of the gradients of a layer's dense kernel, taps without elements too.

    While it is attached, the layer constructs its kernel, whatever its formulation.

    Attributes:
        total: (*kernel_channels, *extent); zero if there was no backward pass.
    """

    def __init__(self, layer: DCLSConvNd) -> None:
        self.layer = layer
        shape = (*layer.kernel_channels, *layer.extent)
        self.total = layer.weight.new_zeros(shape)
        self._replaced: tuple[str, str | None] | None = None

    def attach(self) -> None:
        layer = self.layer
        if self._replaced is None:
            self._replaced = layer.formulation, layer.backend
            layer.formulation = 'construct'
            layer._element_kernel = self._kernel  # type: ignore[method-assign]
            layer.backend = None if layer.backend == 'direct' else layer.backend

    def detach(self) -> None:
        if self._replaced is not None:
            del self.layer._element_kernel
            self.layer.formulation, self.layer.backend = self._replaced
            self._replaced = None

    def _kernel(self) -> Tensor:
        kernel = type(self.layer)._element_kernel(self.layer)
        if kernel.requires_grad:
            kernel.register_hook(self._add)
        return kernel

    def _add(self, gradient: Tensor) -> None:
        self.total += gradient
