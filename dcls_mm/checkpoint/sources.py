"""Where mmengine's names of checkpoints lead: to a file here, fetched if need be."""

import hashlib
import os
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlparse

import mmengine.runner.checkpoint as names
import torch
from mmengine.dist import barrier, get_rank

from .errors import CheckpointError, DamagedCheckpointError

_CHUNK = 1 << 20


def fetch(filename: str) -> str:
    """The path of a checkpoint, which is downloaded unless it was before.

    Args:
        filename: A path; an http(s) URL, kept where torch.hub and mmengine keep it; or
            a name that mmengine leads to a URL: ``torchvision://resnet50``,
            ``open-mmlab://...``, ``mmcls://...``.

    Raises:
        CheckpointError: there is no such name.
        URLError: it can't be downloaded.
    """
    scheme, separator, name = filename.partition('://')
    if separator and scheme in ('http', 'https'):
        return _download(filename)
    if not separator or scheme not in _TABLES:
        return os.path.expanduser(filename)
    urls = _TABLES[scheme]()
    if name not in urls:
        raise CheckpointError(f'checkpoint {filename}: mmengine knows no such name')
    found = urls[name]
    if found.startswith(('http://', 'https://')):
        return _download(found)
    return os.path.join(names._get_mmengine_home(), found)


def is_known(filename: str) -> bool:
    """Whether ``fetch`` knows the kind of name, or else nobody does.

    Others (``s3://``) have a loader in mmengine, or one that a program registered.
    """
    scheme, separator, _ = filename.partition('://')
    if not separator or scheme in ('http', 'https', *_TABLES):
        return True
    loader = names.CheckpointLoader._get_checkpoint_loader(filename)
    return loader is names.CheckpointLoader._schemes.get('')


def _openmmlab() -> dict[str, str]:
    urls = names.get_external_models()
    renamed = names.get_deprecated_model_names()
    return {**urls, **{old: urls[new] for old, new in renamed.items() if new in urls}}


_TABLES = {
    'modelzoo': lambda: names.get_torchvision_models(),
    'torchvision': lambda: names.get_torchvision_models(),
    'open-mmlab': _openmmlab,
    'openmmlab': _openmmlab,
    'mmcls': lambda: names.get_mmcls_models(),
}


def _download(url: str) -> str:
    """As torch.hub does; of the processes of a training, the first one does."""
    folder = Path(torch.hub.get_dir(), 'checkpoints')
    path = folder / Path(urlparse(url).path).name
    first = get_rank() == 0
    if not first:
        barrier()
    try:
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), progress=os.isatty(2))
    finally:
        if first:  # else the others would wait where it fails
            barrier()
    return str(path)


def check_sha256(file: BinaryIO, expected: str | None, path: str) -> None:
    """Compares a file's SHA-256, if one is expected, before anything else is done.

    Raises:
        DamagedCheckpointError: it is another one.
    """
    if expected is None:
        return
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
    if digest.hexdigest() != expected.lower():
        raise DamagedCheckpointError(
            f'{path} has the SHA-256 {digest.hexdigest()}, expected {expected}: it '
            'is damaged or another file; remove it and fetch it again'
        )
