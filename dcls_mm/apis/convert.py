"""The conversion of a checkpoint file by ``tools/model_converters/convert.py``."""

import io
import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .._files import write_whole
from ..checkpoint import read_checkpoint, tensors_of
from ..checks.errors import ConfigError, errors_about
from ..conversion import from_convnext, from_convnext_dcls, from_mmdet2, from_mmseg0
from ..conversion.convnext_formats import FORMATS

# The forms of the published code's weights, which already have positions.
PUBLISHED = {
    'dcls': from_convnext_dcls,
    'dcls-mmdet2': from_mmdet2,
    'dcls-mmseg0': from_mmseg0,
}
RELEASES = [name for name in FORMATS if name not in PUBLISHED]
FORMS = [*PUBLISHED, *RELEASES]

DEFAULT_EXTENT = 17


def convert_file(
    source: str,
    destination: str,
    form: str,
    version: str | None = None,
    extent: int | None = None,
    sync_positions: bool = True,
    sha256: str | None = None,
    force: bool = False,
) -> str:
    """Convert a checkpoint of another package, and write it whole or not at all.

    Args:
        source: path or URL.
        destination: the file to write; missing folders are created.
        form: the form of ``source``, one of ``FORMS``.
        version, sync_positions: for the forms of the published ConvNeXt-dcls.
        extent: in pixels, for the forms of a plain ConvNeXt; 17 by default.
        sha256: the checksum that ``source`` must have, in hexadecimal digits.
        force: replace ``destination`` if it exists.

    Returns:
        One line that says what was done.

    Raises:
        ConfigError: an option is wrong, or the weights do not have this form.
        CheckpointError: the checkpoint can't be read, or holds no weights.
    """
    options = _options(form, version, extent, sync_positions)
    if os.path.exists(destination) and not force:
        raise ConfigError(f'{destination} exists; pass --force to replace it')
    checkpoint = read_checkpoint(source, sha256=sha256)
    weights = tensors_of(checkpoint, source)
    has_positions = any(key.endswith('.dwconv.P') for key in weights)
    if form in PUBLISHED and version is None and has_positions:
        raise ConfigError(_open_version(weights, source))
    option = '' if extent is None else f', --extent {extent}'
    with errors_about(f'{source}{option}', (ValueError, TypeError)):
        converted = PUBLISHED.get(form, from_convnext)(weights, **options)
    buffer = io.BytesIO()
    torch.save(dict(meta=_meta(checkpoint), state_dict=converted), buffer)
    try:
        write_whole(destination, buffer.getvalue())
    except OSError as error:
        raise ConfigError(f'{destination} could not be written: {error}') from error
    return (
        f'{destination}: {len(converted)} tensors of {source} ({form}); '
        f'depthwise_cfg takes {_depthwise_cfg(converted, version, options)}'
    )


def _options(
    form: str, version: str | None, extent: int | None, sync_positions: bool
) -> dict[str, Any]:
    """Return the keyword arguments of the form's function; refuse other options."""
    if form in PUBLISHED:
        if extent is not None:
            raise ConfigError(
                f'--extent is for {", ".join(RELEASES)}; {form} weights have their own'
            )
        return dict(version=version, sync_positions=sync_positions)
    if version is not None or not sync_positions:
        raise ConfigError(
            f'--version and --no-sync-positions are for {", ".join(PUBLISHED)}; '
            f'{form} weights have no positions'
        )
    return dict(
        release=form,
        dilated_kernel_size=DEFAULT_EXTENT if extent is None else extent,
    )


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


def _depthwise_cfg(
    converted: Mapping[str, Tensor], version: str | None, options: dict[str, Any]
) -> str:
    """Return the config settings that these weights need, as far as they are known."""
    counts = {v.shape[-1] for k, v in converted.items() if k.endswith('.dwconv.P')}
    parts = [f'kernel_count={"/".join(map(str, sorted(counts)))}']
    if version is not None:
        parts.append(f'interpolation={version!r}')
    if 'dilated_kernel_size' in options:
        parts.append(f'dilated_kernel_size={options["dilated_kernel_size"]}')
    return ', '.join(parts)
