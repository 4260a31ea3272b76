"""Convolving with a constructed kernel on the backend that suits the call."""

from typing import Optional, Union

import torch.nn.functional as F
from torch import Tensor

from ._arguments import IntOrTuple, as_int, as_tuple
from .backends import ConvolutionCall, select_backend

# The padding modes of torch.nn.ConvNd, and what torch.nn.functional.pad calls them.
PADDING_MODES = {
    'zeros': 'constant',
    'reflect': 'reflect',
    'replicate': 'replicate',
    'circular': 'circular',
}


def convolve(
    x: Tensor,
    kernel: Tensor,
    bias: Optional[Tensor] = None,
    *,
    stride: IntOrTuple = 1,
    padding: Union[IntOrTuple, str] = 0,
    groups: int = 1,
    padding_mode: str = 'zeros',
    backend: Optional[str] = None,
) -> Tensor:
    """Cross-correlate ``x`` with a dense kernel, as torch.nn.functional.convNd does.

    Args:
        x: (batch, in, *size) or (in, *size), with 1, 2 or 3 spatial axes.
        kernel: (out, in // groups, *extent).
        bias: (out,).
        stride, padding: one int or one an axis; padding also 'same' (keeps the size,
            stride 1 only) or 'valid' (none).
        groups: divides the input and the output channels.
        padding_mode: 'zeros', 'reflect', 'replicate' or 'circular'.
        backend: a key of ``functional.backends.BACKENDS``, which must support the call;
            None chooses by device, dtype and shape.

    Returns:
        (batch, out, *out_size), or without batch if ``x`` has none.

    Raises:
        ValueError, TypeError: an argument doesn't fit, or ``backend`` can't serve.
    """
    ndim = kernel.ndim - 2
    groups = as_int('groups', groups, minimum=1)
    _check_shapes(x, kernel, bias, groups)
    stride = as_tuple('stride', stride, ndim, minimum=1)
    check_padding_mode(padding_mode)
    sides = padding_sides(padding, tuple(kernel.shape[2:]), stride)

    unbatched = x.ndim == ndim + 1
    x = x.unsqueeze(0) if unbatched else x
    if padding_mode != 'zeros' or any(before != after for before, after in sides):
        last_axis_first = [side for pair in reversed(sides) for side in pair]
        x = F.pad(x, last_axis_first, PADDING_MODES[padding_mode])
        sides = [(0, 0)] * ndim
    zeros = tuple(before for before, _ in sides)
    call = ConvolutionCall(x, kernel, bias, stride, zeros, groups)
    y = select_backend(backend, call).convolve(call)
    return y.squeeze(0) if unbatched else y


def padding_sides(
    padding: Union[IntOrTuple, str], extent: tuple[int, ...], stride: tuple[int, ...]
) -> list[tuple[int, int]]:
    """(before, after) an axis for a padding of torch.nn.ConvNd.

    Raises:
        ValueError: padding is another string, negative, or 'same' with a stride.
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
    return [(p, p) for p in as_tuple('padding', padding, len(extent), minimum=0)]


def check_padding_mode(padding_mode: str) -> None:
    if padding_mode not in PADDING_MODES:
        raise ValueError(
            f'padding_mode must be one of {list(PADDING_MODES)}, got {padding_mode!r}'
        )


def _check_shapes(x: Tensor, kernel: Tensor, bias: Optional[Tensor], groups: int):
    ndim = kernel.ndim - 2
    if not 1 <= ndim <= 3:
        raise ValueError(
            'kernel must have the shape (out, in // groups, *extent) with 1, 2 or 3 '
            f'axes of extent, got {tuple(kernel.shape)}'
        )
    out, group_in = kernel.shape[:2]
    if out % groups:
        raise ValueError(f'groups must divide the {out} output channels, got {groups}')
    if x.ndim not in (ndim + 1, ndim + 2):
        raise ValueError(
            f'the input must have {ndim + 2} axes (batch, channels, {ndim} of space), '
            f'or {ndim + 1} without batch, got the shape {tuple(x.shape)}'
        )
    channels = x.shape[-ndim - 1]
    if channels != group_in * groups:
        raise ValueError(
            f'the input must have {group_in * groups} channels (in // groups = '
            f'{group_in}, groups = {groups}), got {channels} in {tuple(x.shape)}'
        )
    if bias is not None and bias.shape != (out,):
        raise ValueError(f'bias must have the shape ({out},), got {tuple(bias.shape)}')
