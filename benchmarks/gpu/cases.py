"""The shapes that are timed, and the targets."""

from typing import NamedTuple

import torch

DTYPES = {
    'float16': torch.float16,
    'bfloat16': torch.bfloat16,
    'float32': torch.float32,
}

FORMATS = {
    'contiguous': torch.contiguous_format,
    'channels_last': torch.channels_last,
}

EXTENT = 17
COUNT = 34


class Images(NamedTuple):
    """A batch of square or oblong images."""

    batch: int
    height: int
    width: int

    def __str__(self):
        return f'{self.batch}x3x{self.height}x{self.width}'


class Stage(NamedTuple):
    """What the depthwise convolutions of one stage of a ConvNeXt get."""

    batch: int
    channels: int
    height: int
    width: int

    def __str__(self):
        return 'x'.join(map(str, self))


class Network(NamedTuple):
    depths: tuple
    dims: tuple


# As in dcls_mm.backbones, which needs OpenMMLab.
NETWORKS = {
    'tiny': Network((3, 3, 9, 3), (96, 192, 384, 768)),
    'small': Network((3, 3, 27, 3), (96, 192, 384, 768)),
    'base': Network((3, 3, 27, 3), (128, 256, 512, 1024)),
    'rehearsal': Network((2, 1, 1, 1), (4, 8, 8, 8)),
}

# Detection and segmentation, per GPU.
IMAGES = [Images(2, 800, 1280), Images(16, 512, 512)]
REHEARSED_IMAGES = [Images(1, 64, 64)]


def images_of(device) -> list[Images]:
    return REHEARSED_IMAGES if device.rehearsal else IMAGES


def stages_of(images: Images, network: Network) -> list[Stage]:
    return [
        Stage(images.batch, channels, images.height >> s, images.width >> s)
        for s, channels in enumerate(network.dims, start=2)
    ]


# Times faster than torch in its better memory format, at least. They were set for
# 2x96x200x320 in float16 on an H100.
CONVOLUTION_TARGET = 3
FORWARD_TARGET_MS = 0.150
LAYER_TARGET = 3
# The training step, relative to plain 7x7, at most; published for a V100: 1.07.
STEP_TARGET = 1.10
# Where the backend is chosen by itself, it may never be slower than this.
CHOSEN_TARGET = 0.95
