"""Any registered model with convolutions replaced, in its neck and heads too."""

import copy
import inspect
from functools import partial
from typing import Any

from mmengine.registry import MODELS
from torch import nn

from .conv_replacement import Replaced, replace_convs
from .replacement_config import check_config, log_replaced, replacement

# The keys of a replacement, as ReplacedConvBackbone has them.
KEYS = ('layer', 'name', 'kernel_size', 'depthwise', 'start', 'share_positions')


def ReplacedConvModel(
    model_type: str | type, replace: dict | list[dict], **model: Any
) -> nn.Module:
    """Build a detector or segmentor, and replace convolutions anywhere in it.

    In a config it adds three keys to the model's own, which stay where everything that
    reads or overrides them expects them::

        model = dict(
            type='ReplacedConvModel',
            model_type='RTMDet',
            replace=dict(
                layer=dict(type='DCLSConv2d', dilated_kernel_size=17),
                kernel_size=5,
                depthwise=True,
            ),
        )

    The result is the model itself, here an ``RTMDet``. Its state_dict has the plain
    model's keys, and ``P`` (and ``SIG``) beside the weights of the new layers. It loads
    its own checkpoints and those of the plain model, whose kernels are what layers with
    ``start='conv'`` start from. So with a trained model as ``load_from`` or in an
    ``init_cfg``, training goes on from its function.

    Args:
        model_type: the model's registered type, or its class.
        replace: which convolutions become which layers: a dict of ``layer``, ``name``,
            ``kernel_size``, ``depthwise``, ``start`` and ``share_positions``, see
            :class:`.ReplacedConvBackbone`; or a list of those, applied in order. Names
            are inside the model, such as 'backbone.stage1'.
        model: the model's other settings.

    Raises:
        ValueError, TypeError: an argument is invalid, or a choice matches nothing; the
            message names it.
        KeyError: no model is registered as ``model_type``.
    """
    choices = _choices(replace)
    if not isinstance(model_type, str) and not inspect.isclass(model_type):
        raise TypeError(
            "model_type must be the model's registered type, such as 'RTMDet', "
            f'got {model_type!r}'
        )
    plain = dict(model, type=model_type)
    built = _build(plain)
    log_replaced(_replace(built, choices))
    # Not a closure, so that the model can be copied and pickled.
    built.init_weights = partial(_init_weights, built, plain, choices)
    return built


def _init_weights(built: Any, plain: dict, choices: list[dict[str, Any]]) -> None:
    """Initialize the model with plain convolutions, then replace them.

    This way its ``init_cfg`` finds the convolutions that it was written for. As in
    mmengine, a second call only warns.
    """
    if getattr(built, 'is_init', False):
        type(built).init_weights(built)
        return
    initialized = _build(plain)
    initialized.init_weights()
    _replace(initialized, choices)
    # An optimizer or a wrapper may hold the parameters, so only copy the values.
    built.load_state_dict(initialized.state_dict())
    built._is_init = True


def _build(plain: dict) -> Any:
    # A copy, as models write into their config: mmseg's can't be built from it again.
    return MODELS.build(copy.deepcopy(plain))


def _replace(model: nn.Module, choices: list[dict[str, Any]]) -> list[Replaced]:
    return [done for choice in choices for done in replace_convs(model, **choice)]


def _choices(replace: Any) -> list[dict[str, Any]]:
    """Return the arguments of replace_convs for each replacement of a config."""
    given = replace if isinstance(replace, (list, tuple)) else [replace]
    if not given:
        raise ValueError('replace must have at least one replacement, got none')
    choices = []
    for one in given:
        check_config('replace', one)
        if unknown := sorted(set(one) - set(KEYS)):
            raise ValueError(
                f'replace has unknown keys {unknown}; it takes {list(KEYS)}'
            )
        choices.append(replacement(**{'layer': None, **one}))
    return choices
