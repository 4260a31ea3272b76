"""The common base of the published `dcls` package's layers."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ...functional import INTERPOLATIONS, convolve
from ...functional._arguments import IntOrTuple, as_int, as_tuple
from ...functional._torch import transforms_active
from ...functional.convolution import padding_sides
from ..dcls import DCLSConvNd
from ..published import (
    is_published,
    published_axes,
    published_interpolation,
    published_shifts,
    published_version,
)
from .published_kernel import ConstructKernelNd


class PublishedLayer(DCLSConvNd):
    """The published arguments, parameters and row order on :class:`.dcls.DCLSConvNd`.

    The outputs and gradients are the published ones except where those are wrong. Here
    every row of P counts from the centre of its own axis, positions are clamped to the
    last tap of an even extent too, and ``Dcls2_1d`` has the usual width of 'gauss'. A
    published state_dict that depends on the first or the last of these is refused
    because it would compute something else: convert it with
    ``dcls_mm.conversion.from_published``.

    Args:
        in_channels, out_channels, stride, groups, bias, padding_mode: as in
            torch.nn.ConvNd.
        kernel_count: number of elements.
        padding: as in torch.nn.ConvNd, for the dilated kernel.
        dilated_kernel_size: extent in pixels, one int or one per axis.
        version: 'v0' (bilinear), 'v1' (triangle), 'max' or 'gauss'; may be assigned.
        position_axes, initial_positions, backend: as in DCLSConvNd; not published.

    Raises:
        ValueError, TypeError: an argument is invalid; the message names it.
    """

    # The published list, for code that reads it.
    __constants__ = [
        'stride',
        'padding',
        'dilated_kernel_size',
        'groups',
        'padding_mode',
        'output_padding',
        'in_channels',
        'out_channels',
        'kernel_count',
        'version',
    ]
    kernel_module: type[ConstructKernelNd]
    accepts_plain_kernels = False
    accepts_spacing = False
    adaptable = False
    _kept_values: list[Tensor] = []  # what the kept kernel was made of; never mutated

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_count: int,
        stride: IntOrTuple = 1,
        padding: IntOrTuple | str = 0,
        dilated_kernel_size: IntOrTuple = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = 'zeros',
        version: str = 'gauss',
        *,
        position_axes: tuple[int, ...] | None = None,
        initial_positions: str = 'normal',
        backend: str | None = None,
    ):
        interpolation = published_interpolation(version)
        if position_axes is None:
            position_axes = published_axes(interpolation, self.ndim)
        super().__init__(
            in_channels,
            out_channels,
            stride=stride,
            padding=padding,
            groups=groups,
            bias=bias,
            padding_mode=padding_mode,
            kernel_count=as_int('kernel_count', kernel_count, minimum=1),
            dilated_kernel_size=as_tuple(
                'dilated_kernel_size', dilated_kernel_size, self.ndim, minimum=1
            ),
            interpolation=interpolation,
            position_axes=position_axes,
            initial_positions=initial_positions,
            backend=backend,
        )

    def __setattr__(self, name: str, value) -> None:
        if name == 'DCK':  # torch.nn.Module would register it despite the property
            raise AttributeError(
                'DCK is a view of what the layer itself computes and must not be '
                'replaced: assign its version, or define kernel() in a subclass'
            )
        super().__setattr__(name, value)

    @property
    def version(self) -> str:
        """The kind of kernel: 'v0', 'v1', 'max' or 'gauss'.

        Assigning it, here or to :attr:`DCK`, reinterprets the same parameters, as in
        the published package: the rows of P are read in the new version's order of
        axes; 'v0' and 'v1' keep SIG but ignore it.

        Raises:
            ValueError: there is no such version, or it needs SIG and the layer, made as
                'v0' or 'v1', has none.
        """
        return published_version(self.interpolation)

    @version.setter
    def version(self, version: str) -> None:
        interpolation = published_interpolation(version)
        if INTERPOLATIONS[interpolation].has_sigma and self.SIG is None:
            raise ValueError(
                f"version can't become {version!r}, which needs SIG: a layer made as "
                f"{self.version!r} has none; make it as 'max' or 'gauss'"
            )
        if self.position_axes == published_axes(self.interpolation, self.ndim):
            self.position_axes = published_axes(interpolation, self.ndim)
        self.interpolation = interpolation
        self._kept_kernel = None

    @property
    def DCK(self) -> ConstructKernelNd:
        """The module that constructs the kernel, callable with (W, P, SIG)."""
        return self.kernel_module.of(self)

    @property
    def _reversed_padding_repeated_twice(self) -> tuple[int, ...]:
        """The padding as torch.nn.functional.pad takes it, the last axis first."""
        sides = padding_sides(self.padding, self.extent, self.stride)
        return tuple(n for side in reversed(sides) for n in side)

    def forward(self, input: Tensor) -> Tensor:
        """Map (batch, in, *size) to (batch, out, *out_size), as torch.nn.ConvNd."""
        return self._conv_forward(input, self.weight, self.bias, self.P, self.SIG)

    def _conv_forward(
        self,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        P: Tensor,
        SIG: Tensor | None,
    ) -> Tensor:
        """Convolve with the given parameters, which need not be the layer's own."""
        own = self.weight, self.bias, self.P, self.SIG
        if all(mine is given for mine, given in zip(own, (weight, bias, P, SIG))):
            return super().forward(input)
        kernel = self.DCK(weight, P, SIG)
        return convolve(
            input,
            kernel.reshape(*kernel.shape[:2], *self.extent),
            bias,
            stride=self.stride,
            padding=self.padding,
            groups=self.groups,
            padding_mode=self.padding_mode,
            backend=self.backend,
        )

    def _current_kernel(self) -> Tensor:
        """See the base class; this also notices a write through ``.data``.

        Code for the published package writes this way, as that package keeps no kernel.
        Such a write leaves no trace, so the values are compared. If they can't be read,
        or comparing would wait for a device, no kernel is kept.
        """
        if self.training or torch.is_grad_enabled() or torch.compiler.is_compiling():
            return super()._current_kernel()
        values = [p for p in (self.weight, self.P, self.SIG) if p is not None]
        if transforms_active(*values) or not all(map(_can_be_compared, values)):
            return self.kernel()
        kept = self._kept_values
        if len(kept) != len(values) or not all(map(_equal, kept, values)):
            self._kept_kernel = None
            self._kept_values = [value.detach().clone() for value in values]
        return super()._current_kernel()

    def __getstate__(self) -> dict:
        return {**super().__getstate__(), '_kept_values': []}

    def elements(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """See DCLSConvNd; omit a SIG that the version ignores."""
        weight, positions, sigma = super().elements()
        has_sigma = INTERPOLATIONS[self.interpolation].has_sigma
        return weight, positions, sigma if has_sigma else None

    @classmethod
    def from_conv(cls, conv, **options):
        raise TypeError(
            f'{cls.__name__} takes the arguments of the dcls package, not those of '
            f'a convolution: use DCLSConv{cls.ndim}d.from_conv'
        )

    @property
    def dilated_kernel_size(self) -> tuple[int, ...]:
        """The extent in pixels along the learned axes."""
        return tuple(self.extent[axis] for axis in self.learned_axes)

    def clamp_parameters(self) -> None:
        """Call :meth:`clamp_positions`, under its published name."""
        self.clamp_positions()

    def extra_repr(self) -> str:
        parts = [
            f'{self.in_channels}, {self.out_channels}',
            f'kernel_count={self.kernel_count}',
            f'stride={self.stride}',
            f'version={self.version}',
            f'dilated_kernel_size={self.dilated_kernel_size}',
        ]
        optional = [
            ('padding', self.padding, (0,) * self.ndim),
            ('groups', self.groups, 1),
            ('bias', self.bias is not None, True),
            ('padding_mode', self.padding_mode, 'zeros'),
            ('integer_positions', self.integer_positions, False),
            ('backend', self.backend, None),
        ]
        parts += [f'{k}={v!r}' for k, v, default in optional if v != default]
        return ', '.join(parts)

    def _computes_as_published(self) -> bool:
        return not any(published_shifts(self.interpolation, self.dilated_kernel_size))

    def _argument_for(self, interpolation: str) -> str:
        return f'version={published_version(interpolation)!r}'

    def _remedy_for(self, axes: Any) -> str:
        return (
            f'load it in a DCLSConv{self.ndim}d, or convert it with '
            'dcls_mm.conversion.to_published'
        )

    def misreading(
        self, state_dict: Mapping, prefix: str, notes: Mapping[str, Any]
    ) -> str | None:
        """See the base class; also find what the published layer does differently."""
        published = f'{prefix}P' in state_dict and is_published(notes)
        if published and not self._computes_as_published():
            return (
                f'{prefix}P: the state_dict is of the published package, whose '
                f'{type(self).__name__} of version {self.version!r} and extent '
                f'{self.extent} computes something else with it; convert it with '
                f'dcls_mm.conversion.from_published for a DCLSConv{self.ndim}d'
            )
        return super().misreading(state_dict, prefix, notes)


def _can_be_compared(value: Tensor) -> bool:
    return type(value) in (Tensor, nn.Parameter) and value.device.type == 'cpu'


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one, other)
