"""The interpolations, by which an element spreads its weight over the taps of an axis.

Every interpolation of DCLS is a product of one-dimensional *profiles*, one per axis.
``INTERPOLATIONS`` holds them by name. To add one, write its profile and its row.

Source: arXiv 2112.03740 (bilinear), arXiv 2306.00817 (the others).
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# Avoids dividing by zero for an element far outside the extent, whose taps all vanish.
NORMALIZATION_EPS = 1e-7

# The width of a profile at sigma = 0, in pixels.
MAX_BASE_WIDTH = 1.0
GAUSS_BASE_WIDTH = 0.27


def bilinear_profile(taps: Tensor, center: Tensor, sigma: Tensor | None) -> Tensor:
    """Return 1 - r at floor(center) and r at the next tap, r being center's fraction.

    The values equal the triangle's. The gradient differs at integer centers: here it is
    the slope towards the next tap.
    """
    lower = center.detach().floor()
    distance = taps - lower
    first, second = (distance == 0).to(center.dtype), (distance == 1).to(center.dtype)
    # All taps are multiplied by the fraction, so that no NaN is hidden.
    return torch.lerp(first, second, center - lower)


def triangle_profile(taps: Tensor, center: Tensor, sigma: Tensor | None) -> Tensor:
    """Return relu(1 - |tap - center|)."""
    return (1 - (taps - center).abs()).relu()


def max_profile(taps: Tensor, center: Tensor, sigma: Tensor) -> Tensor:
    """Return relu(1 + |sigma| - |tap - center|), a triangle of learned width."""
    return (MAX_BASE_WIDTH + sigma.abs() - (taps - center).abs()).relu()


def gauss_profile(taps: Tensor, center: Tensor, sigma: Tensor) -> Tensor:
    """Return exp(-((tap - center) / (0.27 + |sigma|))^2 / 2)."""
    width = GAUSS_BASE_WIDTH + sigma.abs()
    distance = (taps - center) * (math.sqrt(0.5) / width)
    # Negligible values are set to zero, as denormal numbers (or products that become
    # denormal) slow arithmetic down several times. The distance is clamped first: the
    # square of 1e38 is infinite and has no gradient.
    most = -0.46 * math.log(torch.finfo(distance.dtype).tiny)
    farthest = math.sqrt(most)
    weights = distance.clamp(-farthest, farthest).square().neg().exp()
    return F.threshold(weights, 1.001 * math.exp(-most), 0.0)


class Interpolation(NamedTuple):
    """A row of ``INTERPOLATIONS``.

    Attributes:
        profile: ``(taps, center, sigma) -> weights``, in pixels from the kernel's first
            tap; ``taps`` is (extent,), the others (..., 1), the result (..., extent).
        normalized: whether an element's taps are divided by their sum (+ 1e-7).
        initial_sigma: the published initial sigma in pixels; None without a sigma.
        two_taps: whether it is linear between a position's two neighbouring taps.
    """

    profile: Callable[..., Tensor]
    normalized: bool
    initial_sigma: float | None
    two_taps: bool

    @property
    def has_sigma(self) -> bool:
        return self.initial_sigma is not None


INTERPOLATIONS = {
    'bilinear': Interpolation(bilinear_profile, False, None, True),
    'triangle': Interpolation(triangle_profile, True, None, True),
    'max': Interpolation(max_profile, True, 0.0, False),
    'gauss': Interpolation(gauss_profile, True, 0.23, False),
}

# The published package's names for the first two.
ALIASES = {'v0': 'bilinear', 'v1': 'triangle'}


def finite_or_nan(values: Tensor) -> Tensor:
    """Return ``values`` with NaN for infinity, without changing the gradient."""
    return values + (values - values)


def interpolation_name(name: str) -> str:
    """Return the key in ``INTERPOLATIONS`` for ``name``, which may be an alias.

    Raises:
        ValueError: ``name`` is neither a key nor an alias.
    """
    canonical = ALIASES.get(name, name) if isinstance(name, str) else None
    if canonical not in INTERPOLATIONS:
        raise ValueError(
            f'interpolation must be one of {sorted(INTERPOLATIONS)} '
            f"(or 'v0', 'v1' for the first two published forms), got {name!r}"
        )
    return canonical
