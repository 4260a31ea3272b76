"""The parts of a model that are one function of tensors, and files of them."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..engine.config_checks import ConfigError

# Images by which a model is recorded, and others by which the record is checked: no
# feature map of a usual model, up to the stride 128, has a side of 1, for which
# torch.export would make a rule.
RECORDED_SHAPE = 2, 256, 320
CHECKED_SHAPES = (1, 320, 256), (3, 288, 384)

# The largest difference that rounding explains, of the largest value.
ROUNDING = 1e-4


class Part(nn.Module):
    """A part of a model as a function of images that gives a flat tuple of tensors.

    The images are (batch, channels, height, width), prepared as by the model's
    data_preprocessor: mean and std taken, padded.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(tensor for _, tensor in _flat(self.named_outputs(images)))

    def named_outputs(self, images: Tensor) -> dict[str, Any]:
        """Tensors, or nested lists of them, by name."""
        raise NotImplementedError(f'{type(self).__name__} must define named_outputs()')

    def names(self, images: Tensor) -> list[str]:
        """The names of the outputs."""
        return [name for name, _ in _flat(self.named_outputs(images))]


class Backbone(Part):
    """feature_0 and on: the feature maps."""

    def named_outputs(self, images: Tensor) -> dict[str, Any]:
        return {'feature': self.model.backbone(images)}


class Segmentor(Part):
    """logits (batch, classes, height, width), of the images' size."""

    def named_outputs(self, images: Tensor) -> dict[str, Any]:
        logits = self.model.decode_head(self.model.extract_feat(images))
        return {
            'logits': F.interpolate(
                logits,
                images.shape[2:],
                mode='bilinear',
                align_corners=self.model.align_corners,
            )
        }


class OneStageDetector(Part):
    """head_<i>_<level>: output i of the head; for anchors 0 scores, 1 boxes' deltas."""

    def named_outputs(self, images: Tensor) -> dict[str, Any]:
        return {'head': self.model.bbox_head(self.model.extract_feat(images))}


class TwoStageDetector(Part):
    """feature_<level> of the neck; of the RPN rpn_0_<level>: scores, rpn_1: deltas."""

    def named_outputs(self, images: Tensor) -> dict[str, Any]:
        features = self.model.extract_feat(images)
        return {'feature': features, 'rpn': self.model.rpn_head(features)}


# What 'model' exports, by an attribute that tells the kind of model.
KINDS: dict[str, Callable[[nn.Module], Part]] = {
    'decode_head': Segmentor,
    'rpn_head': TwoStageDetector,
    'bbox_head': OneStageDetector,
}
PARTS = ('backbone', 'model')


def take_part(model: nn.Module, part: str) -> Part:
    """A part of a model, in evaluation.

    Raises:
        ConfigError: the model has no such part that is one function of the images.
    """
    if part == 'backbone' and hasattr(model, 'backbone'):
        taken = Backbone(model)
    else:
        kinds = [KINDS[key] for key in KINDS if hasattr(model, key)]
        if part == 'backbone' or not kinds or hasattr(model, 'encoder'):
            raise ConfigError(
                f'--part {part}: a {type(model).__name__} has none that is a function '
                'of the images alone'
            )
        taken = kinds[0](model)
    return taken.eval()


def sample_images(model: nn.Module, shape: tuple[int, int, int]) -> Tensor:
    """Random images, (batch, channels, height, width), the same at every call."""
    first = next(m for m in model.backbone.modules() if isinstance(m, nn.Conv2d))
    batch, height, width = shape
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, first.in_channels, height, width, generator=generator)


def largest_difference(found: list[Tensor], expected: list[Tensor]) -> float:
    """Over all outputs, the largest difference relative to the largest value."""
    return max(
        float((f - e).abs().max() / e.abs().max().clamp(min=1e-12))
        for f, e in zip(found, expected)
    )


def check_difference(difference: float, what: str) -> None:
    """Raise a ConfigError unless the difference is one of rounding."""
    if not difference <= ROUNDING:
        raise ConfigError(
            f'{what} differs from the model by {difference:.2g} of its largest '
            f'output, more than rounding explains ({ROUNDING:g}); nothing is written'
        )


@contextmanager
def whole_files(folder: str, *names: str) -> Iterator[Path]:
    """A new folder whose files take their places in ``folder`` if all went well.

    Raises:
        ConfigError: one is there already, or they can't be written.
    """
    for name in names:
        if os.path.exists(os.path.join(folder, name)):
            raise ConfigError(
                f'--out: {os.path.join(folder, name)} exists; remove it, or choose '
                'another place'
            )
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix='.unfinished', dir=folder) as new:
            yield Path(new)
            for name in names:
                os.replace(os.path.join(new, name), os.path.join(folder, name))
    except OSError as error:
        raise ConfigError(f'--out {folder}: {error.strerror or error}') from error


def _flat(outputs: dict[str, Any]) -> Iterator[tuple[str, Tensor]]:
    for name, value in outputs.items():
        if isinstance(value, Tensor):
            yield name, value
        else:
            yield from _flat({f'{name}_{i}': item for i, item in enumerate(value)})
