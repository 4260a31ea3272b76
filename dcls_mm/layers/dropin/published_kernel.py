"""The kernel-constructing modules of the published `dcls` package, under its names."""

from typing import Any

import torch
from torch import Tensor, nn

from ...functional import INTERPOLATIONS, construct_kernel
from ...functional._arguments import IntOrTuple, as_int, as_tuple
from ..published import published_axes, published_interpolation
from .signatures import extends


class ConstructKernelNd(nn.Module):
    """A parameterless module that constructs the kernel of a published layer.

    It is called with (W, P, SIG), or (W, P) for 'v0' and 'v1', in a layer's shapes. The
    ``DCK`` of a layer is such a module, made on access: it reads and sets the layer's
    ``version`` and is not one of its children.

    Args:
        out_channels, in_channels, groups, kernel_count: as in a layer.
        dilated_kernel_size: extent in pixels along the learned axes.
        version: 'v0' (bilinear), 'v1' (triangle), 'max' or 'gauss'.

    Raises:
        ValueError, TypeError: an argument is invalid; the message names it.
    """

    ndim: int

    def __init__(
        self,
        out_channels: int,
        in_channels: int,
        groups: int,
        kernel_count: int,
        dilated_kernel_size: IntOrTuple,
        version: str,
    ):
        super().__init__()
        self.out_channels = as_int('out_channels', out_channels, minimum=1)
        self.in_channels = as_int('in_channels', in_channels, minimum=1)
        self.groups = as_int('groups', groups, minimum=1)
        self.kernel_count = as_int('kernel_count', kernel_count, minimum=1)
        self.dilated_kernel_size = as_tuple(
            'dilated_kernel_size', dilated_kernel_size, self.ndim, minimum=1
        )
        self._layer: tuple[Any] = (None,)  # a tuple keeps it from becoming a submodule
        self.version = version

    @classmethod
    def of(cls, layer: nn.Module) -> 'ConstructKernelNd':
        """Make the module of a layer, whose ``version`` is the layer's."""
        kernel = cls.__new__(cls)
        nn.Module.__init__(kernel)
        for name in cls.COPIED:
            setattr(kernel, name, getattr(layer, name))
        kernel._layer = (layer,)
        return kernel

    COPIED: tuple[str, ...] = (
        'out_channels',
        'in_channels',
        'groups',
        'kernel_count',
        'dilated_kernel_size',
    )

    @property
    def version(self) -> str:
        """The kind of kernel: 'v0', 'v1', 'max' or 'gauss'."""
        (layer,) = self._layer
        return self._published_version if layer is None else layer.version

    @version.setter
    def version(self, version: str) -> None:
        (layer,) = self._layer
        if layer is None:
            published_interpolation(version)
            self._published_version = version
        else:
            layer.version = version

    def forward(self, W: Tensor, P: Tensor, SIG: Tensor | None = None) -> Tensor:
        """Construct the kernel, (out, in // groups, *dilated_kernel_size).

        Raises:
            TypeError: an argument is not a tensor; 'max' and 'gauss' need SIG.
            ValueError: a shape doesn't match.
        """
        interpolation = published_interpolation(self.version)
        (layer,) = self._layer
        axes = published_axes(interpolation, self.ndim)
        if layer is not None:
            axes = layer.position_axes
        given: dict[str, Any] = {'W': W, 'P': P}
        if INTERPOLATIONS[interpolation].has_sigma:
            given['SIG'] = SIG
        for name, value in given.items():
            if not isinstance(value, Tensor):
                raise TypeError(
                    f'{name} must be a tensor for version {self.version!r}, '
                    f'got {type(value).__name__}'
                )
        order = sorted(range(len(axes)), key=axes.__getitem__)
        placed = []
        for name, rows in list(given.items())[1:]:
            if rows.shape != (len(axes), *W.shape):
                raise ValueError(
                    f"{name} must have a row of W's shape {tuple(W.shape)} for each of "
                    f'{len(axes)} axes, got {tuple(rows.shape)}'
                )
            # By integers: an index made of a list would be copied to the device.
            placed.append(torch.stack([rows[i] for i in order]))
        return construct_kernel(
            W,
            *placed,
            kernel_size=self.dilated_kernel_size,
            interpolation=interpolation,
        )

    def extra_repr(self) -> str:
        parts = [
            f'{self.in_channels}, {self.out_channels}',
            f'kernel_count={self.kernel_count}',
            f'version={self.version}',
            f'dilated_kernel_size={self.dilated_kernel_size}',
        ]
        if self.groups != 1:
            parts.append(f'groups={self.groups}')
        return ', '.join(parts)


class ConstructKernel1d(ConstructKernelNd):
    """:class:`ConstructKernelNd` along one axis."""

    ndim = 1


class ConstructKernel2d(ConstructKernelNd):
    """:class:`ConstructKernelNd` along two axes."""

    ndim = 2


class ConstructKernel3d(ConstructKernelNd):
    """:class:`ConstructKernelNd` along three axes."""

    ndim = 3


class ConstructKernelN_1d(ConstructKernelNd):
    """:class:`ConstructKernelNd` along the last axis, with dense taps along the others.

    W is (out, in // groups, *dense_kernel_size, count). The kernel is (out,
    in // groups, *dense_kernel_size, *dilated_kernel_size). Unlike the published
    module, this one accepts 'v0' too.
    """

    ndim = 1
    dense_axes: int
    COPIED = (*ConstructKernelNd.COPIED, 'dense_kernel_size')

    @extends(ConstructKernelNd.__init__, before='dilated_kernel_size')
    def __init__(self, *, dense_kernel_size: IntOrTuple, **arguments):
        super().__init__(**arguments)
        self.dense_kernel_size = as_tuple(
            'dense_kernel_size', dense_kernel_size, self.dense_axes, minimum=1
        )


class ConstructKernel2_1d(ConstructKernelN_1d):
    """:class:`ConstructKernelN_1d` for two axes."""

    dense_axes = 1


class ConstructKernel3_1d(ConstructKernelN_1d):
    """:class:`ConstructKernelN_1d` for three axes."""

    dense_axes = 2
