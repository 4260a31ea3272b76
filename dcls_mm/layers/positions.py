"""The positions and sigmas of a layer: how they start, move, freeze and load."""

from typing import Optional

import torch
from torch import Tensor, nn

from ..functional import INTERPOLATIONS
from .geometry import published_axes

# Standard deviation of the published initial positions, in pixels.
POSITION_STD = 0.5


class LearnedPositions(nn.Module):
    """What layers with positions share.

    A subclass has the attributes ``ndim``, ``extent``, ``kernel_size``, ``dilation``,
    ``kernel_count``, ``interpolation`` and ``position_axes``, the spatial axis of each
    row of its parameters ``P`` and ``SIG`` (None without sigma).
    """

    P: nn.Parameter
    SIG: Optional[nn.Parameter]

    def position_limits(self, axis: int) -> tuple[int, int]:
        """Positions of the first and the last tap of a spatial axis, in pixels."""
        size = self.extent[axis]
        return -(size // 2), size - 1 - size // 2

    @torch.no_grad()
    def clamp_positions(self) -> None:
        """Move positions beyond the first or the last tap of the extent onto it."""
        for positions, axis in zip(self.P, self.position_axes):
            positions.clamp_(*self.position_limits(axis))

    @torch.no_grad()
    def round_positions(self) -> None:
        """Move every position to the nearest whole pixel (halves to the even one)."""
        self.P.round_()

    def freeze_positions(self) -> None:
        """Learn the positions no further, here and in layers that share them."""
        _freeze(self.P)

    def fix_sigma(self, value: Optional[float] = None) -> None:
        """Learn sigma no further; set it to ``value``, in pixels, if one is given.

        Raises:
            ValueError: the interpolation has no sigma.
        """
        if self.SIG is None:
            raise ValueError(
                f'interpolation {self.interpolation!r} has no sigma to fix'
            )
        _freeze(self.SIG)
        if value is not None:
            nn.init.constant_(self.SIG, value)

    def share_positions(self, other: 'LearnedPositions') -> None:
        """Use the position (and sigma) parameters of another layer as one's own.

        Raises:
            ValueError: the layers' positions are of different shape or meaning.
        """
        for name in ('extent', 'interpolation', 'position_axes'):
            if getattr(self, name) != getattr(other, name):
                raise ValueError(
                    f'layers that share positions must have one {name}, got '
                    f'{getattr(self, name)} and {getattr(other, name)}'
                )
        if self.P.shape != other.P.shape:
            raise ValueError(
                'layers that share positions must have positions of one shape, got '
                f'{tuple(self.P.shape)} and {tuple(other.P.shape)}'
            )
        self.P, self.SIG = other.P, other.SIG

    def _in_axis_order(self, rows: Tensor) -> Tensor:
        """Rows of P or SIG, put in the order of the spatial axes."""
        order = sorted(range(len(rows)), key=self.position_axes.__getitem__)
        return rows if order == list(range(len(rows))) else rows[order]

    def _save_to_state_dict(self, destination, prefix, keep_vars) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        metadata = getattr(destination, '_metadata', {}).get(prefix[:-1])
        if metadata is not None:
            metadata['position_axes'] = self.position_axes

    def _load_from_state_dict(
        self, state_dict, prefix, local_metadata, strict, missing, unexpected, errors
    ) -> None:
        if self.SIG is None and f'{prefix}SIG' in state_dict:
            errors.append(
                f'{prefix}SIG: the state_dict is of a layer with sigma (interpolation '
                f"'max' or 'gauss'), this one is {self.interpolation!r}"
            )
        saved = self._saved_axes(local_metadata)
        if f'{prefix}P' in state_dict and saved not in (None, self.position_axes):
            errors.append(
                f'{prefix}P: in the state_dict its rows stand for the spatial axes '
                f'{saved}, here for {self.position_axes}; if it is of the published '
                'package, convert it with dcls_mm.conversion.from_published'
            )
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing, unexpected, errors
        )

    def _saved_axes(self, metadata: dict) -> Optional[tuple[int, ...]]:
        """The axes of a state_dict's P, None where its metadata don't tell.

        The published package's layers save torch's default version, 1, and no axes.
        """
        if 'position_axes' in metadata:
            return tuple(metadata['position_axes'])
        if metadata.get('version') == 1 and len(self.position_axes) == self.ndim:
            return published_axes(self.interpolation, self.ndim)
        return None


def _freeze(parameter: nn.Parameter) -> None:
    parameter.requires_grad_(False)
    parameter.grad = None  # else the next step of the optimizer still uses it


def normal_positions(layer: LearnedPositions) -> None:
    """N(0, 0.5 pixels) about the centre, as published for layers learning all axes."""
    nn.init.normal_(layer.P, std=POSITION_STD)
    layer.clamp_positions()


def uniform_positions(layer: LearnedPositions) -> None:
    """Uniform from the first tap to the last, as published for some axes learned."""
    for positions, axis in zip(layer.P, layer.position_axes):
        nn.init.uniform_(positions, *layer.position_limits(axis))


@torch.no_grad()
def grid_positions(layer: LearnedPositions) -> None:
    """The taps of the replaced, ordinary dilated convolution, the last axis fastest.

    Raises:
        ValueError: the layer has another number of elements than the replaced conv has
            taps, or an extent in which the taps do not fit.
    """
    learned = sorted(layer.position_axes)
    taps = []
    for axis in learned:
        size, step = layer.kernel_size[axis], layer.dilation[axis]
        span = step * (size - 1) + 1
        margin = layer.extent[axis] - span
        if margin < 0 or margin % 2:
            raise ValueError(
                "initial_positions='grid' needs a dilated_kernel_size of the replaced "
                "conv's extent, dilation * (kernel_size - 1) + 1, or larger by an even "
                f'number: axis {axis} has {layer.extent[axis]} for {span}'
            )
        first = layer.position_limits(axis)[0] + margin // 2
        taps.append(first + step * torch.arange(size))
    places = torch.cartesian_prod(*taps).view(-1, len(learned))
    if len(places) != layer.kernel_count:
        raise ValueError(
            "initial_positions='grid' needs as many elements as the replaced conv has "
            f'taps: leave kernel_count out or make it {len(places)}, got '
            f'{layer.kernel_count} (kernel_size {layer.kernel_size})'
        )
    for positions, axis in zip(layer.P, layer.position_axes):
        positions.copy_(places[:, learned.index(axis)])


# The values of a layer's argument initial_positions; each fills P in place.
INITIAL_POSITIONS = {
    'normal': normal_positions,
    'uniform': uniform_positions,
    'grid': grid_positions,
}


@torch.no_grad()
def initialize_sigma(layer: LearnedPositions, value: Optional[float]) -> None:
    """Set SIG, where there is one, to ``value`` in pixels, by default the published."""
    if layer.SIG is not None:
        # None where the interpolation was changed to one that does not read SIG.
        published = INTERPOLATIONS[layer.interpolation].initial_sigma or 0.0
        layer.SIG.fill_(published if value is None else value)
