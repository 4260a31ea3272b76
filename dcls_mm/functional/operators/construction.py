"""The construction of kernels from elements, and its gradient, as operators of torch.

The gradient has no derivative of its own: a backward pass that will be differentiated
again consists of torch's own operators, and so does every one on a CPU.
"""

import math
from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor
from torch.library import custom_op
from torch.utils.flop_counter import register_flop_formula

from .._torch import ask
from ..interpolation import INTERPOLATIONS
from ..profiles import product_kernel

# The types of devices on which kernels in Triton construct and differentiate.
TRITON_DEVICES = {'cuda'}


@custom_op(
    'dcls_mm::construct',
    mutates_args=(),
    schema=(
        '(Tensor weight, Tensor positions, Tensor? sigma, SymInt[] extent, '
        'str interpolation, ScalarType dtype) -> Tensor'
    ),
)
def construct(
    weight: Tensor,
    positions: Tensor,
    sigma: Tensor | None,
    extent: Sequence[int],
    interpolation: str,
    dtype: torch.dtype,
) -> Tensor:
    """Construct kernels; on a CPU as products of profiles.

    Args:
        weight: (*kernels, count), floating.
        positions, sigma: (ndim, *kernels, count), or 1 along an axis that shares them;
            sigma is None if the interpolation has none.
        extent: (ndim,).
        interpolation: a key of ``INTERPOLATIONS``.
        dtype: of the result.

    Returns:
        (*kernels, *extent), computed in at least float32.
    """
    return (
        _product(weight, positions, sigma, extent, interpolation).to(dtype).contiguous()
    )


@custom_op(
    'dcls_mm::construct_gradient',
    mutates_args=(),
    device_types='cuda',
    schema=(
        '(Tensor grad_kernel, Tensor weight, Tensor positions, Tensor? sigma, '
        'SymInt[] extent, str interpolation, bool[] wanted) -> Tensor[]'
    ),
)
def construct_gradient(
    grad_kernel: Tensor,
    weight: Tensor,
    positions: Tensor,
    sigma: Tensor | None,
    extent: Sequence[int],
    interpolation: str,
    wanted: Sequence[bool],
) -> list[Tensor]:
    """Differentiate :func:`construct`.

    Args:
        grad_kernel: (*kernels, *extent), floating.
        weight, positions, sigma, extent, interpolation: see there.
        wanted: whether to compute the gradient of weight, positions and sigma.

    Returns:
        The wanted gradients, like the tensors that they are for.
    """
    from ..triton_kernels import construction  # needs triton

    gradients = construction.construct_gradient(
        grad_kernel, weight, positions, sigma, extent, interpolation, wanted
    )
    return [gradient for gradient in gradients if gradient is not None]


@construct.register_kernel('cuda')
def _(weight, positions, sigma, extent, interpolation, dtype):
    from ..triton_kernels import construction  # needs triton

    return construction.construct(
        weight, positions, sigma, extent, interpolation, dtype
    )


@construct.register_fake
def _(weight, positions, sigma, extent, interpolation, dtype):
    return weight.new_empty((*weight.shape[:-1], *extent), dtype=dtype)


@construct_gradient.register_fake
def _(grad_kernel, weight, positions, sigma, extent, interpolation, wanted):
    inputs = zip((weight, positions, sigma), wanted)
    return [like.new_empty(like.shape) for like, want in inputs if want]


def _keep(ctx, inputs, output) -> None:
    weight, positions, sigma, *ctx.options = inputs
    ctx.save_for_backward(weight, positions, sigma)


def _differentiate(ctx, grad_kernel: Tensor):
    weight, positions, sigma = ctx.saved_tensors
    wanted = ctx.needs_input_grad[:3]
    extent, interpolation, dtype = ctx.options
    again = torch.is_grad_enabled()  # it will be differentiated again
    if again or grad_kernel.device.type not in TRITON_DEVICES:
        with torch.enable_grad():
            kernel = _product(weight, positions, sigma, extent, interpolation)
            kernel = kernel.to(dtype)
        gradients = torch.autograd.grad(
            kernel,
            [t for t, want in zip((weight, positions, sigma), wanted) if want],
            grad_kernel,
            create_graph=again,
        )
    else:
        gradients = construct_gradient(
            grad_kernel, weight, positions, sigma, extent, interpolation, wanted
        )
    found = iter(gradients)
    return *[next(found) if want else None for want in wanted], None, None, None


construct.register_autograd(_differentiate, setup_context=_keep)


@register_flop_formula(torch.ops.dcls_mm.construct)
def _(weight_shape, positions_shape, sigma_shape, extent, *args, **kwargs) -> int:
    return _flops(weight_shape, extent)


@register_flop_formula(torch.ops.dcls_mm.construct_gradient)
def _(grad_shape, weight_shape, positions_shape, sigma_shape, extent, *args, **kwargs):
    return 2 * _flops(weight_shape, extent)


def _flops(weight_shape, extent) -> int:
    """Count two operations per tap and element, as torch does for the same product."""
    return 2 * math.prod(weight_shape) * math.prod(extent)


def _product(
    weight: Tensor,
    positions: Tensor,
    sigma: Tensor | None,
    extent: Sequence[int],
    interpolation: str,
) -> Tensor:
    """Construct kernels by torch's operators, in at least float32."""
    dtype = reduce(torch.promote_types, (weight.dtype, positions.dtype, torch.float32))
    width = None if sigma is None else sigma.to(dtype)
    rule = INTERPOLATIONS[interpolation]
    with ask(weight).without_autocast():
        return product_kernel(
            weight.to(dtype), positions.to(dtype), width, tuple(extent), rule
        )
