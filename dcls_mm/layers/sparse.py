"""A depthwise convolution with the taps of its kernels that are not zero."""

import functools
import logging
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ..functional import native_code
from ..functional._torch import ask
from ..functional.convolution import (
    check_alike,
    check_fits,
    check_input,
    convolve_checked,
)
from ..functional.native_code.direct import DTYPES, Taps
from ..functional.operators.direct import kernel_of_taps, taps_of_kernel
from ..functional.padding import pad
from .base import ConstructedConvNd

_logger = logging.getLogger(__name__)


class SparseConvNd(nn.Module):
    """A depthwise convolution that is one operator, ``convolve_taps``; for inference.

    Its time grows with the number of taps and not with the extent. The taps are
    buffers, in the fields of ``Taps``. They load from a layer with another number of
    taps, and a gradient through them is an error.

    The operator runs on a CPU, in float32 and bfloat16, and needs the compiled part.
    Otherwise (another device or dtype, autocast, transforms of torch.func, an export to
    ONNX) every call builds the dense kernel and convolves with it. That is slower than
    the dense form, so the first such call logs a warning.

    What torch.jit.trace or torch.export record has the operator: it loads in a process
    that has imported dcls_mm, and runs where the operator does.

    Args:
        kernel: (out, 1, *extent), with 1 or 2 axes of extent.
        bias: (out,) or None.
        channels: of the input; the outputs are a multiple of them.
        sides: padding (before, after) per axis; it may be negative.
        padding_mode: as in torch.nn.ConvNd.
    """

    kinds: Tensor
    places: Tensor
    values: Tensor
    bias: Tensor | None

    def __init__(
        self,
        kernel: Tensor,
        bias: Tensor | None,
        channels: int,
        sides: Sequence[tuple[int, int]],
        padding_mode: str,
    ):
        super().__init__()
        self.extent = tuple(kernel.shape[2:])
        self.ndim = len(self.extent)
        self.in_channels, self.out_channels = channels, kernel.shape[0]
        self.sides, self.padding_mode = list(sides), padding_mode
        rows, columns = self._rows_and_columns()
        taps = taps_of_kernel(kernel.reshape(-1, 1, rows, columns))
        for name, tensor in taps._asdict().items():
            self.register_buffer(name, tensor)
        self.values = taps.values.to(kernel)  # in the dtype that the input must have
        self.register_buffer('bias', None if bias is None else bias.detach().clone())

    @property
    def taps(self) -> Taps:
        return Taps(self.kinds, self.places, self.values.float())

    def kernel(self) -> Tensor:
        """Return the dense kernel, (out, 1, *extent)."""
        dense = kernel_of_taps(self.taps, self._rows_and_columns())
        return dense.reshape(-1, 1, *self.extent).to(self.values)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve ``x``, ([batch,] channels, *size), to ([batch,] out, *out_size)."""
        check_input(x, self.ndim, self.in_channels)
        reason = self._reason_for_dense(x)
        if reason is not None:
            if not torch.compiler.is_compiling():
                _warn_once(reason)
            return self._convolve_densely(x)
        check_alike(x, self.values, self.bias)
        check_fits(x, self.extent, self.sides)
        images = x.unsqueeze(0) if x.ndim == self.ndim + 1 else x
        sides = self.sides
        if self.padding_mode != 'zeros':
            images = pad(images, sides, self.padding_mode)
            sides = [(0, 0)] * self.ndim
        if self.ndim == 1:
            images, sides = images.unsqueeze(2), [(0, 0), *sides]
        extent = self._rows_and_columns()
        before = [side for side, _ in sides]
        growth = [sum(pair) + 1 - taps for pair, taps in zip(sides, extent)]
        run = _scripted() if torch.jit.is_tracing() else _convolve
        y = run(images, self.bias, list(self.taps), list(extent), before, growth)
        y = y.squeeze(2) if self.ndim == 1 else y
        return y.squeeze(0) if x.ndim == self.ndim + 1 else y

    def _rows_and_columns(self) -> tuple[int, int]:
        return (self.extent[0] if self.ndim == 2 else 1), self.extent[-1]

    def _reason_for_dense(self, x: Tensor) -> str | None:
        """Return why the operator can't compute this call, or None."""
        state = ask(x)
        if state.device_type != 'cpu':
            return f'the input is on {state.device_type}'
        if x.dtype not in DTYPES:
            return f'the input is {x.dtype}'
        if state.autocast is not None:
            return 'autocast is on'
        if state.transformed:
            return 'a transform of torch.func is active'
        if torch.onnx.is_in_onnx_export():
            return 'ONNX has no such operator'
        return _missing()

    def _convolve_densely(self, x: Tensor) -> Tensor:
        return convolve_checked(
            x,
            self.kernel(),
            self.bias,
            (1,) * self.ndim,
            self.sides,
            self.in_channels,
            self.padding_mode,
            None,
        )

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        """Load taps in any number; wrong ones are an error when they are read."""
        for name in Taps._fields[1:]:  # the first has a row for each output
            given, own = state_dict.get(prefix + name), getattr(self, name)
            if isinstance(given, Tensor) and given.ndim == own.ndim:
                setattr(self, name, own.new_empty((len(given), *own.shape[1:])))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        parts = [
            f'{self.in_channels}, {self.out_channels}',
            f'extent={self.extent}',
            f'sides={self.sides}',
            f'bias={self.bias is not None}',
        ]
        if self.padding_mode != 'zeros':
            parts.append(f'padding_mode={self.padding_mode!r}')
        return ', '.join(parts)


def why_not_sparse(layer: ConstructedConvNd, kernel: Tensor) -> str | None:
    """Return why a layer with this kernel can't be sparse, or None."""
    reasons = {
        'it is transposed': layer.transposed,
        'it has 3 axes': layer.ndim == 3,
        f'its stride is {layer.stride}': any(step != 1 for step in layer.stride),
        'it is not depthwise': layer.groups != layer.in_channels,
        f'it is {kernel.dtype}': kernel.dtype not in DTYPES,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def _convolve(
    x: Tensor,
    bias: Tensor | None,
    taps: list[Tensor],
    extent: list[int],
    before: list[int],
    growth: list[int],
) -> Tensor:
    """Call the operator; the output has ``growth`` more rows and columns than ``x``."""
    size = [x.shape[2] + growth[0], x.shape[3] + growth[1]]
    return torch.ops.dcls_mm.convolve_taps(
        x, bias, taps[0], taps[1], taps[2], extent, before, size
    )


@functools.cache
def _scripted() -> Callable[..., Tensor]:
    """Return ``_convolve`` for torch.jit.trace, which would fix sizes in its record."""
    return torch.jit.script(_convolve)


@torch.compiler.assume_constant_result
def _missing() -> str | None:
    return native_code.missing()


@functools.cache
def _warn_once(reason: str) -> None:
    _logger.warning(
        'a sparse convolution runs as a dense one, as %s: slower than '
        "switch_to_deploy(model, form='dense')",
        reason,
    )
