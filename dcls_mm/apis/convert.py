"""The conversion of a checkpoint file by ``tools/model_converters/convert.py``."""

import io
import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .._files import write_whole
from .._listing import listing
from ..checkpoint import read_checkpoint, tensors_of
from ..checks.errors import ConfigError, errors_about
from ..conversion import from_convnext_dcls, from_mmdet2, from_mmseg0
from ..conversion.convnext_formats import FORMATS
from ..conversion.convnext_weights import start_of_convnext
from ..conversion.licences import notices
from ..conversion.openmmlab_weights import BACKBONE, DETECTOR_PARTS
from ..conversion.recognition import Match, prefixes_in, recognise
from ..conversion.state_dicts import under
from ..conversion.unrecognised import why_not

# The forms of the published code's weights, which already have positions.
PUBLISHED = {
    'dcls': from_convnext_dcls,
    'dcls-mmdet2': from_mmdet2,
    'dcls-mmseg0': from_mmseg0,
}
RELEASES = [name for name in FORMATS if name not in PUBLISHED]
FORMS = [*PUBLISHED, *RELEASES]

# How the options of a plain ConvNeXt are called by what converts it.
PLAIN_OPTIONS = {
    'extent': 'dilated_kernel_size',
    'interpolation': 'interpolation',
    'sigma': 'sigma',
}
DEFAULTS = {'dilated_kernel_size': 17, 'interpolation': 'bilinear'}


def convert_file(
    source: str,
    destination: str,
    form: str | None = None,
    version: str | None = None,
    extent: int | None = None,
    interpolation: str | None = None,
    sigma: float | None = None,
    sync_positions: bool = True,
    prefix: str | None = None,
    sha256: str | None = None,
    force: bool = False,
) -> str:
    """Convert a checkpoint of another package, and write it whole or not at all.

    A detector or segmentor whose backbone is a ConvNeXt keeps its other parts.

    Args:
        source: path or URL.
        destination: the file to write; missing folders are created.
        form: the form of ``source``, one of ``FORMS``; by default recognised.
        version, sync_positions: for the forms of the published ConvNeXt-dcls.
        extent: in pixels, for the forms of a plain ConvNeXt; 17 by default.
        interpolation, sigma: of the layers to start from a plain ConvNeXt, as in
            :func:`..conversion.from_convnext`.
        prefix: convert only the keys that start with this, and strip it.
        sha256: the checksum that ``source`` must have, in hexadecimal digits.
        force: replace ``destination`` if it exists.

    Returns:
        One line that says what was done.

    Raises:
        ConfigError: an option is wrong, or the weights do not have this form.
        CheckpointError: the checkpoint can't be read, or holds no weights.
    """
    plain = dict(extent=extent, interpolation=interpolation, sigma=sigma)
    if form is not None:
        _check_options(form, version, plain, sync_positions)
    if os.path.exists(destination) and not force:
        raise ConfigError(f'{destination} exists; pass --force to replace it')
    checkpoint = read_checkpoint(source, sha256=sha256)
    weights: Any = tensors_of(checkpoint, source)
    if prefix is not None:
        weights = under(weights, prefix)
    said = form
    start = ''
    if form is None:
        form, start = _form_of(weights, source)
        said = f'{form}, recognised by its keys'
        _check_options(form, version, plain, sync_positions)
        if start and start != BACKBONE:
            weights, start = under(weights, start), ''
    has_positions = any(key.endswith('.dwconv.P') for key in weights)
    if form in PUBLISHED and version is None and has_positions:
        raise ConfigError(_open_version(weights, source))
    given = ''.join(f', --{k} {v}' for k, v in plain.items() if v is not None)
    with errors_about(f'{source}{given}', (ValueError, TypeError)):
        if form in PUBLISHED:
            converted = PUBLISHED[form](
                weights, version=version, sync_positions=sync_positions
            )
            settings, notes = dict(interpolation=version), []
        else:
            options = {PLAIN_OPTIONS[k]: v for k, v in plain.items() if v is not None}
            settings = {**DEFAULTS, **options}
            made = start_of_convnext(weights, release=form, prefix=start, **settings)
            converted, notes = made.weights, _notes(made.match, made.error, source)
    buffer = io.BytesIO()
    torch.save(dict(meta=_meta(checkpoint), state_dict=converted), buffer)
    try:
        write_whole(destination, buffer.getvalue())
    except OSError as error:
        raise ConfigError(f'{destination} could not be written: {error}') from error
    parts = [f'{destination}: {len(converted)} tensors of {source} ({said})']
    parts.append(f'depthwise_cfg takes {_depthwise_cfg(converted, settings)}')
    return '; '.join([*parts, *notes])


def _form_of(weights: Mapping[str, Tensor], source: str) -> tuple[str, str]:
    """Recognise the form of weights, and what its keys start with.

    Raises:
        ConfigError: it is none, or more than one part of a model is a ConvNeXt.
    """
    match = recognise(weights)
    if match:
        return match.name, ''
    inside = prefixes_in(weights)
    if len(inside) != 1:
        raise ConfigError(f'{source}: {why_not(weights)}')
    ((prefix, match),) = inside.items()
    if match.name != 'dcls' or prefix != BACKBONE:
        return match.name, prefix
    detects = any(key.startswith(DETECTOR_PARTS[:2]) for key in weights)
    return ('dcls-mmdet2' if detects else 'dcls-mmseg0'), prefix


def _check_options(
    form: str, version: str | None, plain: Mapping[str, Any], sync_positions: bool
) -> None:
    """Raise a ConfigError for options that are for other forms."""
    given = [f'--{option}' for option, value in plain.items() if value is not None]
    if form in PUBLISHED and given:
        raise ConfigError(
            f'{given[0]} is for {", ".join(RELEASES)}; {form} weights have their own'
        )
    if form not in PUBLISHED and (version is not None or not sync_positions):
        raise ConfigError(
            f'--version and --no-sync-positions are for {", ".join(PUBLISHED)}; '
            f'{form} weights have no positions'
        )


def _notes(match: Match, error: float, source: str) -> list[str]:
    """List what else a user should know of a conversion."""
    found = []
    if error:
        found.append(f'the kernels have a relative error of up to {error:.2g}')
    if match.left:
        found.append(f'not used: {listing(match.left, 4)}')
    return found + notices(match, source)


def _open_version(weights: Mapping[str, Tensor], source: str) -> str:
    if any(key.endswith('.dwconv.SIG') for key in weights):
        has, choice = 'has', 'gauss (as published) or max'
    else:
        has, choice = 'has no', 'v0 (as published) or v1'
    return f'{source} {has} SIG, so its version is unclear; pass --version {choice}'


def _meta(checkpoint: Mapping) -> dict[str, Any]:
    """Return what the checkpoint says about classes, under today's keys."""
    meta = checkpoint.get('meta')
    if not isinstance(meta, Mapping):
        return {}
    names = {'CLASSES': 'classes', 'PALETTE': 'palette'}
    dataset_meta = {new: meta[old] for old, new in names.items() if meta.get(old)}
    dataset_meta = meta.get('dataset_meta') or dataset_meta
    return {'dataset_meta': dataset_meta} if dataset_meta else {}


def _depthwise_cfg(converted: Mapping[str, Tensor], settings: Mapping[str, Any]) -> str:
    """Return the config settings that these weights need, as far as they are known."""
    counts = {v.shape[-1] for k, v in converted.items() if k.endswith('.dwconv.P')}
    parts = [f'kernel_count={"/".join(map(str, sorted(counts)))}']
    parts += [
        f'{name}={settings[name]!r}'
        for name in ('interpolation', 'dilated_kernel_size')
        if settings.get(name) not in (None, 'bilinear')
    ]
    return ', '.join(parts)
