"""The positions and sigmas of a layer: changes, sharing, freezing, loading."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..functional._arguments import as_float
from .noted import NotedState, as_noted, is_other_interpolation, other_extent
from .published import is_published, published_axes, published_version


class LearnedPositions(NotedState):
    """The base of layers with positions.

    A subclass has the attributes ``ndim``, ``extent``, ``kernel_size``, ``dilation``,
    ``kernel_count``, ``interpolation``, ``initial_positions``, ``initial_spread`` and
    ``initial_sigma``, and the parameters ``P`` and ``SIG`` (None without sigma).
    ``position_axes`` are the spatial axes of their rows, and ``axes_given`` tells
    whether these were given explicitly. ``adapted`` tells whether the extent or the
    number of elements has changed since it was built.
    """

    axes_given = False
    adaptable = True  # whether resizing.py may change a layer of this class
    adapted = False
    orientations = 1  # see RotatedDCLSConv2d

    ndim: int
    extent: tuple[int, ...]
    kernel_size: tuple[int, ...]
    dilation: tuple[int, ...]
    kernel_count: int
    interpolation: str
    initial_positions: str
    initial_spread: float | None
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
        if self.orientations > 1:
            notes['orientations'] = self.orientations
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
            super().misreading(state_dict, prefix, notes)
            or self._other_axes(f'{prefix}P', notes)
            or self._other_interpolation(f'{prefix}P', notes.get('interpolation'))
            or self._other_turns(state_dict, prefix, notes)
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

    def _other_turns(
        self, state_dict: Mapping, prefix: str, notes: Mapping[str, Any]
    ) -> str | None:
        # Without notes nothing is known, unless they would have been taken over.
        noted = notes.get('orientations', 1) if notes.get('extent') else None
        if noted not in (None, self.orientations):
            return (
                f'{prefix}P: the state_dict is of a layer with {noted} orientations, '
                f'this one has {self.orientations}: '
                + (
                    f'build a RotatedDCLSConv2d with orientations={noted}'
                    if noted != 1
                    else 'build a DCLSConv2d'
                )
            )
        if f'{prefix}mixtures' in state_dict and not hasattr(self, 'mixtures'):
            return (
                f'{prefix}mixtures: the state_dict is of a layer that turns with each '
                'image: build a SteeredDCLSConv2d'
            )
        return None

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
