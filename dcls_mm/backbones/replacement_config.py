"""Arguments of :func:`.replace_convs` from a config, and what it did for the log."""

import inspect
from typing import Any

from mmengine.logging import print_log
from mmengine.registry import MODELS

from ..layers import DCLSConvNd
from .conv_replacement import Replaced


def check_config(key: str, cfg: Any) -> None:
    """Raise a TypeError if ``cfg`` is no config of something registered."""
    if not isinstance(cfg, dict):
        raise TypeError(
            f"{key} must be a config, a dict with a registered {key} as 'type', "
            f'got {cfg!r}'
        )


def replacement(layer: dict, **criteria: Any) -> dict[str, Any]:
    """Return the arguments of :func:`.replace_convs`, the model excepted.

    Args:
        layer: config of the layers: the ``type`` of a registered dcls_mm layer and the
            arguments that the replaced convolution does not determine.
        criteria: the other arguments, which are passed on.

    Raises:
        ValueError, TypeError: ``layer`` is invalid; the message says how.
    """
    check_config('layer', layer)
    options = {key: value for key, value in layer.items() if key != 'type'}
    if own := sorted({*DCLSConvNd.CONV_ARGUMENTS, 'bias'} & set(options)):
        raise ValueError(
            f'layer must leave out {own}: the replaced convolution sets them'
        )
    return dict(layer=_layer_class(layer.get('type')), **criteria, **options)


def log_replaced(replaced: list[Replaced]) -> None:
    lines = [f'{len(replaced)} convolutions replaced:', *map(str, replaced)]
    print_log('\n  '.join(lines), logger='current')


def _layer_class(layer_type: str | type | None) -> type:
    """Return the class that a config's ``layer.type`` names."""
    found = layer_type
    if not inspect.isclass(found):
        found = MODELS.get(str(found))
    if found is None:
        raise ValueError(
            "layer must name a registered layer as 'type', such as 'DCLSConv2d', "
            f'got {layer_type!r}'
        )
    return found
