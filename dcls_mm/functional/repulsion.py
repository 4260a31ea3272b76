"""A penalty on elements of a kernel that are less than a pixel apart."""

import math

import torch
from torch import Tensor

from ._arguments import check_floating


def repulsion(positions: Tensor) -> Tensor:
    """Return the mean of ``max(0, 1 - distance)`` over the pairs within each kernel.

    With m elements per kernel this is ``2 / (m (m - 1) out in) * sum over kernels and
    pairs i < j of max(0, 1 - |p_i - p_j|)``. The distance is Euclidean, as in the
    published code. Two elements at the same position are at the maximum, where the
    gradient is 0. Memory grows with m^2.

    Args:
        positions: (axes, *kernels, m) in pixels.

    Returns:
        A number from 0 to 1; 0 if there are no pairs.

    Raises:
        ValueError, TypeError: ``positions`` is not such a tensor.

    Source: arXiv 2112.03740.
    """
    check_floating('positions', positions)
    if positions.ndim < 2 or len(positions) == 0:
        raise ValueError(
            'positions must have the shape (axes, *kernels, count), '
            f'got {tuple(positions.shape)}'
        )
    # All pairs, twice: the gradient of an index would be summed by sorting on a GPU.
    # Beyond 2 pixels along an axis the distance doesn't matter, and for positions like
    # 1e38 it would be infinite.
    apart = (positions.unsqueeze(-1) - positions.unsqueeze(-2)).clamp(-2, 2)
    distances = torch.linalg.vector_norm(apart, dim=0)
    _, *kernels, count = positions.shape
    overlaps = (1 - distances).clamp(min=0).triu(1)
    return overlaps.sum() / max(1, math.prod(kernels) * count * (count - 1) // 2)
