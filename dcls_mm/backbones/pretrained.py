"""Loading of a trained backbone's weights, with nothing silently lost."""

import re
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.logging import MMLogger
from mmengine.model import PretrainedInit
from torch import Tensor, nn

from .._listing import listing
from ..checkpoint import ContentError, read_checkpoint, tensors_of
from ..conversion import from_published, without_extent
from ..conversion.convnext_weights import ANY_SQUARE, read_convnext
from ..conversion.licences import notices
from ..conversion.recognition import prefixes_in, recognise
from ..conversion.state_dicts import under
from ..conversion.unrecognised import why_not
from ..functional._arguments import as_bool
from ..layers import DCLSConvNd
from ..layers.noted import StateDictError
from ..layers.plain_kernels import has_plain_kernel
from ..layers.resizing import adopted_shapes
from .architectures import ARCHITECTURES
from .weight_facts import differences, facts_of

# Keys that only a classifier's file has (head and final norm) or only a
# dense-prediction backbone (the norms of the stages' outputs).
OPTIONAL_KEYS = re.compile(r'(head|norm\d*)\.')

STAGE_KEYS = re.compile(r'(?:downsample_layers|stages)\.(\d+)\.')

SHOWN_KEYS = 8


def is_pretrained(cfg: dict | None) -> bool:
    """Return whether an init config loads a file, by mmengine's name or class."""
    kind = cfg.get('type') if isinstance(cfg, dict) else None
    return kind == 'Pretrained' or kind is PretrainedInit


def load_pretrained(
    backbone: nn.Module,
    checkpoint: str,
    prefix: str | None = None,
    map_location: str = 'cpu',
    version: str | None = None,
    any_extent: bool = False,
) -> None:
    """Load a checkpoint file into a ConvNeXt backbone.

    The file may hold a plain state_dict, an mmengine checkpoint or the published
    ``{'model': ...}``, with the keys of any format in ``conversion``, which is
    recognised and logged. Plain kernels start DCLS layers that have an element for each
    tap. Only a classifier's ``head`` and ``norm``, the outputs' ``norm0`` to ``norm3``
    and stages that the backbone does not build may be missing on either side, which is
    logged as a warning.

    Args:
        backbone: module to fill.
        checkpoint: path or URL.
        prefix: keep only keys that start with this, and strip it ('backbone.' for a
            detector's or segmentor's file).
        map_location: as in torch.load.
        version: version of the layers in a file of the published ConvNeXt-dcls code,
            whose positions are then reordered to the axes here: 'gauss' for its gauss
            files. The others are 'v0', which has the same order.
        any_extent: accept layers whose extent differs from the backbone's, see
            :func:`..conversion.without_extent`.

    Raises:
        ContentError: a ValueError; other keys are missing or left over, a shape
            differs, no key has the prefix, the file's positions differ where the
            backbone shares them, or their extent, interpolation or order of axes
            differs or may differ.
        CheckpointError: the file can't be read.
    """
    logger = MMLogger.get_current_instance()
    loaded = read_checkpoint(checkpoint, map_location)
    state_dict = backbone_state_dict(loaded, prefix, source=checkpoint)
    if version is not None:
        try:
            state_dict = from_published(
                state_dict, version=version, dilated_kernel_size=ANY_SQUARE
            )
        except ValueError as error:
            raise ContentError(f'{checkpoint}: {error}') from error
    state_dict = in_our_keys(backbone, state_dict, checkpoint)
    if as_bool('init_cfg.any_extent', any_extent):
        state_dict = without_extent(state_dict)
    skipped = match_keys(backbone, state_dict, source=checkpoint)
    try:
        with warnings.catch_warnings():  # of each layer's error; the largest is logged
            warnings.filterwarnings('ignore', '.*with a relative error of')
            backbone.load_state_dict(state_dict, strict=False)
    except StateDictError as error:
        raise ContentError(f'{checkpoint}: {error.reason}') from error
    layers = (m for m in backbone.modules() if isinstance(m, DCLSConvNd))
    error = max((layer.kernel_error for layer in layers), default=0.0)
    if error:
        logger.warning(
            f'{checkpoint}: elements give the plain kernels with a relative error of '
            f'up to {error:.2g}; narrower ones (initial_sigma), or more for a ring of '
            'taps around the kernel (kernel_count=81 for 7x7), leave less'
        )
    if skipped:
        logger.warning(f'{checkpoint}: ' + '; '.join(skipped))


def backbone_state_dict(
    checkpoint: Mapping, prefix: str | None = None, source: str = 'checkpoint'
) -> OrderedDict:
    """Return the weights in a loaded checkpoint, unwrapped and without ``prefix``.

    The metadata, which say how to read the layers' parameters, are kept.

    Raises:
        ContentError: the checkpoint holds no weights, or none with the prefix.
    """
    weights: Any = tensors_of(checkpoint, source)  # torch's metadata has no type
    inside = under(weights, prefix or '')
    if not inside:
        found = sorted({key.split('.')[0] + '.' for key in weights})
        raise ContentError(
            f"{source} has no keys with init_cfg's prefix {prefix!r}; its keys start "
            f'with {listing(found, SHOWN_KEYS)}'
        )
    return inside


def in_our_keys(
    backbone: nn.Module, state_dict: Mapping[str, Tensor], source: str
) -> Mapping[str, Tensor]:
    """Return a state_dict of any ConvNeXt format under the backbone's keys.

    Weights of a ConvNeXt with other kernels, which no format has, stay as they are.

    Raises:
        ContentError: the keys are of no format, and most are not the backbone's.
    """
    if recognise(state_dict) is None:
        own = backbone.state_dict().keys()
        # The norms in layers, which no format has, say nothing about the rest.
        keys = {key for key in state_dict if '.branch_norms.' not in key}
        if 2 * len(own & keys) > len(keys):
            return state_dict
        inside = any(f'backbone.{key}' in state_dict for key in own)
        if inside and not prefixes_in(state_dict):
            raise ContentError(
                f'{source} is of a detector or segmentor with such a backbone: give '
                "prefix='backbone.'"
            )
        raise ContentError(f'{source}: {why_not(state_dict)}')
    try:
        match, read = read_convnext(state_dict)
    except (ValueError, TypeError) as error:
        raise ContentError(f'{source}: {error}') from error
    unread = f'; not read: {listing(match.left, SHOWN_KEYS)}' if match.left else ''
    MMLogger.get_current_instance().info(
        f'{source}: weights with the keys of {match.form.title} ({match.name}){unread}'
    )
    for notice in notices(match, source):
        MMLogger.get_current_instance().warning(f'{source}: {notice}')
    return read


def match_keys(
    backbone: nn.Module, state_dict: Mapping[str, Tensor], source: str = 'checkpoint'
) -> list[str]:
    """Compare a state_dict with a backbone.

    Returns:
        Sentences about the optional keys that only one of them has.

    Raises:
        ContentError: they differ in any other way.
    """
    own = backbone.state_dict()
    started = _started_from_plain(backbone, state_dict)
    adopted = _adopted_shapes(backbone, state_dict)
    missing = [key for key in own if key not in state_dict and key not in started]
    left_over = [key for key in state_dict if key not in own]
    problems = [
        f'{what}: {listing(wrong, SHOWN_KEYS)}'
        for what, keys in (('missing', missing), ('not in the model', left_over))
        if (wrong := [key for key in keys if not _is_optional(key, backbone)])
    ]
    reshaped = [
        f'{key} {tuple(value.shape)} for {tuple(own[key].shape)}'
        for key, value in state_dict.items()
        if key in own
        and value.shape != adopted.get(key, own[key].shape)
        and key not in started
    ]
    if reshaped:
        problems.append(f'of another shape: {listing(reshaped, SHOWN_KEYS)}')
    if problems:
        raise ContentError(f'{source} {_misfit(backbone, state_dict, problems)}')
    _check_shared(backbone, state_dict, source)
    listed = (('not in the file, left as they were', missing), ('not used', left_over))
    return [f'{what}: {listing(keys, SHOWN_KEYS)}' for what, keys in listed if keys]


def _started_from_plain(
    backbone: nn.Module, state_dict: Mapping[str, Tensor]
) -> set[str]:
    """List the keys of DCLS layers that plain kernels in the state_dict will fill."""
    return {
        f'{name}.{parameter}'
        for name, module in backbone.named_modules()
        if isinstance(module, DCLSConvNd)
        and has_plain_kernel(module, state_dict, f'{name}.')
        for parameter in ('weight', 'P', 'SIG', 'local_weight')
    }


def _adopted_shapes(
    backbone: nn.Module, state_dict: Mapping[str, Tensor]
) -> dict[str, tuple[int, ...]]:
    """Return the shapes that parameters take over from a state_dict, by key."""
    metadata = getattr(state_dict, '_metadata', {})
    return {
        f'{name}.{parameter}': shape
        for name, module in backbone.named_modules()
        if isinstance(module, DCLSConvNd)
        for parameter, shape in adopted_shapes(
            module, state_dict, f'{name}.', metadata.get(name, {})
        ).items()
    }


def _misfit(
    backbone: Any, state_dict: Mapping[str, Tensor], problems: list[str]
) -> str:
    """Say what the file is and which arguments would load it, or else what differs."""
    file, own = facts_of(state_dict), facts_of(backbone.state_dict())
    arguments = []
    if file is not None and own is not None:
        arguments = differences(file, own, backbone.num_stages, ARCHITECTURES)
    if arguments:
        return f'is {file}: give the backbone {", ".join(arguments)}'
    return f'does not fit the backbone; {"; ".join(problems)}'


def _is_optional(key: str, backbone: Any) -> bool:
    """Return whether a key may be missing in the backbone or in a file."""
    stage = STAGE_KEYS.match(key)
    if stage is None:
        return OPTIONAL_KEYS.match(key) is not None
    return len(backbone.stages) <= int(stage[1]) < backbone.num_stages


def _check_shared(backbone, state_dict: Mapping[str, Tensor], source: str) -> None:
    """Check that the keys of a shared parameter agree, else the last would win."""
    first_key: dict[int, str] = {}
    for key, parameter in backbone.named_parameters(remove_duplicate=False):
        first = first_key.setdefault(id(parameter), key)
        if key in state_dict and not torch.equal(state_dict[first], state_dict[key]):
            raise ContentError(
                f'{source} has different values in {first} and {key}, which the '
                'backbone shares: build it with sync_positions=False'
            )
