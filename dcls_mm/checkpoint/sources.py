"""The files that mmengine's names of checkpoints stand for, downloaded if need be."""

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
    """Return the path of a checkpoint, downloading it unless it is cached.

    Args:
        filename: a path; an http(s) URL, cached where torch.hub and mmengine do so; or
            a name for which mmengine has a URL: ``torchvision://resnet50``,
            ``open-mmlab://...``, ``mmcls://...``.

    Raises:
        CheckpointError: mmengine does not know the name.
        URLError: the file can't be downloaded.
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
    """Return whether ``fetch`` handles this kind of name, or nothing else does.

    Other kinds (``s3://``) have a loader in mmengine, or one that a program registered.
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
    """Download as torch.hub does, in the first process of a training only."""
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
        if first:  # also after a failure, or the others would wait for ever
            barrier()
    return str(path)


def check_sha256(file: BinaryIO, expected: str | None, path: str) -> None:
    """Check a file's SHA-256, if one is expected.

    Raises:
        DamagedCheckpointError: the file has another checksum.
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
