"""What a backend is asked to do."""

from typing import NamedTuple

from torch import Tensor


class ConvolutionCall(NamedTuple):
    """The checked arguments of one convolution.

    Attributes:
        x: (batch, in, *size).
        kernel: (out, in // groups, *extent).
        bias: (out,) or None. Its dtype is the kernel's and that of ``x``, or will be
            by autocast.
        stride: one an axis.
        padding: zeros before and after, one an axis.
        groups: divides the input and the output channels.
    """

    x: Tensor
    kernel: Tensor
    bias: Tensor | None
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    groups: int
