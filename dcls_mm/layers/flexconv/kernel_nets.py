"""Small networks that compute a kernel's values at coordinates in [-1, 1].

They don't use torch.nn.Linear: code that initialises or decays a model's linear layers
by their class, as mmengine's init_cfg does, means layers of features and would
overwrite the kernels.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...functional._arguments import as_bool, as_float, as_int
from ...functional._torch import in_full
from ..shared import SharedParameters


class Affine(SharedParameters):
    """The map ``x W^T + b`` in the dtype of x, (n, in) -> (n, out).

    Args:
        in_features, out_features: sizes.
        bound: initial weights are uniform in +-bound.
        bias_bound: initial biases are uniform in +-bias_bound.
    """

    def __init__(
        self, in_features: int, out_features: int, bound: float, bias_bound: float = 0.0
    ):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.bias = nn.Parameter(torch.empty(out_features))
        self.bound, self.bias_bound = bound, bias_bound
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.uniform_(self.weight, -self.bound, self.bound)
        nn.init.uniform_(self.bias, -self.bias_bound, self.bias_bound)

    def forward(self, x: Tensor) -> Tensor:
        return in_full(F.linear, x, self.weight.to(x.dtype), self.bias.to(x.dtype))


class KernelNet(nn.Module):
    """The base of kernel networks, coordinates (n, axes) -> values (n, out_features).

    Subclasses create their parameters and define ``hidden(coordinates)``, which returns
    (n, hidden). An affine layer, ``output``, follows.

    Args:
        axes: number of spatial axes.
        out_features: values per coordinate.
        hidden_channels: hidden units per layer, at least 1.
        num_layers: number of hidden layers, at least 1.

    Raises:
        ValueError, TypeError: an argument doesn't fit; the message names it.
    """

    def __init__(
        self, axes: int, out_features: int, hidden_channels: int, num_layers: int
    ):
        super().__init__()
        as_int('kernel_net.hidden_channels', hidden_channels, minimum=1)
        as_int('kernel_net.num_layers', num_layers, minimum=1)
        self.output = Affine(hidden_channels, out_features, hidden_channels**-0.5)

    def forward(self, coordinates: Tensor) -> Tensor:
        return self.output(self.hidden(coordinates))

    def hidden(self, coordinates: Tensor) -> Tensor:
        raise NotImplementedError(f'{type(self).__name__} must define hidden()')

    def reset_parameters(self) -> None:
        """Draw new initial values."""
        for module in self.modules():
            reset = getattr(module, 'reset_parameters', None)
            if module is not self and reset is not None:
                reset()


class GaborFilter(SharedParameters):
    """The map ``exp(-|gamma * R (x - mu)|^2 / 2) * sin(w x + b)``.

    It maps coordinates x, (n, axes), to (n, hidden). Each unit has a gamma, mu and w
    per axis, and with ``rotated`` a rotation R by 2 pi theta.

    Args:
        axes, hidden_channels: sizes.
        alpha: initial gammas are drawn from Gamma(alpha, 1).
        spread: initial mus are uniform in +-spread.
        scale: initial ws are uniform in +-gamma * scale / sqrt(axes).
        rotated: whether each unit learns the angle of its envelope; 2 axes only.
    """

    def __init__(
        self,
        axes: int,
        hidden_channels: int,
        alpha: float,
        spread: float,
        scale: float,
        rotated: bool,
    ):
        super().__init__()
        self.alpha, self.spread, self.scale = alpha, spread, scale
        shape = hidden_channels, axes
        self.weight = nn.Parameter(torch.empty(shape))
        self.bias = nn.Parameter(torch.empty(hidden_channels))
        self.gamma = nn.Parameter(torch.empty(shape))
        self.mu = nn.Parameter(torch.empty(shape))
        self.theta = nn.Parameter(torch.empty(hidden_channels)) if rotated else None
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        # On the CPU, as torch 2.6 can't draw from Gamma on the device 'meta'.
        alpha = torch.full(self.gamma.shape, self.alpha, device='cpu')
        gamma = torch.distributions.Gamma(alpha, 1.0, validate_args=False)
        self.gamma.copy_(gamma.sample())
        nn.init.uniform_(self.mu, -self.spread, self.spread)
        bound = self.weight.shape[1] ** -0.5
        nn.init.uniform_(self.weight, -bound, bound)
        self.weight.mul_(self.scale * self.gamma)
        nn.init.uniform_(self.bias, -math.pi, math.pi)
        if self.theta is not None:
            nn.init.uniform_(self.theta)

    def forward(self, coordinates: Tensor) -> Tensor:
        dtype = coordinates.dtype
        offset = coordinates.unsqueeze(1) - self.mu.to(dtype)
        if self.theta is not None:
            offset = (self._rotations(dtype) * offset.unsqueeze(-2)).sum(-1)
        envelope = torch.exp(-((self.gamma.to(dtype) * offset) ** 2).sum(-1) / 2)
        weight, bias = self.weight.to(dtype), self.bias.to(dtype)
        phase = in_full(F.linear, coordinates, weight, bias)
        return envelope * torch.sin(phase)

    def highest_frequency(self, deviations: float) -> Tensor:
        """Return the highest frequency over units and axes.

        It is in periods per unit of the coordinates. The spectrum of a unit is a
        Gaussian about w / 2 pi, with standard deviation gamma / 2 pi along the axes of
        its envelope.

        Args:
            deviations: the number of standard deviations that count.
        """
        widths = self.gamma.abs()
        if self.theta is not None:
            rotations = self._rotations(self.gamma.dtype)
            turned = rotations * self.gamma.unsqueeze(-1)
            widths = torch.linalg.vector_norm(turned, dim=1)
        return (self.weight.abs() + deviations * widths).amax() / (2 * math.pi)

    def _rotations(self, dtype: torch.dtype) -> Tensor:
        """Return the rotations R, (hidden, 2, 2)."""
        assert self.theta is not None
        angle = 2 * math.pi * self.theta.to(dtype)
        cos, sin = angle.cos(), angle.sin()
        return torch.stack((cos, sin, -sin, cos), -1).view(-1, 2, 2)


class MAGNet(KernelNet):
    """A multiplicative anisotropic Gabor network.

    ``h_0 = g_0(x)`` and ``h_i = g_i(x) * (W_i h_(i-1) + b_i)`` for i up to
    ``num_layers``, followed by an affine layer; the g_i are Gabor filters.

    Args:
        axes, out_features, hidden_channels: see :class:`KernelNet`.
        spread: initial centres of the filters are uniform in +-spread, at most +-1.
        num_layers: number of products; there is one more filter.
        input_scale: scale of the initial frequencies.
        rotated: whether the filters learn their angle; 2 axes only.

    Raises:
        ValueError, TypeError: an argument doesn't fit; the message names it.

    Source: arXiv 2110.08059, section on MAGNets; initial values of its published code.
    """

    def __init__(
        self,
        axes: int,
        out_features: int,
        spread: float,
        hidden_channels: int = 32,
        num_layers: int = 3,
        input_scale: float = 25.6,
        rotated: bool = False,
    ):
        super().__init__(axes, out_features, hidden_channels, num_layers)
        if as_float('kernel_net.input_scale', input_scale) <= 0:
            raise ValueError(
                f'kernel_net.input_scale must be positive, got {input_scale}'
            )
        if as_bool('kernel_net.rotated', rotated) and axes != 2:
            raise ValueError(
                f'kernel_net.rotated needs 2 axes to turn, the layer has {axes}'
            )
        self.filters: Any = nn.ModuleList(
            GaborFilter(
                axes,
                hidden_channels,
                alpha=6 / (layer + 1),
                spread=min(spread, 1.0),
                scale=input_scale / math.sqrt(num_layers + 1),
                rotated=rotated,
            )
            for layer in range(num_layers + 1)
        )
        bound = hidden_channels**-0.5
        self.linears = nn.ModuleList(
            Affine(hidden_channels, hidden_channels, bound) for _ in range(num_layers)
        )

    def hidden(self, coordinates: Tensor) -> Tensor:
        values = self.filters[0](coordinates)
        for linear, gabor in zip(self.linears, self.filters[1:]):
            values = gabor(coordinates) * linear(values)
        return values

    def highest_frequencies(self, deviations: float = 2.0) -> Tensor:
        """Return that of each filter, (num_layers + 1,); see :class:`GaborFilter`.

        Their sum bounds the network's frequency: the frequencies of a product are sums
        of those of its factors.
        """
        return torch.stack([g.highest_frequency(deviations) for g in self.filters])


class SIREN(KernelNet):
    """A network of sines.

    ``h_i = sin(omega_0 (W_i h_(i-1) + b_i))``, where h_0 are the coordinates.

    Args:
        axes, out_features, hidden_channels: see :class:`KernelNet`.
        spread: unused, as sines have no centre.
        num_layers: number of sine layers (published code counts the output layer too).
        omega_0: the frequency scale, positive.

    Raises:
        ValueError, TypeError: an argument doesn't fit; the message names it.

    Source: arXiv 2006.09661, and 2102.02611 for kernels.
    """

    def __init__(
        self,
        axes: int,
        out_features: int,
        spread: float,
        hidden_channels: int = 32,
        num_layers: int = 2,
        omega_0: float = 30.0,
    ):
        super().__init__(axes, out_features, hidden_channels, num_layers)
        if as_float('kernel_net.omega_0', omega_0) <= 0:
            raise ValueError(f'kernel_net.omega_0 must be positive, got {omega_0}')
        self.omega_0 = omega_0
        bound = math.sqrt(6 / hidden_channels) / omega_0
        self.linears = nn.ModuleList(
            Affine(hidden_channels if i else axes, hidden_channels, b, 1.0)
            for i, b in enumerate([1 / axes] + [bound] * (num_layers - 1))
        )

    def hidden(self, coordinates: Tensor) -> Tensor:
        values = coordinates
        for linear in self.linears:
            values = torch.sin(self.omega_0 * linear(values))
        return values


class MLP(KernelNet):
    """A baseline of affine layers with ReLU between them.

    Args:
        axes, out_features, hidden_channels: see :class:`KernelNet`.
        spread: the first layer's initial kinks are within about +-spread.
        num_layers: number of hidden layers.

    Raises:
        ValueError, TypeError: an argument doesn't fit; the message names it.
    """

    def __init__(
        self,
        axes: int,
        out_features: int,
        spread: float,
        hidden_channels: int = 32,
        num_layers: int = 2,
    ):
        super().__init__(axes, out_features, hidden_channels, num_layers)
        first, others = math.sqrt(6 / axes), math.sqrt(6 / hidden_channels)
        self.linears = nn.ModuleList([Affine(axes, hidden_channels, first, spread)])
        for _ in range(num_layers - 1):
            self.linears.append(Affine(hidden_channels, hidden_channels, others))

    def hidden(self, coordinates: Tensor) -> Tensor:
        values = coordinates
        for linear in self.linears:
            values = linear(values).relu()
        return values


KERNEL_NETS = {'magnet': MAGNet, 'siren': SIREN, 'mlp': MLP}


def build_kernel_net(
    cfg: str | dict[str, Any], axes: int, out_features: int, spread: float
) -> KernelNet:
    """Build a network of ``KERNEL_NETS`` from its name, or from a dict.

    Args:
        cfg: the name, or a dict with the name as ``type`` and the network's arguments.
        axes, out_features, spread: see :class:`MAGNet`.

    Raises:
        ValueError, TypeError: there is no such network, or an argument doesn't fit.
    """
    options = dict(cfg) if isinstance(cfg, dict) else {'type': cfg}
    name = options.pop('type', None)
    if not isinstance(name, str) or name not in KERNEL_NETS:
        raise ValueError(
            f'kernel_net must name one of {list(KERNEL_NETS)}, or be a dict with one '
            f'as type, got {cfg!r}'
        )
    own = {'axes', 'out_features', 'spread'} & set(options)
    if own:
        raise ValueError(f'kernel_net must leave out {sorted(own)}, set by the layer')
    try:
        return KERNEL_NETS[name](axes, out_features, spread, **options)
    except TypeError as error:
        raise TypeError(f'kernel_net {cfg!r}: {error}') from error
