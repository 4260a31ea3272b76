"""torch's own convolution: serves every call, and is the peer of all benchmarks."""

import torch.nn.functional as F
from torch import Tensor

from .._torch import ConvolutionCall

CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def unsupported(call: ConvolutionCall) -> None:
    """None: torch's convolution serves every call."""


def worthwhile(call: ConvolutionCall) -> bool:
    """Always: it is the last to be asked."""
    return True


def convolve(call: ConvolutionCall) -> Tensor:
    """torch.nn.functional.convNd."""
    conv = CONVOLUTIONS[call.kernel.ndim - 2]
    return conv(
        call.x, call.kernel, call.bias, call.stride, call.padding, groups=call.groups
    )
