"""Parameter and FLOP counts of an mmdet or mmseg config's model."""

from typing import Any, NamedTuple

import torch
from mmengine.analysis import FlopAnalyzer
from torch import Tensor, nn

from ..checks.channels import input_channels
from ..checks.errors import ConfigError, errors_about
from ..deploy.parts import only_resizes
from .configs import load_config
from .trained import build_model

# The height and width of usual published figures.
PUBLISHED_SHAPES = {
    'mmdet': (800, 1280),
    'mmrotate': (1024, 1024),
    'mmseg': (512, 2048),
}

# RoI heads whose parts are called on regions of one shape; subclasses may do more.
PLAIN_ROI_HEADS = ('StandardRoIHead', 'CascadeRoIHead')


class Complexity(NamedTuple):
    """The counts of a model.

    Attributes:
        parameters: those of the whole model.
        flops: multiply-adds for one image.
        shape: (height, width) of the image in pixels.
    """

    parameters: int
    flops: int
    shape: tuple[int, int]


def count_config(
    config: str,
    shape: list[int] | None = None,
    cfg_options: dict[str, Any] | None = None,
) -> Complexity:
    """Count parameters and FLOPs of a config's model; see :func:`count_model`.

    Args:
        config: the file.
        shape: [height, width], or [side] of a square; by default that of published
            figures, 800x1280 for detectors, 1024x1024 for rotated ones and 512x2048 for
            segmentors.
        cfg_options: overrides, by dotted key.

    Raises:
        ConfigError: the config does not exist or can't be read, the model can't be
            built or run, or the shape is not one or two positive numbers.
    """
    cfg = load_config(config, cfg_options=cfg_options)
    height_width = _height_width(shape, PUBLISHED_SHAPES[cfg.default_scope])
    model = build_model(cfg, config)
    size = '{}x{}'.format(*height_width)
    with errors_about(
        f'{config}: {type(model).__name__} cannot be run on an image of {size}',
        (RuntimeError, ValueError, TypeError, AttributeError),
    ):
        return count_model(model, height_width)


def count_model(model: nn.Module, shape: tuple[int, int]) -> Complexity:
    """Count parameters and FLOPs of a detector or segmentor with mmengine's counter.

    As in published figures, a FLOP is one multiplication with its addition, and
    segmentors are counted without their auxiliary heads. Whatever the image shows, the
    box heads of a two-stage detector get the maximum number of proposals (1000), and
    its mask heads the maximum number of detections (100); mmdet 3's own count runs the
    mask heads of cascades on all 1000.

    Args:
        model: an mmdet or mmseg model; it is run once, in evaluation mode.
        shape: (height, width) of the image in pixels.
    """
    parameters = sum(p.numel() for p in model.parameters())
    channels = input_channels(getattr(model, 'backbone', model), shape)
    images = torch.zeros(1, channels, *shape)
    counter = FlopAnalyzer(_Forward(model).eval(), (images,))
    counter.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    counter.tracer_warnings('none')
    with torch.no_grad():
        return Complexity(parameters, counter.total(), shape)


class _Forward(nn.Module):
    """The part of a model that is counted, from an image to predictions."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor):
        roi_head = getattr(self.model, 'roi_head', None)
        if type(roi_head).__name__ in PLAIN_ROI_HEADS:
            features = self.model.extract_feat(images)
            outputs = [self.model.rpn_head(features), *self._regions(roi_head, images)]
            if getattr(self.model, 'with_semantic_head', False):  # of panoptic FPN
                outputs.append(self.model.semantic_head(features))
            return outputs
        if hasattr(self.model, 'decode_head'):
            if only_resizes(self.model.decode_head):
                return self.model(images, mode='tensor')
            size = tuple(images.shape[-2:])
            return self.model.encode_decode(images, [dict(img_shape=size)])
        return self.model(images, self._samples(images), mode='tensor')

    def _regions(self, roi_head: nn.Module, images: Tensor) -> list:
        limits = self.model.test_cfg
        counts = {'bbox': limits.rpn.max_per_img, 'mask': limits.rcnn.max_per_img}
        outputs = []
        for kind, count in counts.items():
            if not getattr(roi_head, f'with_{kind}'):
                continue
            extractors = _as_list(getattr(roi_head, f'{kind}_roi_extractor'))
            for extractor, head in zip(
                extractors, _as_list(getattr(roi_head, f'{kind}_head'))
            ):
                size = extractor.roi_layers[0].output_size
                shape = count, extractor.out_channels, *size
                outputs.append(head(images.new_zeros(shape)))
        return outputs

    def _samples(self, images: Tensor) -> list:
        # Some detectors (transformers) ask for the image's size.
        from mmdet.structures import DetDataSample

        size = tuple(images.shape[-2:])
        return [
            DetDataSample(
                metainfo=dict(
                    img_shape=size,
                    ori_shape=size,
                    pad_shape=size,
                    batch_input_shape=size,
                    scale_factor=(1.0, 1.0),
                )
            )
        ]


def _as_list(modules: nn.Module) -> list:
    return list(modules) if isinstance(modules, nn.ModuleList) else [modules]


def _height_width(shape: list[int] | None, default: tuple[int, int]) -> tuple[int, int]:
    if shape is None:
        return default
    if len(shape) not in (1, 2) or min(shape) < 1:
        raise ConfigError(
            '--shape must be a positive height and width in pixels, or one side, got '
            + ' '.join(map(str, shape))
        )
    return shape[0], shape[-1]
