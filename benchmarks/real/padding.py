"""TensorFlow's 'same' padding."""

from torch import Tensor, nn
from torch.nn import functional as F


class SamePad2d(nn.Module):
    """Zeros around an image, for ``ceil(size / stride)`` outputs per axis.

    An odd number of them has one more on the right and at the bottom, which
    torch.nn.Conv2d can't pad by itself.
    """

    def __init__(self, kernel_size: tuple[int, int], stride: tuple[int, int]):
        super().__init__()
        self.axes = list(zip(kernel_size, stride))

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = (_pads(n, *axis) for n, axis in zip(x.shape[-2:], self.axes))
        return F.pad(x, (*columns, *rows))


def _pads(size: int, kernel_size: int, stride: int) -> tuple[int, int]:
    outputs = -(-size // stride)
    total = max(0, (outputs - 1) * stride + kernel_size - size)
    return total // 2, total - total // 2
