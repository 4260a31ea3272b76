"""Convolutions whose kernel is a network of the coordinates and has a learned size."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ...functional._arguments import IntOrTuple, as_bool, as_float
from ...functional._torch import ask, capturing, transforms_active
from ...functional.continuous import (
    gaussian_profile,
    mask_reach,
    tap_coordinates,
    taps_within,
)
from ...functional.sparse_kernel import SparseKernel
from ..base import ConstructedConvNd
from ..geometry import grown_padding, layer_geometry
from ..noted import other_extent
from .arguments import (
    check_odd,
    checked_interval,
    checked_threshold,
    checked_width,
    flex_extent,
)
from .kept_taps import KeptTaps
from .kernel_nets import MAGNet, build_kernel_net

# The published initial width of the mask, and how many times wider the centres of the
# network's filters are spread.
MASK_WIDTH = 0.075
SPREAD = 1.667

# 4096 x 4096, as the network is evaluated at all taps at once.
MAX_TAPS = 2**24

_CAUSAL = {True: "with padding 'causal'", False: "without padding 'causal'"}


class FlexConvNd(ConstructedConvNd):
    """A convolution with a continuous kernel that learns its size.

    ``K(x) = net(x) * exp(-sum_i ((x_i - mean_i) / width_i)^2 / 2)`` at the coordinates
    x of the taps, which reach from -1 to 1 over the extent. Mean and width of the mask
    are learned. No taps are evaluated where the mask is below ``crop_threshold`` on
    both sides of the middle tap, so that a small kernel costs a small convolution. A
    cropped tap is at most ``crop_threshold * |net(x)|`` (see ``crop_every``). Without a
    mask this is CKConv.

    It replaces a torch.nn.ConvNd as :class:`.dcls.DCLSConvNd` does: with an extent
    larger than the replaced conv's, the padding grows by half the difference.

    The parameters are mask_mean and mask_width (axes,), in coordinates; those of
    ``net``; and bias (out,). The network's last layer is initially scaled so that an
    output has the variance of independent inputs.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups:
            those of the replaced torch.nn.ConvNd. ``kernel_size`` may be None if
            ``dilated_kernel_size`` is given. With ``padding='causal'``, in 1-d, no
            output depends on later samples, and the mask is initially centred on the
            newest tap.
        bias, padding_mode, device, dtype: the same.
        dilated_kernel_size: the extent of the largest kernel in pixels, odd unless
            causal; by default ``dilation * (kernel_size - 1) + 1``. 'full' means
            ``2 input_size - 1`` and 'same' ``input_size``.
        input_size: pixels of the input along each axis, for 'full' and 'same'.
        kernel_net: a name in ``kernel_nets.KERNEL_NETS`` ('magnet', 'siren', 'mlp'), or
            a dict with the name as ``type`` and the network's arguments, such as
            ``dict(type='magnet', hidden_channels=32, num_layers=3)``.
        mask_width: initial width in coordinates, one number or one per axis; None for
            no mask (CKConv).
        learn_mask: False keeps the initial mask.
        crop_threshold: between 0 and 1; None evaluates all taps.
        crop_every: how many steps of the optimizer pass before the host reads in
            training how many taps to evaluate, for which it waits for a GPU. In between
            the number stays: where the mask has grown since it was read, cropped taps
            may exceed ``crop_threshold * |net(x)|``. A resumed training reads anew. By
            default every call reads. None never does: it evaluates all taps and sets
            the cropped ones to zero, so that the convolution costs as much as the
            largest kernel's. Evaluation reads once for each kernel that it makes.
        resolution: how many times finer than in training the inputs are sampled. See
            :meth:`set_resolution`.
        backend: a backend of ``functional.convolve`` to force; None chooses one.

    Raises:
        ValueError, TypeError: an argument doesn't fit; the message names it.

    Example:
        >>> import torch
        >>> from dcls_mm import FlexConv2d
        >>> layer = FlexConv2d(8, 8, 7, padding=3, groups=8, dilated_kernel_size=17)
        >>> layer(torch.randn(1, 8, 32, 32)).shape
        torch.Size([1, 8, 32, 32])

    Source: arXiv 2110.08059, and 2102.02611 (CKConv).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntOrTuple | None = None,
        stride: IntOrTuple = 1,
        padding: IntOrTuple | str = 0,
        dilation: IntOrTuple = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = 'zeros',
        device=None,
        dtype=None,
        *,
        dilated_kernel_size: IntOrTuple | str | None = None,
        input_size: int | None = None,
        kernel_net: str | dict[str, Any] = 'magnet',
        mask_width: float | tuple[float, ...] | None = MASK_WIDTH,
        learn_mask: bool = True,
        crop_threshold: float | None = 0.1,
        crop_every: int | None = 1,
        resolution: float = 1.0,
        backend: str | None = None,
    ):
        causal = padding == 'causal'
        if causal and (self.ndim > 1 or padding_mode != 'zeros'):
            raise ValueError(
                "padding 'causal' needs 1 axis and padding_mode 'zeros', got "
                f'{self.ndim} and {padding_mode!r}'
            )
        extent = flex_extent(dilated_kernel_size, input_size, causal)
        if kernel_size is None and extent is None:
            raise ValueError(
                'kernel_size may be left out only where dilated_kernel_size is given'
            )
        geometry = layer_geometry(
            self.ndim,
            extent if kernel_size is None else kernel_size,
            dilation,
            None,
            extent,
            None,
        )
        if not causal:
            check_odd(geometry.extent)
            padding = grown_padding(padding, geometry)
        super().__init__(
            in_channels,
            out_channels,
            geometry.extent,
            kernel_size=geometry.kernel_size,
            dilation=geometry.dilation,
            stride=stride,
            padding='valid' if causal else padding,
            groups=groups,
            padding_mode=padding_mode,
            backend=backend,
        )
        self.causal = causal
        self.trained_extent = self.extent
        self.trained_padding = 'causal' if causal else self.padding
        self.crop_threshold = checked_threshold(crop_threshold)
        self.crop_every = checked_interval(crop_every)
        self._kept_taps: KeptTaps | None = None
        self.initial_width = checked_width(mask_width, self.ndim)
        self.initial_mean = 1.0 if self.causal else 0.0
        as_bool('learn_mask', learn_mask)
        if self.initial_width is None:
            if not learn_mask:
                raise ValueError(
                    'learn_mask must be left out where mask_width is None (no mask)'
                )
            self.register_parameter('mask_mean', None)
            self.register_parameter('mask_width', None)
        else:
            self.mask_mean = nn.Parameter(torch.empty(self.ndim), learn_mask)
            self.mask_width = nn.Parameter(torch.empty(self.ndim), learn_mask)
        spread = 1.0 if self.initial_width is None else SPREAD * max(self.initial_width)
        self.net = build_kernel_net(
            kernel_net, self.ndim, math.prod(self.kernel_channels), spread
        )
        self.register_bias(bias)
        self.set_resolution(resolution)
        self.reset_parameters()
        self.to(device=device, dtype=dtype)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Set the initial values; see the class."""
        if self.mask_width is not None:
            self.mask_mean.fill_(self.initial_mean)
            self.mask_width.copy_(torch.tensor(self.initial_width))
        self.net.reset_parameters()
        # The last layer's bias is zero, so the kernel is linear in its weight.
        power = self.kernel().square().sum() / self.kernel_channels[0]
        # In a tiny ReLU network all units may be off, and the power zero.
        self.net.output.weight.mul_(power.rsqrt().where(power > 0, 1.0))
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def set_resolution(self, resolution: float) -> None:
        """Adapt to inputs sampled ``resolution`` times as finely as in training.

        The kernel covers the same part of the picture with more taps. Its values are
        divided by ``resolution ** axes``, as that many times more are summed up. Extent
        and padding change accordingly.

        Raises:
            ValueError, TypeError: ``resolution`` is not a positive number, gives more
                than 2^24 taps, or gives a negative padding.
        """
        if as_float('resolution', resolution) <= 0:
            raise ValueError(f'resolution must be a positive number, got {resolution}')
        extent = tuple(
            taps_within(2.0, size, resolution, self.causal)
            for size in self.trained_extent
        )
        if math.prod(extent) > MAX_TAPS:
            raise ValueError(
                f'resolution {resolution} and dilated_kernel_size '
                f'{self.trained_extent} make a kernel of {extent}, more than '
                f'{MAX_TAPS} taps'
            )
        padding = self.trained_padding
        if not isinstance(padding, str):
            padding = tuple(
                p + (new - old) // 2
                for p, new, old in zip(padding, extent, self.trained_extent)
            )
            if min(padding) < 0:
                raise ValueError(
                    f'resolution {resolution} makes the extent {extent}, too small for '
                    f'the padding {self.trained_padding} to shrink with it'
                )
        self.resolution, self.extent, self.padding = resolution, extent, padding

    def kernel(self) -> Tensor:
        """Return the kernel, (*kernel_channels, *taps), without what the mask crops.

        The taps are those about the middle one (causal: the newest ones). In a compiled
        graph, a CUDA graph or a transform of torch.func, shapes can't depend on values:
        there the kernel has all taps of the extent, with zeros for the cropped ones.
        """
        weight = self.net.output.weight
        like = weight.new_empty(0, dtype=torch.promote_types(weight.dtype, torch.float))
        state = ask(like)
        fixed = (
            (self.training and self.crop_every is None)
            or state.compiling
            or capturing()
            or transforms_active(*self.parameters())
        )
        with state.without_autocast():
            axes = [
                tap_coordinates(taps, size, self.resolution, self.causal, like)
                for taps, size in zip(
                    self.extent if fixed else self._current_taps(), self.trained_extent
                )
            ]
            grid = torch.cartesian_prod(*axes).view(-1, self.ndim)
            values = self.net(grid).T.contiguous() / self.resolution**self.ndim
            kernel = values.view(*self.kernel_channels, *map(len, axes))
            if self.mask_width is not None:
                kernel = kernel * self._mask(axes, zero_cropped=fixed)
            return kernel.to(weight.dtype)

    def notes(self) -> dict[str, Any]:
        """Return the extent that the kernel spans, and whether it is causal."""
        return {'extent': self.trained_extent, 'causal': self.causal}

    def misreading(
        self, state_dict: Mapping, prefix: str, notes: Mapping[str, Any]
    ) -> str | None:
        """Compare extent and causality; see the base."""
        key = f'{prefix}net.output.weight'
        causal = notes.get('causal', self.causal)
        if causal is not self.causal:
            return (
                f'{key}: the state_dict is of a layer {_CAUSAL[causal is True]}, this '
                f'one is built {_CAUSAL[self.causal]}'
            )
        return other_extent(key, notes.get('extent'), self.trained_extent)

    def padding_sides(self, kernel: Tensor | SparseKernel) -> list[tuple[int, int]]:
        """Return (before, after) per axis; a causal kernel has no padding after."""
        if self.causal:
            return [(kernel.shape[-1] - 1, 0)]
        return super().padding_sides(kernel)

    def highest_frequencies(
        self, deviations: float = 2.0, with_mask: bool = True
    ) -> Tensor:
        """Return those of the filters and the mask, in periods per unit of coordinates.

        Their sum bounds the frequency of the kernel. A grid of taps can represent
        frequencies up to :attr:`nyquist_frequency`; those above it change with the
        resolution.

        Args:
            deviations: number of standard deviations of the Gaussian spectra (of
                envelopes and mask) that count; 2 as published.
            with_mask: whether the mask counts too, if there is one.

        Returns:
            (filters,) or, with the mask last, (filters + 1,).

        Raises:
            ValueError: the network is not a 'magnet', so it has no known bound.

        Source: arXiv 2110.08059, section on anti-aliasing.
        """
        if not isinstance(self.net, MAGNet):
            raise ValueError(
                "only a kernel_net of type 'magnet' has a known highest frequency, the "
                f'layer has a {type(self.net).__name__}'
            )
        frequencies = self.net.highest_frequencies(deviations)
        of_mask = self.mask_frequency(deviations) if with_mask else None
        if of_mask is None:
            return frequencies
        return torch.cat((frequencies, of_mask.unsqueeze(0)))

    def mask_frequency(self, deviations: float = 2.0) -> Tensor | None:
        """Return by how much the mask spreads frequencies, in periods per unit.

        Args:
            deviations: see :meth:`highest_frequencies`.

        Returns:
            ``deviations / (2 pi |width|)`` of the narrowest axis; None without a mask.
        """
        if self.mask_width is None:
            return None
        return deviations / (2 * math.pi * self.mask_width.abs().amin())

    @property
    def nyquist_frequency(self) -> float:
        """That of the taps in training, in periods per unit; the lowest of all axes."""
        return (min(self.trained_extent) - 1) / 4

    def forget(self) -> None:
        """Drop the kept kernel, and the number of taps that was read."""
        super().forget()
        self._kept_taps = None

    def __getstate__(self) -> dict:
        return {**super().__getstate__(), '_kept_taps': None}

    def _load_from_state_dict(self, *arguments) -> None:
        self.forget()
        super()._load_from_state_dict(*arguments)

    def _current_taps(self) -> tuple[int, ...]:
        """Return how many taps of each axis to evaluate; see ``crop_every``."""
        threshold, every = self.crop_threshold, self.crop_every
        if self.mask_width is None or threshold is None or self.mask_width.is_meta:
            return self.extent
        if not self.training or every is None or every == 1:
            return self._needed_taps(threshold)
        mask = self.mask_mean, self.mask_width
        settings = every, threshold, self.extent
        kept = self._kept_taps
        if kept is None or not kept.serve(mask, settings):
            taps = self._needed_taps(threshold)
            kept = KeptTaps(taps, every, mask, settings)
            self._kept_taps = kept
        return kept.taps

    def _needed_taps(self, threshold: float) -> tuple[int, ...]:
        """Read the mask, and return how many taps of each axis it leaves."""
        mask = torch.stack((self.mask_mean, self.mask_width)).tolist()
        return tuple(
            taps_within(
                mask_reach(mean, width, threshold, self.causal),
                size,
                self.resolution,
                self.causal,
            )
            for mean, width, size in zip(*mask, self.trained_extent)
        )

    def _mask(self, axes: list[Tensor], zero_cropped: bool) -> Any:
        """Return the mask at the taps of each axis, (*taps)."""
        mask = 1.0
        for axis, x in enumerate(axes):
            mean, width = self.mask_mean[axis].to(x), self.mask_width[axis].to(x)
            profile = gaussian_profile(x, mean, width)
            if zero_cropped and self.crop_threshold is not None:
                reach = mask_reach(mean, width, self.crop_threshold, self.causal)
                distance = 1 - x if self.causal else x.abs()
                profile = profile * (distance <= reach)
            mask = mask * profile.view(-1, *[1] * (self.ndim - 1 - axis))
        return mask

    def extra_repr(self) -> str:
        parts = [
            super().extra_repr(),
            f'dilated_kernel_size={self.trained_extent}',
            f'mask_width={self.initial_width}',
            f'crop_threshold={self.crop_threshold}',
        ]
        if self.crop_every != 1:
            parts.append(f'crop_every={self.crop_every}')
        if self.resolution != 1:
            parts.append(f'resolution={self.resolution}')
        return ', '.join(parts)


class FlexConv1d(FlexConvNd):
    """:class:`FlexConvNd` over (batch, channels, length)."""

    ndim = 1


class FlexConv2d(FlexConvNd):
    """:class:`FlexConvNd` over (batch, channels, height, width)."""

    ndim = 2
