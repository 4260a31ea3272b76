"""Constructing a kernel from weights and positions."""

from functools import reduce

import torch
from torch import Tensor

from ._arguments import IntOrTuple, as_tuple, check_floating
from ._torch import is_recorded, transforms_active, without_autocast
from .interpolation import INTERPOLATIONS, interpolation_name
from .profiles import product_kernel
from .scatter import scatter_kernel


def construct_kernel(
    weight: Tensor,
    positions: Tensor,
    sigma: Tensor | None = None,
    *,
    kernel_size: IntOrTuple,
    interpolation: str = 'bilinear',
) -> Tensor:
    """Spread weighted elements at real-valued positions over a dense kernel.

    ``K = sum_e w_e * outer_a(profile_a(e))`` over the elements e and the axes a; for
    the normalised interpolations ``w_e`` is divided by the sum of its element's taps
    (+ 1e-7). Computed in float32 at least, also under autocast.

    Positions beyond the extent are allowed: the taps outside are dropped, and the
    normalised interpolations divide by the sum of those inside. A position or sigma
    that is NaN or infinite makes every tap of its kernel NaN. A sigma of zero is the
    narrowest profile, and gets no gradient (|sigma| has none there).

    Args:
        weight: (*kernels, count), for a convolution (out, in // groups, count).
        positions: (ndim, *kernels, count), in pixels from the kernel's centre, which is
            tap ``extent // 2``; row i belongs to spatial axis i. An axis of size 1 is
            shared along that axis of ``weight``.
        sigma: like ``positions``, in pixels; for 'max' and 'gauss' only.
        kernel_size: the extent in taps, one int or ``ndim`` of them.
        interpolation: 'bilinear' ('v0'), 'triangle' ('v1'), 'max' or 'gauss'.

    Returns:
        (*kernels, *kernel_size), in the dtype of ``weight``.

    Raises:
        ValueError, TypeError: a tensor, the extent or the interpolation doesn't fit.

    Example:
        Half way between two columns, each has half of the weight:

        >>> import torch
        >>> from dcls_mm import construct_kernel
        >>> positions = torch.tensor([[0.0], [0.5]])
        >>> construct_kernel(torch.ones(1), positions, kernel_size=3)
        tensor([[0.0000, 0.0000, 0.0000],
                [0.0000, 0.5000, 0.5000],
                [0.0000, 0.0000, 0.0000]])

    Source: arXiv 2112.03740 (bilinear), arXiv 2306.00817 (the others).
    """
    check_elements(weight, positions)
    extent = as_tuple('kernel_size', kernel_size, len(positions), minimum=1)
    interpolation = interpolation_name(interpolation)
    _check_sigma(sigma, positions, interpolation)

    rule = INTERPOLATIONS[interpolation]
    dtype = reduce(torch.promote_types, (weight.dtype, positions.dtype, torch.float32))
    with without_autocast(weight.device.type):
        scaled, placed = weight.to(dtype), positions.to(dtype)
        # Transforms see through torch's operators only; records are to be plain.
        if rule.two_taps and not (transforms_active() or is_recorded()):
            kernel = scatter_kernel(scaled, placed, extent, rule)
        else:
            width = None if sigma is None else sigma.to(dtype)
            kernel = product_kernel(scaled, placed, width, extent, rule)
        return kernel.to(weight.dtype)


def check_elements(weight: Tensor, positions: Tensor) -> None:
    """Raise an error if weight and positions don't fit, or are no floating tensors."""
    check_floating('weight', weight)
    check_floating('positions', positions)
    if weight.ndim == 0 or weight.shape[-1] == 0:
        raise ValueError(
            'weight must have the shape (*kernels, count), for a convolution '
            '(out, in // groups, count), with one element at least, got '
            f'{tuple(weight.shape)}'
        )
    wanted, given = tuple(weight.shape), tuple(positions.shape)
    if len(given) != len(wanted) + 1 or any(
        size not in (1, full) for size, full in zip(given[1:], wanted)
    ):
        raise ValueError(
            f'positions must have the shape (ndim, {", ".join(map(str, wanted))}) '
            f"after weight's {wanted}, or 1 in an axis that shares them, got {given}"
        )
    if not 1 <= given[0] <= 3:
        raise ValueError(f'positions must have 1, 2 or 3 axes in front, got {given[0]}')


def _check_sigma(sigma: Tensor | None, positions: Tensor, name: str) -> None:
    wanted = INTERPOLATIONS[name].has_sigma
    if wanted and sigma is None:
        raise ValueError(f'interpolation {name!r} needs sigma, shaped like positions')
    if not wanted and sigma is not None:
        raise ValueError(f'interpolation {name!r} has no sigma: leave it None')
    if sigma is not None:
        check_floating('sigma', sigma)
    if sigma is not None and sigma.shape != positions.shape:
        raise ValueError(
            f'sigma must be shaped like positions, {tuple(positions.shape)}, '
            f'got {tuple(sigma.shape)}'
        )
