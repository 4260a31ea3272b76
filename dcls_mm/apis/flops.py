"""Counts the parameters and FLOPs of an mmdet or mmseg config's model."""

from typing import Any, NamedTuple

import torch
from mmengine.analysis import FlopAnalyzer
from torch import Tensor, nn

from ..checks.channels import input_channels
from ..checks.errors import ConfigError, first_line
from .configs import load_config
from .trained import build_model

# Height and width for which figures are usually published.
PUBLISHED_SHAPES = {'mmdet': (800, 1280), 'mmseg': (512, 2048)}

# Whose heads are called on regions of one shape; heirs of theirs may do more.
PLAIN_ROI_HEADS = ('StandardRoIHead', 'CascadeRoIHead')


class Complexity(NamedTuple):
    """parameters: of the whole model; flops: multiply-adds for one image of shape."""

    parameters: int
    flops: int
    shape: tuple[int, int]


def count_config(
    config: str,
    shape: list[int] | None = None,
    cfg_options: dict[str, Any] | None = None,
) -> Complexity:
    """:func:`count_model` of the config in a file.

    Args:
        config: the file.
        shape: [height, width], or [side] of a square; by default the one of published
            figures, 800x1280 for detectors and 512x2048 for segmentors.
        cfg_options: what to override, by dotted key.

    Raises:
        ConfigError: no such file, a config that can't be read, a model that can't be
            built or run, a shape of other numbers.
    """
    cfg = load_config(config, cfg_options=cfg_options)
    height_width = _height_width(shape, PUBLISHED_SHAPES[cfg.default_scope])
    model = build_model(cfg, config)
    try:
        return count_model(model, height_width)
    except (RuntimeError, ValueError, TypeError, AttributeError) as error:
        size = '{}x{}'.format(*height_width)
        raise ConfigError(
            f'{config}: {type(model).__name__} cannot be run on an image of {size}: '
            f'{first_line(error)}'
        ) from error


def count_model(model: nn.Module, shape: tuple[int, int]) -> Complexity:
    """Parameters and FLOPs by mmengine's counter, of a detector or segmentor.

    As in published figures a FLOP is one multiplication with its addition, and
    segmentors are counted without their auxiliary heads. The box heads of a two-stage
    detector see as many regions as it proposes at most (1000), and its mask heads as
    many as it detects at most (100), whatever it finds in the image; mmdet 3's own
    count runs the mask heads of cascades on all 1000.

    Args:
        model: an mmdet or mmseg model; it is run once, in evaluation.
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
    """What of a model counts, from an image to predictions."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor):
        roi_head = getattr(self.model, 'roi_head', None)
        if type(roi_head).__name__ in PLAIN_ROI_HEADS:
            features = self.model.extract_feat(images)
            proposed = self.model.rpn_head(features)
            return proposed, *self._regions(roi_head, images)
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

    def _samples(self, images: Tensor) -> list | None:
        # Detectors, such as transformers, ask for the image's size; segmentors don't.
        if hasattr(self.model, 'decode_head'):
            return None
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
