"""torch's own convolution, which supports every call: the baseline of benchmarks."""

import torch.nn.functional as F
from torch import Tensor

from .._torch import ConvolutionCall

CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def unsupported(call: ConvolutionCall) -> None:
    """Return None, as torch's convolution supports every call."""


def worthwhile(call: ConvolutionCall) -> bool:
    """Return True, as this backend is the last to be tried."""
    return True


def convolve(call: ConvolutionCall) -> Tensor:
    """Return the result of torch.nn.functional.convNd."""
    conv = CONVOLUTIONS[call.kernel.ndim - 2]
    return conv(
        call.x, call.kernel, call.bias, call.stride, call.padding, groups=call.groups
    )
