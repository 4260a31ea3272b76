"""Convolution with a dense kernel, on the backend that suits the call."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from ._arguments import (
    IntOrTuple,
    as_int,
    as_tuple,
    check_bias,
    check_floating,
)
from ._torch import ConvolutionCall, ask, in_format
from .backends import native, reasons_against, select_backend
from .padding import check_padding_mode, pad
from .sparse_kernel import SparseKernel

TRANSPOSED_CONVOLUTIONS = {
    1: F.conv_transpose1d,
    2: F.conv_transpose2d,
    3: F.conv_transpose3d,
}


def convolve(
    x: Tensor,
    kernel: Tensor,
    bias: Tensor | None = None,
    *,
    stride: IntOrTuple = 1,
    padding: IntOrTuple | str = 0,
    groups: int = 1,
    padding_mode: str = 'zeros',
    backend: str | None = None,
) -> Tensor:
    """Cross-correlate ``x`` with a dense kernel, as torch.nn.functional.convNd does.

    The input, the kernel and the bias must have one dtype, unless autocast gives them
    one. The result has that dtype and, on every backend, the memory format of ``x``.

    Args:
        x: (batch, in, *size) or (in, *size), with 1, 2 or 3 spatial axes.
        kernel: (out, in // groups, *extent).
        bias: (out,).
        stride, padding: one int, or one per axis, in pixels; padding can also be 'same'
            (keeps the size, stride 1 only) or 'valid' (none).
        groups: divides the input and the output channels.
        padding_mode: 'zeros', 'reflect', 'replicate' or 'circular'.
        backend: a key of ``functional.backends.BACKENDS`` that supports the call (see
            :func:`compatible_backends`). None chooses one by device, dtype and shape,
            unless :func:`.use_backend` forces one.

    Returns:
        (batch, out, *out_size), or without batch if ``x`` has none.

    Raises:
        ValueError, TypeError: an argument doesn't fit, or ``backend`` doesn't support
            the call.
        RuntimeError: the kernel is larger than the padded input, the input is empty
            along an axis, or the tensors differ in dtype or device. The messages are
            torch's.

    Example:
        >>> import torch
        >>> from dcls_mm import convolve
        >>> x, kernel = torch.randn(1, 8, 32, 32), torch.randn(8, 1, 17, 17)
        >>> convolve(x, kernel, padding='same', groups=8).shape
        torch.Size([1, 8, 32, 32])
    """
    stride, sides, groups = _checked(
        x, kernel, bias, stride, padding, groups, padding_mode
    )
    return convolve_checked(
        x, kernel, bias, stride, sides, groups, padding_mode, backend
    )


def compatible_backends(
    x: Tensor,
    kernel: Tensor,
    bias: Tensor | None = None,
    *,
    stride: IntOrTuple = 1,
    padding: IntOrTuple | str = 0,
    groups: int = 1,
    padding_mode: str = 'zeros',
) -> dict[str, str | None]:
    """Tell which backends support :func:`convolve` with these arguments.

    Returns:
        Backend -> None if it supports them, otherwise the reason why not, as a
        sentence. The backends are in the order in which they are tried.

    Raises:
        ValueError, TypeError, RuntimeError: wrong arguments, see :func:`convolve`.
    """
    stride, sides, groups = _checked(
        x, kernel, bias, stride, padding, groups, padding_mode
    )
    return reasons_against(
        _described(x, kernel, bias, stride, sides, groups, padding_mode)
    )


def convolve_checked(
    x: Tensor,
    kernel: Tensor | SparseKernel,
    bias: Tensor | None,
    stride: tuple[int, ...],
    sides: list[tuple[int, int]],
    groups: int,
    padding_mode: str,
    backend: str | None,
) -> Tensor:
    """Run :func:`convolve` with checked arguments and :func:`padding_sides`.

    The kernel may be given by what it is constructed from.

    Sides may be negative, see :func:`.pad`. It only checks that the tensors and the
    sides fit together.
    """
    ndim = len(stride)
    call = _described(x, kernel, bias, stride, sides, groups, padding_mode)
    chosen = select_backend(backend, call)
    y = chosen.convolve(call)
    if chosen is not native:
        state = call.state
        y = in_format(state, y.to(state.result_dtype(x)))
    # torch's result has the input's format, unless the kernel may look channels_last.
    elif call.kernel.stride(1) == 1 or (x.stride(-1 - ndim) == 1 != y.stride(1)):
        y = in_format(call.state, y)
    return y.squeeze(0) if x.ndim == ndim + 1 else y


def _checked(
    x: Tensor,
    kernel: Tensor,
    bias: Tensor | None,
    stride: IntOrTuple,
    padding: IntOrTuple | str,
    groups: int,
    padding_mode: str,
) -> tuple[tuple[int, ...], list[tuple[int, int]], int]:
    """Check the arguments and return stride, :func:`padding_sides` and groups."""
    ndim = _spatial_axes(kernel, '(out, in // groups, *extent)')
    if type(groups) is not int or groups < 1:
        groups = as_int('groups', groups, minimum=1)
    out, group_in, *extent = kernel.shape
    if out % groups:
        raise ValueError(f'groups must divide the {out} output channels, got {groups}')
    check_input(x, ndim, group_in * groups)
    if bias is not None:
        check_bias(bias, out)
    stride = as_tuple('stride', stride, ndim, minimum=1)
    if padding_mode != 'zeros':
        check_padding_mode(padding_mode)
    return stride, padding_sides(padding, extent, stride), groups


def _described(
    x: Tensor,
    kernel: Tensor | SparseKernel,
    bias: Tensor | None,
    stride: tuple[int, ...],
    sides: list[tuple[int, int]],
    groups: int,
    padding_mode: str,
) -> ConvolutionCall:
    """Return the call with these arguments, padding ``x`` unless by zeros."""
    if x.dtype != kernel.dtype or x.device != kernel.device or bias is not None:
        check_alike(x, kernel, bias)
    check_fits(x, kernel.shape[2:], sides)
    if x.ndim == len(stride) + 1:
        x = x.unsqueeze(0)
    if padding_mode == 'zeros':
        return ConvolutionCall(x, kernel, bias, stride, sides, groups)
    padded, sides_left = pad(x, sides, padding_mode), [(0, 0)] * len(sides)
    return ConvolutionCall(padded, kernel, bias, stride, sides_left, groups, ask(x))


def convolve_transposed(
    x: Tensor,
    kernel: Tensor,
    bias: Tensor | None = None,
    *,
    stride: IntOrTuple = 1,
    padding: IntOrTuple = 0,
    output_padding: IntOrTuple = 0,
    groups: int = 1,
) -> Tensor:
    """Apply the transpose of :func:`convolve`, as torch's conv_transposeNd does.

    Args:
        x: (batch, in, *size) or (in, *size), with 1, 2 or 3 spatial axes.
        kernel: (in, out // groups, *extent).
        bias: (out,).
        stride, padding: those of the convolution that is transposed, in pixels; one
            int, or one per axis.
        output_padding: extra pixels at the end of the output, fewer than the stride;
            one int, or one per axis.
        groups: divides the input and the output channels.

    Returns:
        (batch, out, *out_size) with out_size = (size - 1) * stride - 2 * padding
        + extent + output_padding, or without batch if ``x`` has none.

    Raises:
        ValueError, TypeError: an argument doesn't fit.
        RuntimeError: the tensors differ in dtype or device, or the output would be
            empty. The messages are torch's.
    """
    ndim = _spatial_axes(kernel, '(in, out // groups, *extent)')
    groups = as_int('groups', groups, minimum=1)
    if len(kernel) % groups:
        raise ValueError(
            f'groups must divide the {len(kernel)} input channels, got {groups}'
        )
    check_input(x, ndim, len(kernel))
    check_bias(bias, kernel.shape[1] * groups)
    stride = as_tuple('stride', stride, ndim, minimum=1)
    padding = as_tuple('padding', padding, ndim, minimum=0)
    output_padding = as_tuple('output_padding', output_padding, ndim, minimum=0)
    check_output_padding(output_padding, stride)
    check_alike(x, kernel, bias)
    unbatched = x.ndim == ndim + 1
    x = x.unsqueeze(0) if unbatched else x
    _check_transposed_size(
        x.shape[2:], kernel.shape[2:], stride, padding, output_padding
    )
    y = TRANSPOSED_CONVOLUTIONS[ndim](
        x, kernel, bias, stride, padding, output_padding, groups
    )
    y = in_format(ask(x), y)
    return y.squeeze(0) if unbatched else y


def padding_sides(
    padding: IntOrTuple | str, extent: Sequence[int], stride: tuple[int, ...]
) -> list[tuple[int, int]]:
    """Return (before, after) per axis for a ``padding`` of torch.nn.ConvNd.

    Raises:
        ValueError: ``padding`` is an unknown string, negative, or 'same' with a stride.
    """
    if padding == 'valid':
        return [(0, 0)] * len(extent)
    if padding == 'same':
        if any(step != 1 for step in stride):
            raise ValueError(f"padding 'same' needs stride 1, got stride {stride}")
        return [((size - 1) // 2, size // 2) for size in extent]
    if isinstance(padding, str):
        raise ValueError(
            f"padding must be integers, 'same' or 'valid', got {padding!r}"
        )
    if not (  # that of a layer has been checked
        isinstance(padding, tuple)
        and len(padding) == len(extent)
        and {*map(type, padding)} == {int}
        and min(padding) >= 0
    ):
        padding = as_tuple('padding', padding, len(extent), minimum=0)
    return [*zip(padding, padding)]


def check_output_padding(output_padding: tuple, stride: tuple) -> None:
    if any(more >= step for more, step in zip(output_padding, stride)):
        raise ValueError(
            f'output_padding must be below the stride {stride}, got {output_padding}'
        )


def check_input(x: Tensor, ndim: int, channels: int) -> None:
    """Raise an error unless ``x`` is floating and ([batch,] channels, *size)."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        check_floating('the input', x)
    if x.ndim not in (ndim + 1, ndim + 2):
        raise ValueError(
            f'the input must have {ndim + 2} axes (batch, channels, {ndim} spatial), '
            f'or {ndim + 1} without batch, got the shape {tuple(x.shape)}'
        )
    if x.shape[-ndim - 1] != channels:
        raise ValueError(
            f'the input must have {channels} channels, got {x.shape[-ndim - 1]} in '
            f'the shape {tuple(x.shape)}'
        )


def check_alike(x: Tensor, kernel: Tensor | SparseKernel, bias: Tensor | None) -> None:
    """Raise torch's RuntimeError unless the tensors have one dtype and one device.

    The dtype counts after autocast, which casts all floating tensors but float64.
    """
    for name, tensor in (('kernel', kernel), ('bias', bias)):
        if tensor is None:
            continue
        if tensor.device != x.device:
            raise RuntimeError(
                f'Input and {name} should be on the same device, got {x.device} and '
                f'{tensor.device}'
            )
        if tensor.dtype == x.dtype:
            continue
        state = ask(x)
        wanted, given = state.result_dtype(x), state.result_dtype(tensor)
        if wanted != given:
            raise RuntimeError(
                f'Input type ({wanted}) and {name} type ({given}) should be the same'
            )


def check_fits(x: Tensor, extent: tuple, sides: list[tuple[int, int]]) -> None:
    """Raise torch's RuntimeError if a kernel is larger than the padded input.

    Pixels that negative sides remove count as taps that were cropped from the kernel.
    """
    size = x.shape[-len(extent) :]
    for pixels, taps, (before, after) in zip(size, extent, sides):
        if pixels + before + after < taps or pixels == 0:
            break
    else:
        return
    if 0 in size:  # torch raises this even if the kernel fits into the padding
        raise RuntimeError(
            'Only zero batch inputs are supported, but got input shape: '
            f'{list(x.shape)}'
        )
    cropped = [max(0, -before) + max(0, -after) for before, after in sides]
    padded = [n + sum(pair) + c for n, pair, c in zip(size, sides, cropped)]
    taps = [n + c for n, c in zip(extent, cropped)]
    raise RuntimeError(
        f'Calculated padded input size per channel: ({_by(padded)}). Kernel size: '
        f"({_by(taps)}). Kernel size can't be greater than actual input size"
    )


def _check_transposed_size(size, extent, stride, padding, more) -> None:
    """Raise torch's RuntimeError if the output of a transposed convolution is empty."""
    out_size = [
        (n - 1) * step - 2 * p + k + m
        for n, k, step, p, m in zip(size, extent, stride, padding, more)
    ]
    if min(out_size) < 1:
        raise RuntimeError(
            f'Given input size per channel: ({_by(size)}). Calculated output size per '
            f'channel: ({_by(out_size)}). Output size is too small'
        )


def _by(sizes) -> str:
    """Format sizes as in torch's errors."""
    return ' x '.join(map(str, sizes))


def _spatial_axes(kernel: Tensor, shape: str) -> int:
    """Check a kernel, and return its number of spatial axes."""
    if not isinstance(kernel, Tensor) or not kernel.is_floating_point():
        check_floating('kernel', kernel)
    if not 3 <= kernel.ndim <= 5 or 0 in kernel.shape:
        raise ValueError(
            f'kernel must have the shape {shape} with no size 0 and 1, 2 or 3 axes of '
            f'extent, got {tuple(kernel.shape)}'
        )
    return kernel.ndim - 2
