"""The parts of a model that are a single function of tensors, and their outputs."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checks.arguments import check_option
from ..checks.channels import input_channels
from ..checks.errors import ConfigError, refusals

# Shapes of the images that record a model, and of others that check the recording. No
# feature map of a usual model, up to stride 128, has a side of 1, which torch.export
# would specialise on.
RECORDED_SHAPE = 2, 256, 320
CHECKED_SHAPES = (1, 320, 256), (3, 288, 384)

# The largest difference that rounding explains, relative to the largest value.
ROUNDING = 1e-4


class Part(nn.Module):
    """A part of a model as a function from images to a flat tuple of tensors.

    The images are (batch, channels, height, width), normalised and padded as by the
    model's data_preprocessor.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(tensor for _, tensor in self._flat(images))

    def named_outputs(self, images: Tensor) -> dict[str, Any]:
        """Return tensors, or nested lists of them, by name."""
        raise NotImplementedError(f'{type(self).__name__} must define named_outputs()')

    def names(self, images: Tensor) -> list[str]:
        """Return the names of the outputs."""
        return [name for name, _ in self._flat(images)]

    def _flat(self, images: Tensor) -> Iterator[tuple[str, Tensor]]:
        for name, outputs in self.named_outputs(images).items():
            yield from flatten(outputs, name)


class Backbone(Part):
    """The feature maps: feature_0, feature_1 and so on."""

    def named_outputs(self, images: Tensor) -> dict[str, Any]:
        return {'feature': self.model.backbone(images)}


class Segmentor(Part):
    """logits (batch, classes, height, width), in the images' size."""

    def named_outputs(self, images: Tensor) -> dict[str, Any]:
        size = images.shape[2:]
        if only_resizes(self.model.decode_head):
            # Like encode_decode, whose warnings about sizes would make them constants.
            logits = self.model.decode_head(self.model.extract_feat(images))
            corners = self.model.align_corners
            logits = F.interpolate(logits, size, mode='bilinear', align_corners=corners)
        else:
            # Heads read the first size; one per image would fix the batch size.
            logits = self.model.encode_decode(images, [{'img_shape': size}])
        return {'logits': logits}


def only_resizes(head: nn.Module) -> bool:
    """Return whether a segmentor's head merely resizes its outputs to predict."""
    from mmseg.models.decode_heads.decode_head import BaseDecodeHead

    return all(
        getattr(type(head), name, None) is getattr(BaseDecodeHead, name)
        for name in ('predict', 'predict_by_feat')
    )


class OneStageDetector(Part):
    """head_<i>_<level>: output i of the head; with anchors 0 scores, 1 box deltas."""

    def named_outputs(self, images: Tensor) -> dict[str, Any]:
        return {'head': self.model.bbox_head(self.model.extract_feat(images))}


class TwoStageDetector(Part):
    """The neck's feature_<level>; the RPN's rpn_0_<level> (scores), rpn_1 (deltas)."""

    def named_outputs(self, images: Tensor) -> dict[str, Any]:
        features = self.model.extract_feat(images)
        return {'feature': features, 'rpn': self.model.rpn_head(features)}


# What '--part model' exports, by an attribute that reveals the kind of model.
KINDS: dict[str, Callable[[nn.Module], Part]] = {
    'decode_head': Segmentor,
    'rpn_head': TwoStageDetector,
    'bbox_head': OneStageDetector,
}
PARTS = ('backbone', 'model')


def take_part(model: nn.Module, part: str) -> Part:
    """Take a part of a model, in evaluation mode.

    Raises:
        ConfigError: the model has no such part that is a function of the images alone.
    """
    check_option('--part', part, PARTS)
    if part == 'backbone':
        kind = Backbone if hasattr(model, 'backbone') else None
    else:  # a model with an encoder of its own runs it with queries, in a loop
        known = [] if hasattr(model, 'encoder') else KINDS
        kind = next((KINDS[key] for key in known if hasattr(model, key)), None)
    if kind is None:
        raise ConfigError(
            f'--part {part}: a {type(model).__name__} has no such part that is known '
            'to be a function of the images alone'
            + (', but its backbone may be: --part backbone' if part == 'model' else '')
        )
    return kind(model).eval()


def sample_images(part: nn.Module, *shapes: tuple[int, int, int]) -> list[Tensor]:
    """Make random images (batch, channels, height, width), the same at every call.

    Args:
        part: module that takes the images and determines their number of channels.
        shapes: (batch, height, width) of each.

    Raises:
        ConfigError: ``part`` does not take images.
    """
    with refusals(f'{type(part).__name__} does not run on images alone'):
        channels = input_channels(part, shapes[0][1:])
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(batch, channels, *size, generator=generator)
        for batch, *size in shapes
    ]


def largest_difference(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Return the largest difference relative to the largest value, over all outputs.

    It is NaN if an output has a NaN, and infinite if numbers or shapes of outputs
    differ.
    """
    if [f.shape for f in found] != [e.shape for e in expected]:
        return math.inf
    differences = [_difference(f.double(), e.double()) for f, e in zip(found, expected)]
    return float(torch.stack(differences).max()) if differences else math.inf


def _difference(found: Tensor, expected: Tensor) -> Tensor:
    if not expected.numel():
        return torch.zeros((), dtype=torch.double)
    finite = expected.masked_fill(~expected.isfinite(), 0.0)
    # Equal infinities differ by NaN.
    apart = (found - expected).abs().masked_fill(found == expected, 0.0)
    return apart.max() / finite.abs().max().clamp(min=1e-12)


def check_difference(difference: float, what: str) -> None:
    """Raise a ConfigError unless rounding explains the difference."""
    if not difference <= ROUNDING:
        raise ConfigError(
            f'{what} differs from the model by {difference:.2g} of its largest '
            f'output, more than rounding explains ({ROUNDING:g}); nothing is written'
        )


def flatten(outputs: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of nested lists and dicts, each with a name.

    Raises:
        ConfigError: there is something else.
    """
    if isinstance(outputs, Tensor):
        yield name, outputs
    elif isinstance(outputs, (list, tuple)):
        for i, item in enumerate(outputs):
            yield from flatten(item, f'{name}_{i}')
    elif isinstance(outputs, Mapping):
        for key, item in outputs.items():
            yield from flatten(item, f'{name}_{key}')
    else:
        raise ConfigError(
            f'the output {name} is {type(outputs).__name__}; files hold only tensors'
        )
