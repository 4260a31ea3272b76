"""ConvNeXt as in ``dcls_mm.backbones.ConvNeXtDCLS``, of torch alone.

The parameters have the same names, and the outputs are the same: a test compares the
two. So the network can be timed where OpenMMLab is not installed.
"""

from collections.abc import Callable, Sequence

import paths  # noqa: F401
import torch
from torch import Tensor, nn

from dcls_mm.layers import DCLSConv2d


class LayerNorm2d(nn.LayerNorm):
    """Layer norm over the channels of channels_last images."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Block(nn.Module):
    """Depthwise convolution, layer norm and two layers of a MLP over the channels."""

    def __init__(self, channels: int, depthwise: nn.Module):
        super().__init__()
        self.dwconv = depthwise
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.pwconv1 = nn.Linear(channels, 4 * channels)
        self.act = nn.GELU()
        self.pwconv2 = nn.Linear(4 * channels, channels)
        self.gamma = nn.Parameter(torch.full((channels,), 1e-6))

    def forward(self, x: Tensor) -> Tensor:
        y = self.dwconv(x)
        if not y.is_contiguous(memory_format=torch.channels_last):
            y = y.to(self.norm.weight.dtype, memory_format=torch.channels_last)
        y = self.pwconv2(self.act(self.pwconv1(self.norm(y.permute(0, 2, 3, 1)))))
        y = y.permute(0, 3, 1, 2)
        scale = self.gamma.view(-1, 1, 1)
        if y.dtype == scale.dtype or x.device.type == 'cpu':
            return torch.addcmul(x, scale, y)
        with torch.autocast(x.device.type, enabled=False):
            return torch.addcmul(x, scale, y)


class ConvNeXt(nn.Module):
    """A ConvNeXt without stochastic depth that returns the outputs of all stages.

    Args:
        depths, dims: blocks and channels of each stage.
        depthwise: from channels to the depthwise convolution of a block.
    """

    def __init__(
        self,
        depths: Sequence[int],
        dims: Sequence[int],
        depthwise: Callable[[int], nn.Module],
    ):
        super().__init__()
        stem = nn.Sequential(nn.Conv2d(3, dims[0], 4, 4), LayerNorm2d(dims[0], 1e-6))
        between = [
            nn.Sequential(LayerNorm2d(before, 1e-6), nn.Conv2d(before, after, 2, 2))
            for before, after in zip(dims, dims[1:])
        ]
        self.downsample_layers = nn.ModuleList([stem, *between])
        self.stages = nn.ModuleList(
            nn.Sequential(*(Block(dim, depthwise(dim)) for _ in range(depth)))
            for depth, dim in zip(depths, dims)
        )
        for i, dim in enumerate(dims):
            self.add_module(f'norm{i}', LayerNorm2d(dim, eps=1e-6))
        for stage in self.stages:
            first, *others = (block.dwconv for block in stage)
            for layer in others:
                if isinstance(layer, DCLSConv2d):
                    layer.share_positions(first)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map (batch, 3, H, W) to (batch, dim, H / 2^(2+i), ...) per stage."""
        in_stages = torch.contiguous_format
        if x.device.type == 'cpu' or not x.is_contiguous():
            in_stages = torch.channels_last
        x = x.contiguous(memory_format=torch.channels_last)
        outputs = []
        for i, (downsample, stage) in enumerate(
            zip(self.downsample_layers, self.stages)
        ):
            x = stage(downsample(x).contiguous(memory_format=in_stages))
            x = x.contiguous(memory_format=torch.channels_last)
            outputs.append(getattr(self, f'norm{i}')(x).contiguous())
        return outputs
