"""The direct convolution and its gradients, on plain tensors (``csrc/direct.h``).

Images are (batch, channels, height, width) in float32 or bfloat16, contiguous or
channels_last, or parts of such; the results have the image's format. Sums are float32.
"""

import ctypes
import functools
from collections.abc import Sequence
from ctypes import POINTER, byref, c_int, c_int64, c_void_p
from typing import NamedTuple

import torch
from torch import Tensor

from . import library

DTYPES = (torch.float32, torch.bfloat16)


class _Image(ctypes.Structure):
    _fields_ = [('data', c_void_p), ('strides', c_int64 * 4), ('bfloat16', c_int64)]


class _Convolution(ctypes.Structure):
    _fields_ = [
        *((name, c_int64) for name in ('batch', 'channels', 'multiplier')),
        *((name, c_int64) for name in ('height', 'width', 'out_height', 'out_width')),
        *((name, c_int64) for name in ('rows', 'columns', 'top', 'left', 'count')),
        *((name, c_void_p) for name in ('weight', 'position_rows', 'position_columns')),
        *((name, c_int64) for name in ('position_stride', 'normalized')),
        *((name, c_void_p) for name in ('kinds', 'places', 'values', 'parallel')),
        ('threads', c_int64),
    ]


class Elements(NamedTuple):
    """Weights at real-valued positions.

    Attributes:
        weight: (out, count).
        positions: (axes, out or 1, count); 1 axis for kernels of one row, or 2.
        normalized: whether the shares of an element inside the extent sum to 1.
    """

    weight: Tensor
    positions: Tensor
    normalized: bool


class Taps(NamedTuple):
    """Kernels as windows: each has up to four taps in consecutive rows of one column.

    A window of kind k has taps in the rows of the bits of ``2 * k + 1``.

    Attributes:
        kinds: (out, 9), int32: the windows of output o and kind k are numbers
            ``kinds[o, k]`` to ``kinds[o, k + 1]``; they are in the order of outputs, so
            ``kinds[o, 8]`` is ``kinds[o + 1, 0]``.
        places: (windows, 2), int32: row and column of the window's first tap.
        values: (windows, 4), float32: of the taps in this row and the three below, and
            0 where there is none.
    """

    kinds: Tensor
    places: Tensor
    values: Tensor


class Geometry(NamedTuple):
    """The sizes of a convolution, each (rows, columns).

    Attributes:
        extent: of the kernels.
        before: zeros before the first row and column; may be negative.
        size, out_size: of the input and of the output.
    """

    extent: Sequence[int]
    before: Sequence[int]
    size: Sequence[int]
    out_size: Sequence[int]


def is_channels_last(x: Tensor) -> bool:
    """Return whether results for ``x`` are channels_last."""
    return x.stride(1) == 1 and x.shape[1] > 1 and x.stride(3) != 1


def empty_like_image(x: Tensor, channels: int, size: Sequence[int]) -> Tensor:
    """Return memory for a result, in the format of ``x``."""
    last = is_channels_last(x)
    layout = torch.channels_last if last else torch.contiguous_format
    return torch.empty(
        (x.shape[0], channels, *size),
        dtype=x.dtype,
        device=x.device,
        memory_format=layout,
    )


def forward(
    x: Tensor, kernels: Elements | Taps, bias: Tensor | None, geometry: Geometry
) -> Tensor:
    """Return the convolution, (batch, out, *out_size), plus the bias, (out,)."""
    x, bias = _readable(x), None if bias is None else _floats(bias)
    call = _call(x, kernels, geometry, x.shape[1])
    y = empty_like_image(x, _outputs(kernels), geometry.out_size)
    address = None if bias is None else bias.data_ptr()
    _check(
        _library().dcls_forward(
            byref(call.convolution), byref(_image(x)), address, byref(_image(y))
        )
    )
    return y


def input_gradient(
    grad_y: Tensor, elements: Elements, geometry: Geometry, channels: int
) -> Tensor:
    """Return the input's gradient, (batch, channels, *size)."""
    grad_y = _readable(grad_y)
    call = _call(grad_y, elements, geometry, channels)
    grad_x = empty_like_image(grad_y, channels, geometry.size)
    _check(
        _library().dcls_input_gradient(
            byref(call.convolution), byref(_image(grad_y)), byref(_image(grad_x))
        )
    )
    return grad_x


def element_gradients(
    x: Tensor, grad_y: Tensor, elements: Elements, geometry: Geometry
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of weight, positions and bias, in float32.

    Those of the positions are (axes, out, count), also if positions are shared.
    """
    x, grad_y = _readable(x), _readable(grad_y)
    call = _call(x, elements, geometry, x.shape[1])
    shape, axes = elements.weight.shape, len(elements.positions)
    grad_weight = x.new_empty(shape, dtype=torch.float32)
    grad_positions = x.new_empty((axes, *shape), dtype=torch.float32)
    grad_bias = x.new_empty(shape[:1], dtype=torch.float32)
    rows = grad_positions[0].data_ptr() if axes == 2 else None
    _check(
        _library().dcls_element_gradients(
            byref(call.convolution),
            byref(_image(x)),
            byref(_image(grad_y)),
            grad_weight.data_ptr(),
            rows,
            grad_positions[-1].data_ptr(),
            grad_bias.data_ptr(),
        )
    )
    return grad_weight, grad_positions, grad_bias


class _Call(NamedTuple):
    """A structure for the library, and the tensors whose memory it points to."""

    convolution: _Convolution
    kept: tuple[Tensor, ...]


def _call(
    x: Tensor, kernels: Elements | Taps, geometry: Geometry, channels: int
) -> _Call:
    c = _Convolution()
    c.batch, c.channels = x.shape[0], channels
    c.multiplier = _outputs(kernels) // channels if channels else 0
    (c.rows, c.columns), (c.top, c.left) = geometry.extent, geometry.before
    c.height, c.width = geometry.size
    c.out_height, c.out_width = geometry.out_size
    if isinstance(kernels, Elements):
        weight, positions = _floats(kernels.weight), _floats(kernels.positions)
        kept: tuple[Tensor, ...] = weight, positions
        c.count, c.normalized = weight.shape[1], kernels.normalized
        c.weight = weight.data_ptr()
        c.position_columns = positions[-1].data_ptr()
        if len(positions) == 2:
            c.position_rows = positions[0].data_ptr()
        if positions.shape[1] > 1:
            c.position_stride = positions.shape[2]
    else:
        kept = tuple(tensor.contiguous() for tensor in kernels)
        c.count = len(kernels.values)
        c.kinds, c.places, c.values = (tensor.data_ptr() for tensor in kept)
    c.parallel, c.threads = _parallel(), torch.get_num_threads()
    return _Call(c, kept)


def _outputs(kernels: Elements | Taps) -> int:
    return len(kernels.weight if isinstance(kernels, Elements) else kernels.kinds)


def _image(x: Tensor) -> _Image:
    strides = (c_int64 * 4)(*x.stride())
    return _Image(x.data_ptr(), strides, x.dtype == torch.bfloat16)


def _readable(x: Tensor) -> Tensor:
    """Return ``x`` with consecutive columns or channels; other formats are slow."""
    return x if 1 in (x.stride(1), x.stride(3)) else x.contiguous()


def _floats(x: Tensor) -> Tensor:
    return x.detach().to(torch.float32).contiguous()


def _check(status: int) -> None:
    if status == 2:
        raise ValueError(
            'all taps of the windows must lie within the extent, and `kinds` must rise '
            'from 0 to the number of windows'
        )
    if status:
        raise MemoryError('too little memory for the scratch of a direct convolution')


@functools.cache
def _library() -> ctypes.CDLL:
    loaded = library()
    call, image = POINTER(_Convolution), POINTER(_Image)
    for name, arguments in {
        'dcls_forward': (call, image, c_void_p, image),
        'dcls_input_gradient': (call, image, image),
        'dcls_element_gradients': (call, image, image, *(c_void_p,) * 4),
    }.items():
        getattr(loaded, name).argtypes = arguments
        getattr(loaded, name).restype = c_int
    return loaded


@functools.cache
def _parallel() -> int | None:
    """Return the address of GOMP_parallel in the runtime that torch has loaded.

    torch makes its runtime's symbols global. Intel's and LLVM's runtimes have the
    function too. None if there is none, and then one thread serves.
    """
    try:
        function = ctypes.CDLL(None).GOMP_parallel
    except (AttributeError, OSError, TypeError):
        return None
    return ctypes.cast(function, c_void_p).value
