"""The building blocks of :class:`.convnext.ConvNeXtDCLS`."""

import inspect
import math
from functools import cache

import torch
import torch.nn.functional as F
from mmcv.cnn import build_conv_layer
from mmcv.cnn.bricks import DropPath
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as run_checkpointed

from ..functional._arguments import as_tuple
from ..functional._torch import ask
from ..layers.geometry import extent_of

# Multiply-adds from which oneDNN's convolution is faster than a product of matrices,
# and the batch from which torch chooses it with one thread.
LEAST_PRODUCTS = 10**7
LEAST_ROWS = 16


class LayerNorm2d(nn.LayerNorm):
    """Layer norm over the channels of (batch, channels, height, width).

    The result is channels_last. So should the input be, or torch copies it in the
    forward and again in the backward pass.
    """

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x.permute(0, 2, 3, 1))
        return y.permute(0, 3, 1, 2)


class ChannelsLinear(nn.Linear):
    """A torch.nn.Linear over the channels of (batch, height, width, channels).

    On a CPU torch multiplies float32 matrices by MKL, which does not use AVX-512 on
    every processor that has it. There oneDNN's 1x1 convolution, the same sums, takes
    half the time.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self._convolves(x):
            return super().forward(x)
        batch, height, width, channels = x.shape
        if torch.get_num_threads() == 1:
            # With one thread torch gives oneDNN only batches that are not small.
            x = x.reshape(batch * height, 1, width, channels)
        kernel = self.weight[:, :, None, None]
        y = F.conv2d(x.permute(0, 3, 1, 2), kernel, self.bias)
        return y.permute(0, 2, 3, 1).reshape(batch, height, width, -1)

    def _convolves(self, x: Tensor) -> bool:
        if x.device.type != 'cpu' or x.ndim != 4 or torch.compiler.is_compiling():
            return False
        many = math.prod(x.shape) * self.out_features >= LEAST_PRODUCTS
        rows = x.shape[0] * x.shape[1] >= LEAST_ROWS or torch.get_num_threads() > 1
        if not (many and rows and _has_avx512() and torch.backends.mkldnn.enabled):
            return False
        state = ask(x)
        dtypes = {x.dtype, self.weight.dtype}
        return dtypes == {torch.float32} and state.autocast is None and state.is_plain


@cache
def _has_avx512() -> bool:
    return torch.backends.cpu.get_cpu_capability() == 'AVX512'


class GlobalResponseNorm(nn.Module):
    """The global response normalization of ConvNeXt-V2.

    x (batch, height, width, channels) -> x * (1 + gamma * n) + beta, where n is the
    L2 norm of a channel over its image, divided by the mean of these norms over the
    channels. At the start gamma and beta are 0, so it changes nothing.

    Args:
        channels: channels of input and output.
        eps: what is added to the mean.

    Source: arXiv 2301.00808, section 3.2.
    """

    def __init__(self, channels: int, eps: float = 1e-6):
        super().__init__()
        self.eps = eps
        self.gamma = nn.Parameter(torch.zeros(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        # Squares overflow in float16, and a sum over an image loses digits in bfloat16.
        wide = torch.promote_types(x.dtype, torch.float32)
        norms = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True, dtype=wide)
        response = norms / (norms.mean(dim=-1, keepdim=True) + self.eps)
        # One pass over the image, in its own dtype.
        scale = (1 + self.gamma * response).to(x.dtype)
        return torch.addcmul(self.beta.to(x.dtype), x, scale)

    def extra_repr(self) -> str:
        return f'{len(self.gamma)}, eps={self.eps}'


class ConvNeXtBlock(nn.Module):
    """A residual block: depthwise conv, layer norm and a two-layer MLP over channels.

    Args:
        channels: channels of input and output.
        depthwise_cfg: config of the depthwise conv, as in
            :class:`.convnext.ConvNeXtDCLS`.
        drop_path_rate: probability of skipping the block for a sample in training.
        layer_scale_init_value: initial scale of the residual; 0 means no scale.
        with_cp: recompute the block in the backward pass to save memory.
        grn: whether the MLP has a :class:`GlobalResponseNorm`, as in ConvNeXt-V2.
        norm_eps: what the layer norm adds to the variance.
    """

    def __init__(
        self,
        channels: int,
        depthwise_cfg: dict,
        drop_path_rate: float = 0.0,
        layer_scale_init_value: float = 1e-6,
        with_cp: bool = False,
        grn: bool = False,
        norm_eps: float = 1e-6,
    ):
        super().__init__()
        self.with_cp = with_cp
        self.dwconv = build_depthwise(depthwise_cfg, channels)
        self.norm = nn.LayerNorm(channels, eps=norm_eps)
        self.pwconv1 = ChannelsLinear(channels, 4 * channels)
        self.act = nn.GELU()
        self.grn = GlobalResponseNorm(4 * channels) if grn else None
        self.pwconv2 = ChannelsLinear(4 * channels, channels)
        if layer_scale_init_value > 0:
            scale = torch.full((channels,), float(layer_scale_init_value))
            self.gamma = nn.Parameter(scale)
        else:
            self.register_parameter('gamma', None)
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels, height, width) to the same shape."""
        if self.with_cp and torch.is_grad_enabled():
            # The re-entrant form breaks under DDP with shared positions.
            return run_checkpointed(self._forward, x, use_reentrant=False)
        return self._forward(x)

    def _forward(self, x: Tensor) -> Tensor:
        y = self.dwconv(x)
        if not y.is_contiguous(memory_format=torch.channels_last):
            # The layer norm would copy it itself, in the backward pass again. Autocast
            # has the norm in the dtype of its parameters: one copy changes both.
            y = y.to(self.norm.weight.dtype, memory_format=torch.channels_last)
        y = self.act(self.pwconv1(self.norm(y.permute(0, 2, 3, 1))))
        if self.grn is not None:
            y = self.grn(y)
        y = self.pwconv2(y).permute(0, 3, 1, 2)
        if self.gamma is None:
            return x + self.drop_path(y)
        scale = self.gamma.view(-1, 1, 1)
        if self.training and self.drop_path.drop_prob:
            # A sample is dropped by its scale, which costs no pass over the image.
            scale = self.drop_path(scale.expand(len(x), -1, -1, -1))
        if y.dtype == scale.dtype or x.device.type == 'cpu':
            return torch.addcmul(x, scale, y)
        with ask(x).without_autocast():  # a GPU's would copy y to the wider dtype
            return torch.addcmul(x, scale, y)


def build_depthwise(cfg: dict, channels: int) -> nn.Module:
    """Build a depthwise conv from a config, with the padding that keeps the size.

    Raises:
        TypeError: ``cfg`` is not a dict.
        ValueError: the config sets what the backbone sets, or its extent is missing or
            even.
    """
    if not isinstance(cfg, dict):
        raise TypeError(
            "depthwise_cfg must be a dict, such as dict(type='DCLSConv2d', "
            f'kernel_count=34, dilated_kernel_size=17), got {cfg!r}'
        )
    own = {'in_channels', 'out_channels', 'groups', 'stride', 'padding'} & set(cfg)
    if own:
        raise ValueError(
            f'depthwise_cfg must leave out {sorted(own)}: the backbone sets them'
        )
    conv_type = cfg.get('type')
    if not inspect.isclass(conv_type) and MODELS.get(str(conv_type)) is None:
        raise ValueError(
            "depthwise_cfg must name a registered conv as 'type', such as "
            f"'DCLSConv2d' or 'Conv2d', got {conv_type!r}"
        )
    size_key = 'kernel_size' if 'kernel_size' in cfg else 'dilated_kernel_size'
    if size_key not in cfg:
        raise ValueError(
            'depthwise_cfg must give kernel_size or dilated_kernel_size, '
            f'got {dict(cfg)}'
        )
    size = as_tuple(f'depthwise_cfg.{size_key}', cfg[size_key], 2, minimum=1)
    dilation = as_tuple('depthwise_cfg.dilation', cfg.get('dilation', 1), 2, minimum=1)
    if size_key == 'dilated_kernel_size':
        dilation = (1, 1)
    extent = extent_of(size, dilation)
    if any(e % 2 == 0 for e in extent):
        raise ValueError(
            f'depthwise_cfg: the extent must be odd to keep the size, got {extent}'
        )
    padding = tuple(e // 2 for e in extent)
    return build_conv_layer(cfg, channels, channels, padding=padding, groups=channels)


def stem(in_channels: int, channels: int, norm_eps: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, kernel_size=4, stride=4),
        LayerNorm2d(channels, eps=norm_eps),
    )


def downsampling(before: int, after: int, norm_eps: float) -> nn.Sequential:
    return nn.Sequential(
        LayerNorm2d(before, eps=norm_eps),
        nn.Conv2d(before, after, kernel_size=2, stride=2),
    )
