"""A check that neck and heads expect what a ConvNeXtDCLS returns."""

from collections.abc import Iterator, Sequence
from typing import Any

from mmengine.config import Config

from ..checks.config_tree import type_name
from ..checks.errors import ConfigError
from ..checks.unused_outputs import stages_of
from .architectures import ARCHITECTURES

# Parts that read the backbone where there is no neck, by their keys in a model.
_HEADS = ('decode_head', 'auxiliary_head', 'panoptic_head')


def check_inputs(cfg: Config) -> None:
    """Compare ``in_channels`` and ``strides`` of neck and heads with the backbone's.

    Without it the first batch fails inside a convolution, or strides are silently
    those of another backbone.

    Raises:
        ConfigError: they differ; the message names the key and what it must be.
    """
    model = cfg.get('model') or {}
    backbone = model.get('backbone') or {}
    key = 'model.backbone'
    if 'backbone' in backbone:  # of ReplacedConvBackbone
        backbone, key = backbone['backbone'], f'{key}.backbone'
    if type_name(backbone) != 'ConvNeXtDCLS':
        return
    stages, widths = stages_of(backbone), _widths(backbone.get('arch', 'tiny'))
    if widths is None or not all(-4 <= stage < 4 for stage in stages):
        return  # building the backbone says what is wrong
    found = (
        ('in_channels', 'channels', [widths[stage] for stage in stages]),
        ('strides', 'strides', [4 * 2 ** (stage % 4) for stage in stages]),
    )
    for place, part in _readers(model):
        for name, words, outputs in found:
            wanted = part.get(name)
            wanted = list(wanted) if isinstance(wanted, Sequence) else wanted
            expected = _selected(outputs, part, wanted)
            if expected is not None and wanted != expected:
                raise ConfigError(
                    f'model.{place}.{name} must be {expected}, as {key} has the '
                    f'outputs of stages {", ".join(map(str, stages))} with '
                    f'{words} {outputs}, got {wanted}'
                )


def _readers(model: dict) -> Iterator[tuple[str, dict]]:
    """Yield the parts that read the backbone's outputs, with their keys."""
    neck = model.get('neck')
    if neck:
        first = neck[0] if isinstance(neck, Sequence) else neck
        yield ('neck[0]' if first is not neck else 'neck'), first
        return
    for name in _HEADS:
        heads = model.get(name)
        if isinstance(heads, Sequence):
            yield from ((f'{name}[{i}]', head) for i, head in enumerate(heads))
        elif heads:
            yield name, heads


def _selected(outputs: list[int], part: dict, wanted: Any) -> Any:
    """Return what a part should state instead of ``wanted``, or None if unknown.

    Necks and mmdet's heads read all outputs; mmseg's heads read ``in_index`` of them,
    by default the last.
    """
    index = part.get('in_index', -1 if isinstance(wanted, int) else None)
    if index is None:
        return outputs if isinstance(wanted, list) else None
    several = [index] if isinstance(index, int) else list(index)
    if not all(-len(outputs) <= i < len(outputs) for i in several):
        return None
    if isinstance(wanted, list):
        return [outputs[i] for i in several]
    return outputs[index] if isinstance(wanted, int) and index in several else None


def _widths(arch: Any) -> list[int] | None:
    settings = ARCHITECTURES.get(arch) if isinstance(arch, str) else arch
    widths = (settings or {}).get('dims')
    return list(widths) if widths is not None and len(widths) == 4 else None
