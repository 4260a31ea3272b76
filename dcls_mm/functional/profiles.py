"""Kernels as products of profiles, for any interpolation and any transform."""

import torch
from torch import Tensor

from ._torch import column, in_full
from .interpolation import NORMALIZATION_EPS, Interpolation, finite_or_nan


def product_kernel(
    weight: Tensor,
    positions: Tensor,
    sigma: Tensor | None,
    extent: tuple[int, ...],
    rule: Interpolation,
) -> Tensor:
    """Sum weight times the outer product of the axes' profiles over the elements.

    Args:
        weight: (*kernels, count), floating.
        positions, sigma: (ndim, *kernels, count), or 1 along an axis that shares them,
            in the dtype of ``weight``.
        extent: (ndim,).

    Returns:
        (*kernels, *extent).
    """
    taps = torch.arange(max(extent), dtype=weight.dtype, device=weight.device)
    middle: float | Tensor = extent[0] // 2
    if len(set(extent)) > 1:
        middle = column([size // 2 for size in extent], like=positions)
    centers = finite_or_nan(positions) + middle
    width = None if sigma is None else finite_or_nan(sigma).unsqueeze(-1)
    profiles = rule.profile(taps, centers.unsqueeze(-1), width)
    profiles = [of_axis[..., :size] for of_axis, size in zip(profiles, extent)]
    if rule.normalized:
        # Not by torch.prod, whose gradient looks for zeros on the host.
        total = profiles[0].sum(-1)
        for profile in profiles[1:]:
            total = total * profile.sum(-1)
        weight = weight / (total + NORMALIZATION_EPS)
    product = weight.unsqueeze(-1)
    for profile in profiles[:-1]:
        product = (product.unsqueeze(-1) * profile.unsqueeze(-2)).flatten(-2)
    last = profiles[-1]
    if last.shape[-2] != product.shape[-2]:  # the elements share their positions
        last = last.expand(*last.shape[:-2], product.shape[-2], -1)
    kernel = in_full(torch.matmul, product.transpose(-1, -2), last)
    return kernel.reshape(*weight.shape[:-1], *extent)
