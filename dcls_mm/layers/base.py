"""The base class of all convolutions that construct their kernel."""

import math

import torch
from torch import Tensor, nn

from ..functional._arguments import (
    IntOrTuple,
    as_bool,
    as_int,
    as_tuple,
    check_choice,
)
from ..functional._torch import capturing
from ..functional.backends import BACKENDS
from ..functional.convolution import (
    check_input,
    convolve_checked,
    padding_sides,
)
from ..functional.padding import check_padding_mode
from ..functional.sparse_kernel import SparseKernel
from .geometry import margins
from .kept_kernel import KeptKernel, made_from
from .noted import NotedState
from .shared import SharedParameters


class ConstructedConvNd(SharedParameters, NotedState):
    """A convolution whose kernel a subclass constructs from its parameters.

    Subclasses set ``ndim``, create their parameters and then the bias, with
    :meth:`register_bias`, and define :meth:`kernel`.

    In evaluation without gradients the kernel is constructed once and kept. It is
    dropped if an attribute, a parameter or a buffer of the layer, or of a module inside
    it, is replaced or written in place, and if the module is moved, converted or
    switched by ``train()`` or ``eval()``. A write through ``parameter.data`` goes
    unnoticed, as torch doesn't record it: call ``eval()`` again after one. Inside
    torch.compile and in a CUDA graph the kernel is constructed in every call.

    Args:
        in_channels, out_channels: as in torch.nn.ConvNd.
        extent: taps of the kernel per axis, (ndim,).
        kernel_size, dilation: those of the replaced convolution, kept for code that
            reads them from a conv.
        stride, padding, groups, padding_mode: as in torch.nn.ConvNd, for a kernel of
            ``extent`` taps.
        backend: a backend of ``functional.convolve`` to force. None chooses one, unless
            ``functional.use_backend`` forces one.

    Raises:
        ValueError, TypeError: an argument doesn't fit; the message names it.
    """

    ndim: int
    transposed = False
    kernel_depends_on_input = False  # then kernel() raises a NotImplementedError
    weight: nn.Parameter
    bias: nn.Parameter | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        extent: tuple[int, ...],
        *,
        kernel_size: tuple[int, ...],
        dilation: tuple[int, ...],
        stride: IntOrTuple,
        padding: IntOrTuple | str,
        groups: int,
        padding_mode: str,
        backend: str | None,
    ):
        super().__init__()
        self.in_channels = as_int('in_channels', in_channels, minimum=1)
        self.out_channels = as_int('out_channels', out_channels, minimum=1)
        self.groups = as_int('groups', groups, minimum=1)
        for name in ('in_channels', 'out_channels'):
            if getattr(self, name) % self.groups:
                raise ValueError(
                    f'groups must divide {name} ({getattr(self, name)}), '
                    f'got groups={groups}'
                )
        self.extent = extent
        self.kernel_size = kernel_size
        self.dilation = dilation
        self.stride = as_tuple('stride', stride, self.ndim, minimum=1)
        self.output_padding = (0,) * self.ndim
        padding_sides(padding, extent, self.stride)
        self.padding = (
            padding
            if isinstance(padding, str)
            else as_tuple('padding', padding, self.ndim, minimum=0)
        )
        check_padding_mode(padding_mode)
        self.padding_mode = padding_mode
        if backend is not None:
            check_choice('backend', backend, BACKENDS)
        self.backend = backend
        self._kept_kernel: KeptKernel | None = None

    def register_bias(self, bias: bool, device=None, dtype=None) -> None:
        """Create the parameter ``bias``, (out,), or None.

        Call it last: the order is then that of torch.nn.ConvNd, by which an optimizer's
        state_dict identifies its parameters.
        """
        parameter = None
        if as_bool('bias', bias):
            parameter = nn.Parameter(
                torch.empty(self.out_channels, device=device, dtype=dtype)
            )
        self.register_parameter('bias', parameter)

    def reset_parameters(self) -> None:
        """Give ``weight`` and ``bias`` the initial values of torch.nn.ConvNd."""
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(self.weight[0].numel())
            nn.init.uniform_(self.bias, -bound, bound)

    @property
    def kernel_channels(self) -> tuple[int, int]:
        """(out, in // groups), or (in, out // groups) if transposed."""
        if self.transposed:
            return self.in_channels, self.out_channels // self.groups
        return self.out_channels, self.in_channels // self.groups

    def kernel(self) -> Tensor:
        """Return the dense kernel, (*kernel_channels, *extent), differentiable.

        It may leave out taps that are zero, or have taps beyond the extent, the same
        number at both ends of an axis.
        """
        raise NotImplementedError(f'{type(self).__name__} must define kernel()')

    def kernel_bias(self) -> Tensor | None:
        """Return what is added to the convolution with :meth:`kernel`, (out,)."""
        return self.bias

    def forward(self, x: Tensor) -> Tensor:
        """Convolve ``x``, (batch, in, *size), to (batch, out, *out_size)."""
        check_input(x, self.ndim, self.in_channels)
        return self._convolve(
            x, self._kernel_for_call(), self.kernel_bias(), self.backend
        )

    def _convolve(
        self,
        x: Tensor,
        kernel: Tensor | SparseKernel,
        bias: Tensor | None,
        backend: str | None,
    ) -> Tensor:
        return convolve_checked(
            x,
            kernel,
            bias,
            self.stride,
            self.padding_sides(kernel),
            self.groups,
            self.padding_mode,
            backend,
        )

    def padding_sides(self, kernel: Tensor | SparseKernel) -> list[tuple[int, int]]:
        """Return (before, after) per axis, less what ``kernel`` leaves out.

        They may be negative, and larger where it has taps beyond the extent.
        """
        sides = padding_sides(self.padding, self.extent, self.stride)
        if kernel.shape[2:] == self.extent:
            return sides
        cropped = margins(kernel.shape[2:], self.extent)
        return [
            (before - first, after - last)
            for (before, after), (first, last) in zip(sides, cropped)
        ]

    def _kernel_for_call(self) -> Tensor | SparseKernel:
        """Return the kernel in the form that leaves most backends to choose from."""
        if self._makes_anew():
            return self._kernel_to_learn()
        kernel, kept = self._current_kernel(), self._kept_kernel
        return kernel if kept is None or kept.kernel is not kernel else kept.sparse

    def _kernel_to_learn(self) -> Tensor | SparseKernel:
        """Return the kernel, or what it is constructed from, differentiable."""
        return self.kernel()

    def _makes_anew(self) -> bool:
        """Return whether each call has to make the kernel.

        Neither a compiled nor a captured graph would notice that a parameter has
        changed, and what is captured has no values to keep yet.
        """
        return (
            self.training
            or torch.is_grad_enabled()
            or torch.compiler.is_compiling()
            or capturing()
        )

    def _current_kernel(self) -> Tensor:
        if self._makes_anew():
            return self.kernel()
        kept = self._kept_kernel
        if kept is not None and kept.stands(self):
            return kept.kernel
        self._kept_kernel = None
        kernel = self.kernel()
        things = made_from(self)  # only now, as kernel() may have replaced some
        if things is None:
            return kernel
        return KeptKernel(self, kernel.contiguous(), things).kernel

    def forget(self) -> None:
        """Drop what is kept from earlier calls, here the kernel of evaluation."""
        self._kept_kernel = None

    def train(self, mode: bool = True):
        self.forget()
        return super().train(mode)

    def _apply(self, *args, **kwargs):
        self.forget()
        return super()._apply(*args, **kwargs)

    def __getstate__(self) -> dict:
        return {**vars(self), '_kept_kernel': None}

    def extra_repr(self) -> str:
        parts = [
            f'{self.in_channels}, {self.out_channels}',
            f'kernel_size={self.kernel_size}',
            f'stride={self.stride}',
        ]
        optional = [
            ('padding', self.padding, (0,) * self.ndim),
            ('dilation', self.dilation, (1,) * self.ndim),
            ('groups', self.groups, 1),
            ('bias', self.bias is not None, True),
            ('padding_mode', self.padding_mode, 'zeros'),
            ('backend', self.backend, None),
        ]
        parts += [f'{k}={v!r}' for k, v, default in optional if v != default]
        return ', '.join(parts)
