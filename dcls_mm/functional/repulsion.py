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
    *kernels, count = positions.shape[1:]
    one, other, every_pair = _pairs(positions)
    # Beyond 2 pixels along an axis the distance doesn't matter, and for positions like
    # 1e38 it would be infinite.
    distances = torch.linalg.vector_norm((one - other).clamp(-2, 2), dim=0)
    overlaps = (1 - distances).clamp(min=0)
    total = (overlaps if every_pair else overlaps.triu(1)).sum()
    return total / max(1, math.prod(kernels) * count * (count - 1) // 2)


def _pairs(positions: Tensor) -> tuple[Tensor, Tensor, bool]:
    """Return both elements of each pair, and whether each pair is there once.

    If not, they are (axes, *kernels, m, m): the gradient of an index, which a CPU sums
    up faster, is found by sorting on CUDA.
    """
    if positions.device.type != 'cpu':
        return positions.unsqueeze(-1), positions.unsqueeze(-2), False
    i, j = torch.triu_indices(positions.shape[-1], positions.shape[-1], 1)
    return positions[..., i], positions[..., j], True
