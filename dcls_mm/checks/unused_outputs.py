"""A check for unused outputs of a backbone, whose norms would learn nothing."""

from collections.abc import Sequence
from typing import Any

from mmengine.config import Config

from .config_tree import type_name
from .errors import ConfigError

_BACKBONE = 'ConvNeXtDCLS'
_DEFAULT_OUTPUTS = (0, 1, 2, 3)


def check_outputs(cfg: Config) -> list[str]:
    """Look for outputs of ConvNeXtDCLS that neither neck nor heads use.

    The layer norm of such an output gets no gradient, so DDP stops in the second step
    with an error that names a parameter's number only.

    Returns:
        What to log about it.

    Raises:
        ConfigError: the training uses DDP without find_unused_parameters.
    """
    model = cfg.get('model') or {}
    backbone = model.get('backbone') or {}
    backbone = backbone.get('backbone') or backbone  # of ReplacedConvBackbone
    if type_name(backbone) != _BACKBONE:
        return []
    stages = stages_of(backbone)
    read = _read_outputs(model, len(stages))
    if read is None or len(read) == len(stages):
        return []
    unread = [f'norm{stage}' for i, stage in enumerate(stages) if i not in read]
    trouble = (
        f'model.backbone.out_indices={stages}: nothing uses the output of '
        f'{", ".join(unread)}, which then gets no gradient; set out_indices='
        f'{tuple(stages[i] for i in sorted(read))} and adapt the inputs of neck and '
        'heads (in_channels, start_level, in_index)'
    )
    wrapper = cfg.get('model_wrapper_cfg') or {}
    looks = cfg.get('find_unused_parameters') or wrapper.get('find_unused_parameters')
    if cfg.get('launcher', 'none') != 'none' and not looks:
        raise ConfigError(f'{trouble}, or set find_unused_parameters=True for DDP')
    return [trouble]


def stages_of(backbone: dict) -> tuple[int, ...]:
    """Return the stages whose output a ConvNeXtDCLS returns, by its config."""
    stages = backbone.get('out_indices', _DEFAULT_OUTPUTS)
    return tuple(stages) if isinstance(stages, Sequence) else (stages,)


def _read_outputs(model: dict, count: int) -> set[int] | None:
    """Return which of ``count`` outputs neck or heads use, or None if unknown."""
    if neck := model.get('neck'):
        first = neck[0] if isinstance(neck, Sequence) else neck
        start = first.get('start_level')
        return set(range(start, count)) if isinstance(start, int) else None
    heads = [*_listed(model.get('decode_head')), *_listed(model.get('auxiliary_head'))]
    if not heads or not all('in_index' in head for head in heads):
        return None
    return {i % count for head in heads for i in _listed(head['in_index'])}


def _listed(value: Any) -> list:
    """Return one value, several or None as a list."""
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]
