"""The direct convolution over the taps that exist, as operators of torch.

A CPU runs them in compiled code (``functional/native_code``), and only with it. Their
gradients are operators too; a gradient that will be differentiated again takes the
dense path instead, which constructs the kernel and convolves with it.

Blocks of outputs may reach beyond the image, where a gradient is zero. So a NaN or an
infinity in an image can make the gradients of more taps of its channel NaN than those
that see it.

Arguments that they share:

- x: (batch, channels, height, width), float32 or bfloat16. Results have its format.
- weight: (out, count), with ``out`` a multiple of the channels.
- positions: (axes, out or 1, count), in pixels from the kernel's centre, tap
  ``extent // 2``; 1 axis for kernels of one row, or 2.
- extent, before, size: of the kernel, of the zeros before the image, and of the output;
  (rows, columns) each.
- normalized: whether an element's shares are divided by their sum: 'triangle' if so,
  'bilinear' if not.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.library import custom_op
from torch.utils.flop_counter import register_flop_formula

from .._arguments import check_bias
from ..interpolation import INTERPOLATIONS
from ..native_code import direct
from ..native_code.direct import Elements, Geometry, Taps, empty_like_image
from ..padding import pad
from ..profiles import product_kernel

_WINDOW_ROWS, _KINDS = 4, 8

_SHARED = (
    'Tensor weight, Tensor positions, SymInt[] extent, SymInt[] before, SymInt[] size, '
    'bool normalized'
)


@custom_op(
    'dcls_mm::convolve_elements',
    mutates_args=(),
    device_types='cpu',
    schema=f'(Tensor x, Tensor? bias, {_SHARED}) -> Tensor',
)
def convolve_elements(
    x: Tensor,
    bias: Tensor | None,
    weight: Tensor,
    positions: Tensor,
    extent: Sequence[int],
    before: Sequence[int],
    size: Sequence[int],
    normalized: bool,
) -> Tensor:
    """Cross-correlate each channel with the elements of its kernels.

    Returns:
        (batch, out, *size), in the dtype of ``x``; ``bias``, (out,), is added.
    """
    _check(x, x.shape[1], bias, weight, positions, extent)
    elements = Elements(weight, positions, normalized)
    return direct.forward(x, elements, bias, _geometry(x, extent, before, size))


@custom_op(
    'dcls_mm::elements_input_gradient',
    mutates_args=(),
    device_types='cpu',
    schema=f'(Tensor grad_y, SymInt channels, {_SHARED}) -> Tensor',
)
def elements_input_gradient(
    grad_y: Tensor,
    channels: int,
    weight: Tensor,
    positions: Tensor,
    extent: Sequence[int],
    before: Sequence[int],
    size: Sequence[int],
    normalized: bool,
) -> Tensor:
    """Return the gradient of an input with that many channels and that ``size``."""
    _check(grad_y, channels, None, weight, positions, extent)
    _check_gradient(grad_y, len(grad_y), len(weight))
    geometry = Geometry(extent, before, size, grad_y.shape[2:])
    elements = Elements(weight, positions, normalized)
    return direct.input_gradient(grad_y, elements, geometry, channels)


@custom_op(
    'dcls_mm::elements_gradient',
    mutates_args=(),
    device_types='cpu',
    schema=(
        '(Tensor x, Tensor grad_y, Tensor weight, Tensor positions, SymInt[] extent, '
        'SymInt[] before, bool normalized) -> (Tensor, Tensor, Tensor)'
    ),
)
def elements_gradient(
    x: Tensor,
    grad_y: Tensor,
    weight: Tensor,
    positions: Tensor,
    extent: Sequence[int],
    before: Sequence[int],
    normalized: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of weight, of each output's positions and of the bias.

    Returns:
        (out, count), (axes, out, count) and (out,), in float32.
    """
    _check(x, x.shape[1], None, weight, positions, extent)
    _check_image('the gradient', grad_y)
    _check_gradient(grad_y, len(x), len(weight))
    geometry = _geometry(x, extent, before, grad_y.shape[2:])
    elements = Elements(weight, positions, normalized)
    return direct.element_gradients(x, grad_y, elements, geometry)


@custom_op(
    'dcls_mm::convolve_taps',
    mutates_args=(),
    device_types='cpu',
    schema=(
        '(Tensor x, Tensor? bias, Tensor kinds, Tensor places, Tensor values, '
        'SymInt[] extent, SymInt[] before, SymInt[] size) -> Tensor'
    ),
)
def convolve_taps(
    x: Tensor,
    bias: Tensor | None,
    kinds: Tensor,
    places: Tensor,
    values: Tensor,
    extent: Sequence[int],
    before: Sequence[int],
    size: Sequence[int],
) -> Tensor:
    """Cross-correlate each channel with its taps; has no gradient.

    Args:
        kinds, places, values: as in ``Taps``, which ``taps_of_kernel`` makes. Taps of
            one output that coincide add up.
    """
    taps = Taps(kinds, places, values)
    _check_taps(x, bias, taps)
    return direct.forward(x, taps, bias, _geometry(x, extent, before, size))


def taps_of_kernel(kernel: Tensor) -> Taps:
    """Return the taps of a dense kernel, (out, 1, rows, columns), that are not zero.

    This waits for the values, so it is for kernels that are kept.
    """
    dense = kernel.detach()[:, 0].mT.float()  # (out, columns, rows)
    there = dense != 0
    # From the top of each column: a tap that no window has yet starts one.
    starts = torch.zeros_like(there)
    left = torch.zeros(there.shape[:2], dtype=torch.int32, device=there.device)
    for row in range(there.shape[2]):
        starts[..., row] = there[..., row] & (left <= 0)
        left = left.masked_fill(starts[..., row], _WINDOW_ROWS) - 1
    values = F.pad(dense, (0, _WINDOW_ROWS - 1)).unfold(2, _WINDOW_ROWS, 1)[starts]
    output, column, row = starts.nonzero(as_tuple=True)
    bits = torch.arange(_WINDOW_ROWS, device=there.device)
    kind = ((values != 0).long() << bits).sum(1) // 2
    group = output * _KINDS + kind
    order = group.argsort(stable=True)
    number = torch.bincount(group, minlength=len(kernel) * _KINDS).cumsum(0).int()
    ends = number.reshape(-1, _KINDS)
    begins = F.pad(ends[:-1, -1:], (0, 0, 1, 0))[: len(kernel)]
    return Taps(
        torch.cat([begins, ends], 1),
        torch.stack([row, column], 1)[order].int(),
        values[order],
    )


def kernel_of_taps(taps: Taps, extent: Sequence[int]) -> Tensor:
    """Return the dense kernel, (out, 1, *extent), that ``taps_of_kernel`` packed."""
    kinds, places, values = taps
    rows, columns = extent
    # The output of each window, by operators that ONNX has too.
    steps = places.new_zeros(places.shape[0] + 1, dtype=torch.long)
    starts = (kinds[1:, 0].long(),)
    steps = steps.index_put(starts, steps.new_ones(()), accumulate=True)
    output = steps.cumsum(0)[:-1, None]
    row = places[:, :1] + torch.arange(_WINDOW_ROWS, device=kinds.device)
    kernel = values.new_zeros(len(kinds), rows + _WINDOW_ROWS - 1, columns)
    places = output, row.long(), places[:, 1:].long()
    kernel = kernel.index_put(places, values, accumulate=True)
    return kernel[:, None, :rows].contiguous()


@convolve_elements.register_fake
def _(x, bias, weight, positions, extent, before, size, normalized):
    return empty_like_image(x, weight.shape[0], size)


@elements_input_gradient.register_fake
def _(grad_y, channels, weight, positions, extent, before, size, normalized):
    return empty_like_image(grad_y, channels, size)


@elements_gradient.register_fake
def _(x, grad_y, weight, positions, extent, before, normalized):
    shape = weight.shape
    return tuple(
        x.new_empty(s, dtype=torch.float32)
        for s in (shape, (positions.shape[0], *shape), shape[:1])
    )


@convolve_taps.register_fake
def _(x, bias, kinds, places, values, extent, before, size):
    return empty_like_image(x, kinds.shape[0], size)


def _keep(ctx, inputs, output) -> None:
    x, bias, weight, positions, extent, before, size, normalized = inputs
    ctx.save_for_backward(x, bias, weight, positions)
    ctx.geometry, ctx.normalized = (extent, before, size), normalized


def _differentiate(ctx, grad_y: Tensor):
    x, bias, weight, positions = ctx.saved_tensors
    wanted = ctx.needs_input_grad[:4]
    (extent, before, size), normalized = ctx.geometry, ctx.normalized
    if torch.is_grad_enabled():  # to be differentiated again
        tensors = x, bias, weight, positions
        y = _dense(*tensors, extent, before, size, normalized)
        asked = [t for t, w in zip(tensors, wanted) if w]
        found = iter(torch.autograd.grad(y, asked, grad_y, create_graph=True))
        return *(next(found) if w else None for w in wanted), *(None,) * 4
    grads: list[Tensor | None] = [None] * 4
    if wanted[0]:
        grads[0] = elements_input_gradient(
            grad_y,
            x.shape[1],
            weight,
            positions,
            extent,
            before,
            x.shape[2:],
            normalized,
        )
    if wanted[1] and not any(wanted[2:]):
        of_pixels = grad_y.sum((0, 2, 3), dtype=torch.float32)
        grads[1] = of_pixels.to(bias.dtype)
    elif any(wanted[1:]):
        of_weight, of_positions, of_bias = elements_gradient(
            x, grad_y, weight, positions, extent, before, normalized
        )
        if wanted[1]:
            grads[1] = of_bias.to(bias.dtype)
        if wanted[2]:
            grads[2] = of_weight.to(weight.dtype)
        if wanted[3]:
            grads[3] = of_positions.sum_to_size(positions.shape).to(positions.dtype)
    return *grads, *(None,) * 4


convolve_elements.register_autograd(_differentiate, setup_context=_keep)


def _dense(
    x: Tensor,
    bias: Tensor | None,
    weight: Tensor,
    positions: Tensor,
    extent: Sequence[int],
    before: Sequence[int],
    size: Sequence[int],
    normalized: bool,
) -> Tensor:
    """Return the same convolution by operators of torch that autograd knows."""
    rule = INTERPOLATIONS['triangle' if normalized else 'bilinear']
    axes = len(positions)
    kernel = product_kernel(
        weight.float(), positions.float(), None, tuple(extent[-axes:]), rule
    ).reshape(len(weight), 1, *extent)
    sides = [
        (b, n + k - 1 - b - s) for b, n, k, s in zip(before, size, extent, x.shape[2:])
    ]
    padded = pad(x.float(), sides, 'zeros')
    offset = None if bias is None else bias.float()
    return F.conv2d(padded, kernel, offset, groups=x.shape[1]).to(x.dtype)


@register_flop_formula(torch.ops.dcls_mm.convolve_elements)
def _(x_shape, bias_shape, weight_shape, positions_shape, *args, out_shape, **kwargs):
    return _flops(out_shape, weight_shape[1], positions_shape[0])


@register_flop_formula(torch.ops.dcls_mm.elements_input_gradient)
def _(grad_shape, channels, weight_shape, positions_shape, *args, **kwargs) -> int:
    return _flops(grad_shape, weight_shape[1], positions_shape[0])


@register_flop_formula(torch.ops.dcls_mm.elements_gradient)
def _(x_shape, grad_shape, weight_shape, positions_shape, *args, **kwargs) -> int:
    return _flops(grad_shape, weight_shape[1], positions_shape[0])


@register_flop_formula(torch.ops.dcls_mm.convolve_taps)
def _(x_shape, bias_shape, kinds_shape, places_shape, *args, out_shape, **kwargs):
    # At most: shapes don't tell how many of a window's four taps there are.
    batch, _, height, width = out_shape
    return 2 * 4 * places_shape[0] * batch * height * width


def _flops(image_shape, count: int, axes: int) -> int:
    """Count two operations per pixel and tap, with two taps per axis of an element."""
    batch, out, height, width = image_shape
    return 2 * batch * out * height * width * count * 2**axes


def _geometry(x: Tensor, extent, before, size) -> Geometry:
    return Geometry(extent, before, x.shape[2:], size)


def _check(
    x: Tensor,
    channels: int,
    bias: Tensor | None,
    weight: Tensor,
    positions: Tensor,
    extent: Sequence[int],
) -> None:
    """Raise an error unless the compiled code may read all that it is given."""
    _check_image('the image', x)
    _check_outputs(weight.shape[0], channels)
    check_bias(bias, weight.shape[0])
    if weight.ndim != 2:
        raise ValueError(f'weight must be (out, count), got {tuple(weight.shape)}')
    axes = positions.shape[0]
    shapes = [(axes, out, weight.shape[1]) for out in (1, weight.shape[0])]
    if axes not in (1, 2) or tuple(positions.shape) not in shapes:
        raise ValueError(
            f'positions must have the shape (1 or 2, {weight.shape[0]} or 1, '
            f'{weight.shape[1]}), got {tuple(positions.shape)}'
        )
    if axes == 1 and extent[0] != 1:
        raise ValueError(
            f'positions along one axis need an extent of one row, got {extent[0]}'
        )


def _check_taps(x: Tensor, bias: Tensor | None, taps: Taps) -> None:
    _check_image('the image', x)
    dtypes = tuple(tensor.dtype for tensor in taps)
    if dtypes != (torch.int32, torch.int32, torch.float32):
        raise TypeError(
            'kinds, places and values must be int32, int32 and float32, '
            f'got {", ".join(map(str, dtypes))}'
        )
    windows = len(taps.values)
    shapes = [tuple(tensor.shape) for tensor in taps]
    if shapes != [(len(taps.kinds), 9), (windows, 2), (windows, 4)]:
        raise ValueError(
            'kinds, places and values must be (out, 9), (windows, 2) and (windows, 4), '
            f'got {", ".join(map(str, shapes))}'
        )
    _check_outputs(len(taps.kinds), x.shape[1])
    check_bias(bias, len(taps.kinds))


def _check_image(name: str, x: Tensor) -> None:
    if x.ndim != 4:
        raise ValueError(f'{name} must have 4 axes, got the shape {tuple(x.shape)}')
    if x.dtype not in direct.DTYPES:
        raise TypeError(f'{name} must be float32 or bfloat16, got {x.dtype}')


def _check_gradient(grad_y: Tensor, batch: int, outputs: int) -> None:
    if tuple(grad_y.shape[:2]) != (batch, outputs):
        raise ValueError(
            f'the gradient must have the batch {batch} and {outputs} channels, got the '
            f'shape {tuple(grad_y.shape)}'
        )


def _check_outputs(outputs: int, channels: int) -> None:
    if outputs % max(channels, 1):
        raise ValueError(
            f'the outputs must be a multiple of the {channels} channels, got {outputs}'
        )
