"""Construction of a kernel from weights and positions."""

from torch import Tensor

from ._arguments import IntOrTuple, as_tuple, check_elements, check_sigma
from .interpolation import INTERPOLATIONS, interpolation_name
from .scatter import construct_checked


def construct_kernel(
    weight: Tensor,
    positions: Tensor,
    sigma: Tensor | None = None,
    *,
    kernel_size: IntOrTuple,
    interpolation: str = 'bilinear',
) -> Tensor:
    """Spread weighted elements at real-valued positions over a dense kernel.

    ``K = sum_e w_e * outer_a(profile_a(e))`` over the elements e and the axes a. All
    interpolations but 'bilinear' are normalised: ``w_e`` is divided by the sum of its
    element's taps (+ 1e-7). K is computed in at least float32, also under autocast.

    Positions beyond the extent are allowed: the taps outside are dropped, and the
    normalised interpolations divide by the sum of those inside. A position or sigma
    that is NaN or infinite makes every tap of its kernel NaN. A sigma of zero gives the
    narrowest profile and gets no gradient (|sigma| has none there).

    Args:
        weight: (*kernels, count); for a convolution (out, in // groups, count).
        positions: (ndim, *kernels, count), in pixels from the kernel's centre, which is
            tap ``extent // 2``; row i belongs to spatial axis i. An axis of size 1 is
            shared along that axis of ``weight``.
        sigma: shaped like ``positions``, in pixels; for 'max' and 'gauss' only.
        kernel_size: the extent in taps; one int, or one per axis.
        interpolation: 'bilinear' ('v0'), 'triangle' ('v1'), 'max' or 'gauss'.

    Returns:
        (*kernels, *kernel_size), in the dtype of ``weight``.

    Raises:
        ValueError, TypeError: a tensor, the extent or the interpolation doesn't fit.

    Example:
        Halfway between two columns, each gets half of the weight:

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
    has_sigma = INTERPOLATIONS[interpolation].has_sigma
    check_sigma(sigma, positions, interpolation, has_sigma)
    return construct_checked(weight, positions, sigma, extent, interpolation)
