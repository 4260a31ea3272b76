"""The positions and sigmas of a layer: initial values, changes, freezing, loading."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..functional import INTERPOLATIONS
from ..functional._arguments import as_float
from .geometry import extent_of
from .noted import NotedState, as_noted, is_other_interpolation, other_extent
from .published import is_published, published_axes, published_version

# The standard deviation of the published initial positions, in pixels.
POSITION_STD = 0.5


class LearnedPositions(NotedState):
    """The base of layers with positions.

    A subclass has the attributes ``ndim``, ``extent``, ``kernel_size``, ``dilation``,
    ``kernel_count``, ``interpolation`` and ``initial_sigma``, and the parameters ``P``
    and ``SIG`` (None without sigma). ``position_axes`` are the spatial axes of their
    rows, and ``axes_given`` tells whether these were given explicitly. ``adapted``
    tells whether the extent or the number of elements has changed since it was built.
    """

    axes_given = False
    adaptable = True  # whether resizing.py may change a layer of this class
    adapted = False

    ndim: int
    extent: tuple[int, ...]
    kernel_size: tuple[int, ...]
    dilation: tuple[int, ...]
    kernel_count: int
    interpolation: str
    initial_sigma: float | None
    position_axes: tuple[int, ...]
    P: nn.Parameter
    SIG: nn.Parameter | None

    def position_limits(self, axis: int) -> tuple[int, int]:
        """Return the positions of an axis' first and last tap, in pixels."""
        size = self.extent[axis]
        return -(size // 2), size - 1 - size // 2

    @torch.no_grad()
    def clamp_positions(self) -> None:
        """Move positions beyond the first or the last tap of the extent onto it."""
        for positions, axis in zip(self.P, self.position_axes):
            positions.clamp_(*self.position_limits(axis))

    @torch.no_grad()
    def round_positions(self) -> None:
        """Round every position to whole pixels (halves to the even one)."""
        self.P.round_()

    def freeze_positions(self) -> None:
        """Stop learning the positions, here and in layers that share them."""
        _freeze(self.P)

    def fix_sigma(self, value: float | None = None) -> None:
        """Stop learning sigma, after setting it to ``value`` in pixels if given.

        Raises:
            ValueError, TypeError: the interpolation has no sigma, or ``value`` is not
                a finite number.
        """
        if self.SIG is None:
            raise ValueError(
                f'interpolation {self.interpolation!r} has no sigma to fix'
            )
        if value is not None:
            nn.init.constant_(self.SIG, as_float('value', value))
        _freeze(self.SIG)

    def share_positions(self, other: 'LearnedPositions') -> None:
        """Use the position (and sigma) parameters of another layer from now on.

        Raises:
            TypeError: ``other`` is not a layer with positions.
            ValueError: the positions of the layers differ in shape or meaning.
        """
        if not isinstance(other, LearnedPositions):
            raise TypeError(
                'positions can only be shared with a layer that has them, such as '
                f'DCLSConv2d, got {type(other).__name__}'
            )
        for name in ('extent', 'interpolation', 'position_axes'):
            if getattr(self, name) != getattr(other, name):
                raise ValueError(
                    f'layers that share positions must have the same {name}, got '
                    f'{getattr(self, name)} and {getattr(other, name)}'
                )
        if self.P.shape != other.P.shape:
            raise ValueError(
                'layers that share positions must have positions of one shape, got '
                f'{tuple(self.P.shape)} and {tuple(other.P.shape)}'
            )
        self.P, self.SIG = other.P, other.SIG

    def _in_axis_order(self, rows: Tensor) -> Tensor:
        """Return rows of P or SIG in the order of the spatial axes."""
        # Not by an index tensor, which would have to be copied to the device.
        by_axis = dict(zip(self.position_axes, rows))
        return torch.stack([by_axis[axis] for axis in sorted(by_axis)])

    def notes(self) -> dict[str, Any]:
        """Return what is needed to read P."""
        notes: dict[str, Any] = {
            'position_axes': self.position_axes,
            'extent': self.extent,
            'interpolation': self.interpolation,
        }
        return {**notes, 'adapted': True} if self.adapted else notes

    def misreading(
        self, state_dict: Mapping, prefix: str, notes: Mapping[str, Any]
    ) -> str | None:
        """Compare axes, interpolation and extent; see the base.

        A state_dict without notes (a plain dict, safetensors) may be from the published
        package. If that has P's rows in another order, only a layer whose
        ``position_axes`` were given loads it.
        """
        if self.SIG is None and f'{prefix}SIG' in state_dict:
            return (
                f'{prefix}SIG: the state_dict is of a layer with sigma (interpolation '
                f"'max' or 'gauss'), this one is {self.interpolation!r}"
            )
        if f'{prefix}P' not in state_dict:
            return None
        extent = None if self.adopts_extent(notes) else notes.get('extent')
        return (
            self._other_axes(f'{prefix}P', notes)
            or self._other_interpolation(f'{prefix}P', notes.get('interpolation'))
            or other_extent(f'{prefix}P', extent, self.extent)
        )

    def adopts_extent(self, notes: Mapping[str, Any]) -> bool:
        """Return whether the layer takes its extent from a state_dict's notes."""
        return False

    def _load_from_state_dict(self, *arguments) -> None:
        before = {name: getattr(self, name) for name in ('P', 'SIG')}
        super()._load_from_state_dict(*arguments)
        for name, old in before.items():
            if getattr(self, name) is not old:
                setattr(self, name, _assigned(old, getattr(self, name)))

    def _other_axes(self, key: str, notes: Mapping[str, Any]) -> str | None:
        published = self.position_axes
        if len(published) == self.ndim:
            published = published_axes(self.interpolation, self.ndim)
        saved = as_noted(notes.get('position_axes'))
        if is_published(notes):
            saved = published
        if saved == self.position_axes:
            return None
        convert = 'convert it with dcls_mm.conversion.from_published (in a Pretrained '
        convert += f'init_cfg: version={published_version(self.interpolation)!r})'
        if saved is not None:
            noted = 'position_axes' in notes
            remedy = self._remedy_for(saved) if noted else convert
            return (
                f'{key}: in the state_dict its rows stand for the spatial axes {saved},'
                f' here for {self.position_axes}: {remedy}'
            )
        if self.axes_given or published == self.position_axes:
            return None
        return (
            f'{key}: the state_dict has no metadata (a plain dict keeps none) to tell '
            f'whether its rows are for the spatial axes {self.position_axes}, as in '
            f'dcls_mm, or {published}, as in the published package. If it is from '
            f'dcls_mm, build the layer with position_axes={self.position_axes}; if it '
            f'is published, {convert}'
        )

    def _other_interpolation(self, key: str, saved: Any) -> str | None:
        if not is_other_interpolation(saved, self.interpolation):
            return None
        return (
            f'{key}: the state_dict is of interpolation {saved!r}, the layer of '
            f'{self.interpolation!r}: build it with {self._argument_for(saved)}'
        )

    def _argument_for(self, interpolation: str) -> str:
        """Return the argument that sets an interpolation, for an error."""
        return f'interpolation={interpolation!r}'

    def _remedy_for(self, axes: Any) -> str:
        """Return what to do with rows of another layer of dcls_mm, for an error."""
        return f'build it with position_axes={axes}'


@torch.no_grad()
def _assigned(old: nn.Parameter, new: nn.Parameter) -> nn.Parameter:
    """Return the parameter for a layer where load_state_dict(assign=True) set ``new``.

    torch sets a separate parameter in each layer that shared ``old``. In a state_dict
    of layers that share theirs, these also have one memory, even if the layers here are
    not to share it. So the first layer gets a copy, and those that share it the same.
    """
    shared = getattr(old, '_assigned', None)
    if shared is None or shared.device != new.device or not _equal(shared, new):
        shared = nn.Parameter(new.clone(), new.requires_grad)
        old._assigned = shared  # type: ignore[attr-defined]
    return shared


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.is_meta or torch.equal(one, other)


def _freeze(parameter: nn.Parameter) -> None:
    parameter.requires_grad_(False)
    parameter.grad = None  # otherwise the optimizer's next step still uses it


def normal_positions(layer: LearnedPositions) -> None:
    """Draw from N(0, 0.5 pixels), as published if all axes are learned."""
    nn.init.normal_(layer.P, std=POSITION_STD)
    layer.clamp_positions()


def uniform_positions(layer: LearnedPositions) -> None:
    """Draw uniformly from first to last tap, as published if some axes are dense."""
    for positions, axis in zip(layer.P, layer.position_axes):
        nn.init.uniform_(positions, *layer.position_limits(axis))


@torch.no_grad()
def grid_positions(layer: LearnedPositions) -> None:
    """Place elements on the taps of the replaced dilated conv, and rings around it."""
    size = grid_size(layer, layer.kernel_size)
    places = grid_places(layer, size, layer.dilation)
    for positions, row in zip(layer.P, places):
        positions.copy_(row)


def grid_size(layer: LearnedPositions, kernel_size: tuple[int, ...]) -> tuple[int, ...]:
    """Return a plain kernel's size, with the rings for which a layer has elements.

    Each ring adds one tap on every side. If no number of rings gives as many taps as
    the layer has elements, it is the size itself.
    """
    learned = layer.position_axes

    def with_rings(count: int) -> tuple[int, ...]:
        return tuple(n + 2 * count * (i in learned) for i, n in enumerate(kernel_size))

    rings = 0
    while math.prod(with_rings(rings)[axis] for axis in learned) < layer.kernel_count:
        rings += 1
    taps = math.prod(with_rings(rings)[axis] for axis in learned)
    return with_rings(rings if taps == layer.kernel_count else 0)


def grid_places(
    layer: LearnedPositions, kernel_size: tuple[int, ...], dilation: tuple[int, ...]
) -> Tensor:
    """Return the positions of a plain convolution's taps, the last axis fastest.

    Returns:
        (rows of P, taps along the learned axes), in pixels from the layer's centre.

    Raises:
        ValueError: the number of elements is not that of the taps, or the taps don't
            fit into the extent.
    """
    learned = sorted(layer.position_axes)
    span = extent_of(kernel_size, dilation)
    taps = []
    for axis in range(layer.ndim):
        margin = layer.extent[axis] - span[axis]
        if margin < 0 or margin % 2 or (margin and axis not in learned):
            larger = ', or larger by an even number' if axis in learned else ''
            raise ValueError(
                "elements on a plain convolution's taps need a dilated_kernel_size "
                'equal to its extent, dilation * (kernel_size - 1) + 1'
                f'{larger}: axis {axis} has {layer.extent[axis]} for {span[axis]}'
            )
        if axis in learned:
            first = layer.position_limits(axis)[0] + margin // 2
            taps.append(first + dilation[axis] * torch.arange(kernel_size[axis]))
    places = torch.cartesian_prod(*taps).view(-1, len(learned))
    if len(places) != layer.kernel_count:
        raise ValueError(
            "elements on a plain convolution's taps must be as many as these: make "
            f'kernel_count {len(places)} or leave it out, got {layer.kernel_count} '
            f'(kernel_size {kernel_size})'
        )
    return places[:, [learned.index(axis) for axis in layer.position_axes]].T


# The argument initial_positions of a layer -> a function that fills P in place.
INITIAL_POSITIONS = {
    'normal': normal_positions,
    'uniform': uniform_positions,
    'grid': grid_positions,
}


def starting_sigma(layer: LearnedPositions) -> float:
    """Return the value of SIG at the start, in pixels: the given or published one."""
    if layer.initial_sigma is not None:
        return layer.initial_sigma
    # None if the interpolation has been changed to one that doesn't read SIG.
    return INTERPOLATIONS[layer.interpolation].initial_sigma or 0.0


@torch.no_grad()
def initialize_sigma(layer: LearnedPositions) -> None:
    """Set SIG, if any, to its initial value."""
    if layer.SIG is not None:
        layer.SIG.fill_(starting_sigma(layer))
