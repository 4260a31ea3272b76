"""Adaptive pooling as matrix products, which every format supports at any size."""

import torch
from torch import Tensor, nn

from ..layers.module_places import find_places, put


class UnrolledPooling(nn.Module):
    """torch.nn.AdaptiveAvgPool2d as a product of matrices.

    ONNX has only averages over a whole image or over windows of a fixed size. Output i
    of n averages the pixels from floor(i size / n) to ceil((i + 1) size / n).

    Args:
        output_size: (rows, columns).
    """

    def __init__(self, output_size: tuple[int, int]):
        super().__init__()
        self.output_size = output_size

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels, height, width) to (batch, channels, *output_size)."""
        rows, columns = self.output_size
        pooled = _averages(x, rows, x.shape[2]) @ x
        return pooled @ _averages(x, columns, x.shape[3]).transpose(0, 1)


def _averages(x: Tensor, count: int, size: int) -> Tensor:
    """Return a matrix (count, size) of which each row averages a window."""
    window = torch.arange(count, device=x.device).unsqueeze(1)
    first = window * size // count
    end = ((window + 1) * size + count - 1) // count
    pixel = torch.arange(size, device=x.device)
    inside = (pixel >= first) & (pixel < end)
    return inside.to(x.dtype) / (end - first).to(x.dtype)


def unroll_pooling(model: nn.Module) -> None:
    """Replace every AdaptiveAvgPool2d of a model in place, unless it pools to 1x1."""
    for layer, names in find_places(model, nn.AdaptiveAvgPool2d).items():
        size = layer.output_size
        size = tuple(size) if isinstance(size, (tuple, list)) else (size, size)
        if size != (1, 1) and None not in size:
            put(model, names, UnrolledPooling(size))
