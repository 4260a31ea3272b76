"""EfficientNet-Lite0 as a backbone, with its ImageNet weights."""

from mmengine.model import BaseModule
from mmengine.registry import MODELS
from real.efficientnet_lite0 import (
    INSTALL,
    EfficientNetLite0,
    F,
    find_weights,
    trained,
)
from torch import Tensor, nn

# The last blocks at strides 4, 8, 16 and 32, and their channels.
OUTPUT_BLOCKS = (2, 4, 10, 15)
CHANNELS = (24, 40, 112, 320)


@MODELS.register_module()
class Lite0Backbone(BaseModule):
    """The network without its classifier; batch norms keep the statistics they have."""

    def __init__(self, init_cfg: None = None):
        super().__init__(init_cfg)
        self.network = EfficientNetLite0()
        del self.network._conv_head, self.network._bn1, self.network._fc
        for block in self.network._blocks:
            if has_stride_one(block):  # its padding is the same on all sides
                conv = block._depthwise_conv
                conv.padding = tuple(size // 2 for size in conv.kernel_size)
                block.pad = nn.Identity()

    def init_weights(self) -> None:
        """Load the weights of the installed package."""
        path = find_weights()
        if path is None:
            raise FileNotFoundError(f'EfficientNet-Lite0 needs its weights: {INSTALL}')
        state = trained(path).state_dict()
        own = self.network.state_dict()
        self.network.load_state_dict({key: state[key] for key in own})

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Map (batch, 3, h, w) to images at strides 4, 8, 16 and 32."""
        network = self.network
        x = F.relu6(network._bn0(network._conv_stem(network.pad(x))))
        outputs = []
        for index, block in enumerate(network._blocks):
            x = block(x)
            if index in OUTPUT_BLOCKS:
                outputs.append(x)
        return tuple(outputs)

    def train(self, mode: bool = True):
        """Set the mode; batch norms stay in evaluation, as the batches are small."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self


def has_stride_one(block: nn.Module) -> bool:
    """Return whether a block's depthwise convolution keeps the size."""
    return block._depthwise_conv.stride == (1, 1)


def depthwise_convs(stride_one: bool) -> list[str]:
    """Return the names of the depthwise convolutions, of those with stride 1 or not."""
    return [
        f'_blocks.{i}._depthwise_conv'
        for i, block in enumerate(EfficientNetLite0()._blocks)
        if has_stride_one(block) is stride_one
    ]
