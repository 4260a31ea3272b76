"""Modules for dilated convolution with learnable spacings."""

import math

import torch
from torch import Tensor, nn

from ..functional import INTERPOLATIONS
from ..functional._arguments import (
    IntOrTuple,
    as_bool,
    as_float,
    as_int,
    check_choice,
    check_sigma,
)
from ..functional.interpolation import interpolation_name
from ..functional.scatter import construct_checked
from .formulations import Formulations
from .geometry import grown_padding, layer_geometry
from .plain_kernels import PlainConv, load_plain, start_layer
from .positions import LearnedPositions
from .resizing import adopt, adopts
from .spacing import Spacings
from .starts import INITIAL_POSITIONS, check_spread, initialize_sigma


class DCLSConvNd(LearnedPositions, Formulations):
    """A convolution that learns where its elements sit inside a large kernel.

    It replaces a torch.nn.ConvNd with the same first arguments. By default it has as
    many weights and the same extent. With a larger extent the padding grows by half the
    difference, so that the output size stays the same. ``kernel_size`` may be None if
    ``kernel_count`` and ``dilated_kernel_size`` are given; the padding is then that of
    the extent itself.

    Axes that ``position_axes`` leaves out are dense: there the kernel has the replaced
    conv's taps, each with its own elements along the learned axes.

    The parameters are:

    - weight (out, in // groups, [dense taps,] count);
    - P (learned axes, *weight's shape, without ``out`` if shared), the positions in
      pixels from the kernel's centre, which is tap ``extent // 2``;
    - SIG, shaped like P, in pixels; for 'max' and 'gauss' only;
    - local_weight (out, in // groups, *local_size), with ``local_size`` only;
    - those of the norms ``branch_norms``, if any;
    - bias (out,).

    A state_dict of the convolution that it replaces can be loaded too, without ``P``:
    it starts the layer as :meth:`from_conv` does.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups:
            those of the replaced torch.nn.ConvNd.
        bias, padding_mode, device, dtype: the same.
        kernel_count: number of elements (for each tap of the dense axes); by default
            the number of the replaced conv's taps along the learned axes.
        dilated_kernel_size: extent in pixels; one int for the learned axes, or one per
            axis. By default ``dilation * (kernel_size - 1) + 1``.
        interpolation: 'bilinear' ('v0'), 'triangle' ('v1'), 'max' or 'gauss'.
        position_axes: the spatial axis of each row of P; by default all axes in order.
            ``(1,)`` learns columns only, ``(1, 0)`` puts columns first. If given, it
            also says what P's rows are in a state_dict without metadata.
        per_output_positions: False shares the positions among the output channels.
        formulation: 'construct' builds the dense kernel and convolves with it, 'direct'
            convolves with the taps of the elements alone, and 'sample' samples the
            input at the positions. 'auto' takes whichever of the first two should be
            faster. See :mod:`.formulations`.
        initial_positions: 'normal' (around the centre, published), 'uniform' (anywhere
            in the extent), 'even' (the same, but far from each other) or 'grid' (the
            replaced conv's taps, and those of rings around it if there are as many
            elements).
        initial_spread: standard deviation of 'normal', in pixels; by default 0.5, as
            published.
        initial_sigma: in pixels, for 'max' and 'gauss'; by default the published value.
        learn_positions, learn_sigma: False keeps the initial values.
        integer_positions: whether evaluation rounds the positions to whole pixels.
        local_size: size of a dense kernel in the centre that is learned too and added
            to that of the elements; one int for the learned axes, or one per axis. It
            is odd, or even in an even extent. By default there is none.
        branch_norms: whether a batch norm follows each of the two in training; in
            evaluation they are part of the kernel. See :mod:`.local_branch`.
        elements_from_zero: whether the elements start with weight 0, so that the layer
            starts as its local branch alone, which can be a plain kernel's size.
        spacing: what positions are multiplied by, one number or one per axis, for
            images of another resolution than in training. See :mod:`.spacing`.
        backend: a backend of ``functional.convolve`` to force; None chooses one.

    Raises:
        ValueError, TypeError: an argument doesn't fit; the message names it.

    Example:
        >>> import torch
        >>> from dcls_mm import DCLSConv2d
        >>> layer = DCLSConv2d(8, 8, 7, padding=3, groups=8, dilated_kernel_size=17)
        >>> layer(torch.randn(1, 8, 32, 32)).shape
        torch.Size([1, 8, 32, 32])
        >>> layer.weight.shape, layer.P.shape
        (torch.Size([8, 1, 49]), torch.Size([2, 8, 1, 49]))
        >>> layer.kernel().shape
        torch.Size([8, 1, 17, 17])

    Source: arXiv 2112.03740 (bilinear), 2306.00817 (the others); initial values as in
    the published package.
    """

    # The arguments that from_conv copies from a convolution's attributes.
    CONV_ARGUMENTS: tuple[str, ...] = (
        'in_channels',
        'out_channels',
        'kernel_size',
        'stride',
        'padding',
        'dilation',
        'groups',
        'padding_mode',
    )

    # Whether a plain convolution's kernel in a state_dict becomes elements on its taps.
    accepts_plain_kernels = True

    # The relative error with which the elements reproduced a plain kernel at the start.
    kernel_error = 0.0

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
        kernel_count: int | None = None,
        dilated_kernel_size: IntOrTuple | None = None,
        interpolation: str = 'bilinear',
        position_axes: tuple[int, ...] | None = None,
        per_output_positions: bool = True,
        formulation: str = 'auto',
        initial_positions: str = 'normal',
        initial_spread: float | None = None,
        initial_sigma: float | None = None,
        learn_positions: bool = True,
        learn_sigma: bool = True,
        integer_positions: bool = False,
        local_size: IntOrTuple | None = None,
        branch_norms: bool = False,
        elements_from_zero: bool = False,
        spacing: Spacings = 1.0,
        backend: str | None = None,
    ):
        geometry = layer_geometry(
            self.ndim,
            kernel_size,
            dilation,
            kernel_count,
            dilated_kernel_size,
            position_axes,
        )
        super().__init__(
            in_channels,
            out_channels,
            geometry.extent,
            kernel_size=geometry.kernel_size,
            dilation=geometry.dilation,
            stride=stride,
            padding=grown_padding(padding, geometry),
            groups=groups,
            padding_mode=padding_mode,
            backend=backend,
        )
        self.position_axes = geometry.position_axes
        self.axes_given = position_axes is not None
        self.dense_axes = geometry.dense_axes
        if kernel_count is None:
            kernel_count = math.prod(self.kernel_size[i] for i in self.position_axes)
        self.kernel_count = as_int('kernel_count', kernel_count, minimum=1)
        self.interpolation = interpolation_name(interpolation)
        self.per_output_positions = as_bool(
            'per_output_positions', per_output_positions
        )
        self.formulation = formulation
        self.integer_positions = as_bool('integer_positions', integer_positions)
        self.spacing = spacing
        self.initial_positions = initial_positions
        self.initial_spread = initial_spread
        self.initial_sigma = initial_sigma
        if initial_sigma is not None:
            as_float('initial_sigma', initial_sigma)
        as_bool('learn_positions', learn_positions)
        as_bool('learn_sigma', learn_sigma)
        self._check_choices(learn_sigma)

        shape = self.element_shape
        self.weight = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        placed = shape if per_output_positions else shape[1:]
        rows = len(self.position_axes)
        self.P = nn.Parameter(torch.empty(rows, *placed, device=device, dtype=dtype))
        if INTERPOLATIONS[self.interpolation].has_sigma:
            self.SIG = nn.Parameter(torch.empty_like(self.P))
        else:
            self.register_parameter('SIG', None)
        self.register_local(local_size, branch_norms, elements_from_zero, device, dtype)
        self.register_bias(bias, device, dtype)
        self.reset_parameters()
        if not learn_positions:
            self.freeze_positions()
        if not learn_sigma:
            self.fix_sigma()

    @classmethod
    def from_conv(cls, conv: PlainConv, **options) -> 'DCLSConvNd':
        """Return a layer that computes what ``conv`` does, as a start for training.

        It does so exactly where each element stays on one tap: with 'bilinear' and
        'triangle', and with 'max' at sigma 0. Other elements spread over neighbouring
        taps. Their weights are then the least-squares fit to the kernel of ``conv``,
        and the attribute ``kernel_error`` says what is left: the norm of the
        difference, relative to that kernel's. It is the smaller, the narrower the
        elements are (``initial_sigma``), and if ``kernel_count`` is that of a kernel
        with a ring of taps more, such as 49 for 5x5.

        With ``local_size`` the local branch gets the kernel of ``conv``, and the
        elements weight 0 at their ``initial_positions``. This is exact for every
        interpolation and number of elements.

        Args:
            conv: the torch.nn.ConvNd to replace, with as many axes (transposed for a
                transposed layer); its weights and bias are copied.
            options: keyword arguments of the layer, such as ``dilated_kernel_size``,
                except those that ``conv`` determines.

        Raises:
            TypeError: ``conv`` is of another kind.
            ValueError: ``options`` do not fit it, such as another number of elements
                than its taps, or a local branch smaller than it.

        Example:
            >>> import torch
            >>> from dcls_mm import DCLSConv2d
            >>> conv = torch.nn.Conv2d(8, 8, 7, padding=3, groups=8)
            >>> layer = DCLSConv2d.from_conv(conv, dilated_kernel_size=17)
            >>> x = torch.randn(1, 8, 32, 32)
            >>> torch.allclose(layer(x), conv(x), atol=1e-5)
            True
        """
        return start_layer(cls, conv, options)

    @property
    def dilated_kernel_size(self) -> tuple[int, ...]:
        """The extent in pixels, one int per axis."""
        return self.extent

    @property
    def learned_axes(self) -> list[int]:
        """The axes with learned positions, in order."""
        return sorted(self.position_axes)

    @property
    def element_shape(self) -> tuple[int, ...]:
        """The shape of weight: (*kernel_channels, *dense taps, count)."""
        dense = (self.extent[axis] for axis in self.dense_axes)
        return (*self.kernel_channels, *dense, self.kernel_count)

    def reset_parameters(self) -> None:
        """Set the initial values, which are the published ones by default."""
        super().reset_parameters()
        if self.elements_from_zero:
            nn.init.zeros_(self.weight)
        INITIAL_POSITIONS[self.initial_positions](self)
        initialize_sigma(self)

    def elements(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return weight (*element_shape), positions and sigma, with current values.

        Positions and sigma are (learned axes, *element_shape), with rows in the order
        of the spatial axes; ``out`` is 1 if the outputs share them. Both are in pixels,
        and sigma is None if the interpolation has none.
        """
        positions: Tensor = self.P
        sigma: Tensor | None = self.SIG
        if sorted(self.position_axes) != list(self.position_axes):
            positions = self._in_axis_order(positions)
            sigma = None if sigma is None else self._in_axis_order(sigma)
        if not self.per_output_positions:
            positions = positions.unsqueeze(1)
            sigma = None if sigma is None else sigma.unsqueeze(1)
        if self._spacing is not None:
            positions, sigma = self.spaced(positions, sigma)
        if self.integer_positions and not self.training:
            positions = positions.round()
        return self.weight, positions, sigma

    def kernel(self) -> Tensor:
        """Return the kernel of evaluation, (*kernel_channels, *kernel_extent).

        That of training differs with ``branch_norms`` alone, where the norms take the
        statistics of the batch.
        """
        kernel = self._element_kernel()
        return kernel if self.local_weight is None else self.with_local_kernel(kernel)

    def _element_kernel(self) -> Tensor:
        """Return the kernel constructed from the elements, without a local branch."""
        weight, positions, sigma = self.elements()
        name = self.interpolation  # it may have been assigned, and so may the extent
        if name not in INTERPOLATIONS:
            name = interpolation_name(name)
        rule = INTERPOLATIONS[name]
        if (sigma is None) is not (rule.initial_sigma is None):
            check_sigma(sigma, positions, name, rule.has_sigma)
        axes = sorted(self.position_axes)
        taps = self.extent if self._spacing is None else self.kernel_extent
        extent = tuple(map(taps.__getitem__, axes))
        kernel = construct_checked(weight, positions, sigma, extent, name, self.backend)
        if not self.dense_axes:
            return kernel
        made = [2 + i for i in (*self.dense_axes, *axes)]
        return kernel.movedim(list(range(2, 2 + self.ndim)), made)

    def adopts_extent(self, notes) -> bool:
        """Return whether the layer takes extent and count from a state_dict's notes."""
        return adopts(self, notes)

    def adopt(self, state_dict, prefix, notes) -> None:
        """Take over the extent and number of elements of a layer that was adapted."""
        adopt(self, state_dict, prefix, notes)

    def _load_from_state_dict(
        self, state_dict, prefix, local_metadata, *others
    ) -> None:
        """Load parameters, or start from a plain convolution's, as from_conv does."""
        if load_plain(self, state_dict, prefix, local_metadata):
            local_metadata = {**local_metadata, **self.notes()}
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *others)

    def _check_choices(self, learn_sigma: bool) -> None:
        self._check_formulation()
        check_choice('initial_positions', self.initial_positions, INITIAL_POSITIONS)
        check_spread(self.initial_positions, self.initial_spread)
        has_sigma = INTERPOLATIONS[self.interpolation].has_sigma
        if not has_sigma and (self.initial_sigma is not None or not learn_sigma):
            raise ValueError(
                f'interpolation {self.interpolation!r} has no sigma: leave out '
                'initial_sigma and learn_sigma'
            )

    def extra_repr(self) -> str:
        parts = [
            super().extra_repr(),
            f'kernel_count={self.kernel_count}',
            f'dilated_kernel_size={self.extent}',
            f'interpolation={self.interpolation!r}',
        ]
        optional = [
            ('position_axes', tuple(range(self.ndim))),
            ('per_output_positions', True),
            ('formulation', 'auto'),
            ('integer_positions', False),
            ('local_size', None),
            ('spacing', (1.0,) * self.ndim),
        ]
        for name, default in optional:
            if getattr(self, name) != default:
                parts.append(f'{name}={getattr(self, name)!r}')
        if self.kernel_error:
            parts.append(f'kernel_error={self.kernel_error:.2g}')
        return ', '.join(parts)


class DCLSConv1d(DCLSConvNd):
    """:class:`DCLSConvNd` over (batch, channels, length)."""

    ndim = 1


class DCLSConv2d(DCLSConvNd):
    """:class:`DCLSConvNd` over (batch, channels, height, width)."""

    ndim = 2


class DCLSConv3d(DCLSConvNd):
    """:class:`DCLSConvNd` over (batch, channels, depth, height, width)."""

    ndim = 3
