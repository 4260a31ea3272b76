"""An ordinary convolution that uses the backends for large kernels."""

import torch
from torch import Tensor, nn

from ..functional._arguments import IntOrTuple, as_tuple
from .base import ConstructedConvNd
from .geometry import extent_of


class LargeKernelConv2d(ConstructedConvNd):
    """A torch.nn.Conv2d that convolves by :func:`dcls_mm.functional.convolve`.

    It has torch.nn.Conv2d's arguments, initial values and state_dict, so that either
    can replace the other. Large depthwise kernels are many times faster on a CPU.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups:
            as in torch.nn.Conv2d.
        bias, padding_mode, device, dtype: the same.
        backend: a backend of ``functional.convolve`` to force; None chooses one.

    Raises:
        ValueError, TypeError: an argument doesn't fit; the message names it.

    Example:
        >>> import torch
        >>> from dcls_mm import LargeKernelConv2d
        >>> layer = LargeKernelConv2d(8, 8, 31, padding='same', groups=8)
        >>> layer.load_state_dict(torch.nn.Conv2d(8, 8, 31, groups=8).state_dict())
        <All keys matched successfully>
    """

    ndim = 2

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntOrTuple,
        stride: IntOrTuple = 1,
        padding: IntOrTuple | str = 0,
        dilation: IntOrTuple = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = 'zeros',
        device=None,
        dtype=None,
        *,
        backend: str | None = None,
    ):
        kernel_size = as_tuple('kernel_size', kernel_size, self.ndim, minimum=1)
        dilation = as_tuple('dilation', dilation, self.ndim, minimum=1)
        super().__init__(
            in_channels,
            out_channels,
            extent_of(kernel_size, dilation),
            kernel_size=kernel_size,
            dilation=dilation,
            stride=stride,
            padding=padding,
            groups=groups,
            padding_mode=padding_mode,
            backend=backend,
        )
        self.weight = nn.Parameter(
            torch.empty(*self.kernel_channels, *kernel_size, device=device, dtype=dtype)
        )
        self.register_bias(bias, device, dtype)
        self.reset_parameters()

    def kernel(self) -> Tensor:
        """Return the weights, (out, in // groups, *extent), with zeros if dilated."""
        if self.extent == self.kernel_size:
            return self.weight
        kernel = self.weight.new_zeros(*self.kernel_channels, *self.extent)
        kernel[:, :, :: self.dilation[0], :: self.dilation[1]] = self.weight
        return kernel
