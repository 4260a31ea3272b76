"""Checks that the content of a checkpoint has the form that its users expect."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from .._listing import listing
from .errors import ContentError, short

# The keys under which mmengine looks for weights, and those of other packages too:
# averaged weights first, as timm reads its own files.
_KEYS = ('state_dict',)
_ANY_KEYS = ('state_dict_ema', 'model_ema', 'state_dict', 'model')
_SHOWN = 8
_WRAPPER = 'module.'


def weights_of(
    checkpoint: Any, filename: str, keys: Sequence[str] = _KEYS
) -> Mapping[str, Any]:
    """Return the state_dict in a checkpoint, or a checkpoint that is one itself.

    Args:
        checkpoint: as read from a file.
        filename: its name in the error message.
        keys: the keys to look under.

    Returns:
        Parameters and buffers by key, with torch's ``_metadata``; not a copy.

    Raises:
        ContentError: there is no state_dict, or an invalid one.
    """
    if not isinstance(checkpoint, Mapping):
        raise _no_weights(filename, f'a {_kind(checkpoint)}')
    weights, where = checkpoint, ''
    for key in keys:
        inner = checkpoint.get(key)
        if isinstance(inner, Mapping):
            weights, where = inner, f'{key} with '
            break
        if key in checkpoint and not isinstance(inner, Tensor):
            raise _no_weights(filename, f'{short(inner)} as {key}')
    if strange := [key for key in weights if type(key) is not str]:
        raise _no_weights(
            filename,
            f'{where}the key {short(strange[0])}, which is not the name of a weight',
        )
    if not any(isinstance(value, Tensor) for value in weights.values()):
        found = listing(weights, _SHOWN) or 'nothing'
        raise _no_weights(filename, f'{where}{found}')
    _check_metadata(weights, filename)
    return weights


def tensors_of(checkpoint: Any, filename: str) -> OrderedDict[str, Tensor]:
    """Return the tensors of the state_dict in a checkpoint of any package.

    Args:
        checkpoint, filename: see :func:`weights_of`.

    Returns:
        A copy, with the ``_metadata`` that say how to read the layers' parameters, and
        without the ``module.`` of a parallel model.

    Raises:
        ContentError: see :func:`weights_of`.
    """
    weights = weights_of(checkpoint, filename, _ANY_KEYS)
    tensors = OrderedDict(
        (key, value) for key, value in weights.items() if isinstance(value, Tensor)
    )
    tensors._metadata = OrderedDict(getattr(weights, '_metadata', None) or {})
    if all(key.startswith(_WRAPPER) for key in tensors):
        return without_wrapper(tensors)
    return tensors


def without_wrapper(weights: Mapping[str, Any]) -> OrderedDict[str, Any]:
    """Return a state_dict without the ``module.`` that parallel models prepend."""
    stripped = OrderedDict(
        (key.removeprefix(_WRAPPER), value) for key, value in weights.items()
    )
    stripped._metadata = metadata_without_wrapper(weights)
    return stripped


def metadata_without_wrapper(weights: Mapping[str, Any]) -> OrderedDict[str, Any]:
    """Return a state_dict's ``_metadata``, also under names without ``module.``.

    mmengine strips the prefix from the keys but not from these names, so a layer would
    not find its own notes.
    """
    metadata = OrderedDict(getattr(weights, '_metadata', None) or {})
    if any(key.startswith(_WRAPPER) for key in weights):
        for name, notes in list(metadata.items()):
            if f'{name}.'.startswith(_WRAPPER):
                metadata[f'{name}.'[len(_WRAPPER) : -1]] = notes
    return metadata


def _no_weights(filename: str, found: str) -> ContentError:
    return ContentError(
        f'checkpoint {filename} holds no weights, only {found}; it must be a '
        "state_dict (tensors by name), or a dict with one under 'state_dict'"
    )


def _check_metadata(weights: Mapping, filename: str) -> None:
    metadata = getattr(weights, '_metadata', OrderedDict())
    if not isinstance(metadata, Mapping) or not all(
        type(key) is str
        and isinstance(value, Mapping)
        and type(value.get('version')) in (int, type(None))
        for key, value in metadata.items()
    ):
        raise ContentError(
            f'checkpoint {filename}: the _metadata of its state_dict must be a dict of '
            'dicts by name, each with an integer as version, as torch writes them'
        )


def check_content(checkpoint: Any, filename: str) -> None:
    """Check the parts that mmengine, mmdet and mmseg use of any checkpoint.

    Raises:
        ContentError: a part has the wrong form.
    """
    weights_of(checkpoint, filename)
    if 'ema_state_dict' in checkpoint:
        weights_of({'state_dict': checkpoint['ema_state_dict']}, filename)
    meta = _check(checkpoint, filename, 'meta', Mapping, {})
    described = _check(meta, filename, 'dataset_meta', (Mapping, type(None)), None)
    for owner in (meta, described or {}):
        _check_names(owner, filename, 'meta')
        for key, value in owner.items():
            if key.lower() == 'classes' and not _are_names(value):
                raise ContentError(
                    f'checkpoint {filename}: meta {key} must be class names, got '
                    f'{short(value)}'
                )


def check_training(checkpoint: Any, filename: str) -> None:
    """Check the parts that ``Runner.resume`` needs.

    Raises:
        ContentError: one is missing, or has the wrong form.
    """
    needed = ('meta', 'message_hub', 'optimizer')
    parts = checkpoint if isinstance(checkpoint, Mapping) else ()
    if missing := [key for key in needed if key not in parts]:
        raise ContentError(
            f'checkpoint {filename} holds no {", ".join(missing)}, so training cannot '
            'resume from it; to start from its weights instead, leave out --resume '
            f'and pass --cfg-options load_from={filename}'
        )
    check_content(checkpoint, filename)
    for key in ('epoch', 'iter'):
        count = checkpoint['meta'].get(key)
        if type(count) is not int or count < 0:
            raise ContentError(
                f'checkpoint {filename}: meta {key} must be a count, got '
                f'{short(count)}; training cannot resume from it'
            )
    seed = checkpoint['meta'].get('seed')
    if seed is not None and (type(seed) is not int or not 0 <= seed < 2**32):
        raise ContentError(
            f'checkpoint {filename}: meta seed must be from 0 to 2**32 - 1 or left '
            f'out, got {short(seed)}'
        )
    hub = _check(checkpoint, filename, 'message_hub', Mapping)
    for key in ('log_scalars', 'runtime_info', 'resumed_keys'):
        _check_names(_check(hub, filename, key, Mapping), filename, key)
    for name, again in hub['resumed_keys'].items():
        if type(again) is not bool:
            raise ContentError(
                f'checkpoint {filename}: its resumed_keys must be True or False, got '
                f'{short(again)} for {short(name)}'
            )
    _check(checkpoint, filename, 'optimizer', Mapping)
    _check(checkpoint, filename, 'param_schedulers', (list, Mapping), [])


def _check(owner: Mapping, filename: str, key: str, kind: Any, default: Any = ...):
    value = owner.get(key, default)
    if value is default is not ... or isinstance(value, kind):
        return value
    found = 'nothing' if value is ... else f'a {_kind(value)}'
    wanted = 'a list or dict' if kind == (list, Mapping) else 'a dict'
    raise ContentError(
        f'checkpoint {filename}: its {key} must be {wanted}, got {found}'
    )


def _check_names(owner: Mapping, filename: str, key: str) -> None:
    if strange := [name for name in owner if type(name) is not str]:
        raise ContentError(
            f'checkpoint {filename}: the keys of its {key} must be strings, got '
            f'{short(strange[0])}'
        )


def _are_names(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(type(item) is str for item in value)
    return value is None or type(value) is str


def _kind(value: Any) -> str:
    return type(value).__name__
