"""Checks that a data set's class names are those of its annotation files.

The table ``FILE_CHECKS`` has one check per kind of data set. None reads more than it
needs: from COCO's 450 MB the list of categories, of VOC's files a few unless names are
missing there, and no files of mmseg's.
"""

import json
import mmap
import os
import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from json import JSONDecodeError
from typing import Any

from mmengine.fileio import list_from_file

from .._listing import listing
from .config_checks import nearest
from .errors import ConfigError

# How many of VOC's files, one per image, are read if nothing is wrong.
_XML_FILES = 100


def read_categories(ann_file: str) -> list[str]:
    """Return the names of a COCO annotation file's categories, in its order.

    Only the list of categories is decoded, wherever it is in the file.

    Raises:
        ConfigError: the file has no such list.
    """
    decoder = json.JSONDecoder()
    with open(ann_file, 'rb') as file:
        size = os.fstat(file.fileno()).st_size
        if size:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                for found in re.finditer(rb'"categories"\s*:\s*', content):
                    names = _category_names(decoder, content, found.end(), size)
                    if names is not None:
                        return names
    raise ConfigError(
        f'{ann_file} must have a list of categories, like annotation files of COCO'
    )


def _category_names(
    decoder: json.JSONDecoder, content: mmap.mmap, start: int, size: int
) -> list[str] | None:
    length = 1 << 14
    while True:
        text = content[start : start + length].decode('utf-8', 'ignore')
        try:
            categories, _ = decoder.raw_decode(text)
        except JSONDecodeError:
            if start + length >= size:
                return None
            length *= 4
            continue
        if not isinstance(categories, list):
            return None
        if not all(isinstance(part, dict) and 'name' in part for part in categories):
            return None
        return [part['name'] for part in categories]


def local_path(dataset: dict, name: str) -> str | None:
    """Return the path of a data set's file, if it is a local file."""
    path = dataset.get(name) or ''
    root = dataset.get('data_root') or ''
    if dataset.get('backend_args') or '://' in root or '://' in path:
        return None
    path = os.path.join(root, path)
    return path if os.path.isfile(path) else None


def _origin(dataset: dict, kind: type, key: str, names: Sequence[str]) -> str:
    """Describe where the names come from, for a message."""
    if 'classes' in (dataset.get('metainfo') or {}):
        return f'{key} are {listing(names)}'
    return f'{key} is not given, so those of {kind.__name__} apply, {listing(names)}'


def _slips(absent: Sequence[str], known: Sequence[str]) -> str:
    """Return a list of absent names, each with the most similar known one."""
    words = []
    for name in absent:
        similar = nearest(name, known, 0.6)
        words.append(repr(name) + (f' (did you mean {similar!r}?)' if similar else ''))
    return listing(words, 5)


def _as_tuple(names: Sequence[str]) -> str:
    return repr(tuple(names)) if len(names) <= 20 else f'its {len(names)} names'


def check_categories(
    path: str, key: str, names: Sequence[str], origin: str
) -> list[str]:
    """Check that class names are categories of a COCO file, in the same order.

    Args:
        path: the annotation file.
        key: the config key that sets the names.
        names: the names of the classes.
        origin: the start of the message, on where the names come from.

    Returns:
        The categories that are left out.

    Raises:
        ConfigError: a name is not among the categories, or the order differs.
    """
    categories = read_categories(path)
    absent = [name for name in names if name not in categories]
    if absent:
        is_other = len(absent) == len(names) > 5
        lacks = 'none of them' if is_other else f'no {_slips(absent, categories)}'
        raise ConfigError(
            f'{origin}, but {path} has {lacks}; it has '
            f'{listing(categories)}. Each such name would shift the labels of others: '
            f"give the file's names in its order, such as {key}={_as_tuple(categories)}"
        )
    taken = [category for category in categories if category in {*names}]
    if len(taken) > len(names):
        twice = [name for name in names if taken.count(name) > 1]
        raise ConfigError(f'{path} has two categories with one name: {listing(twice)}')
    if taken != list(names):
        raise ConfigError(
            f'{origin}, but {path} has them in the order {listing(taken)}, and its '
            f'order gives the labels; write {key}={_as_tuple(taken)}'
        )
    return [category for category in categories if category not in {*names}]


def _check_coco(
    dataset: dict, kind: type, name: str, key: str, names: Sequence[str]
) -> list[str]:
    """Check names for mmdet, which numbers the named categories in the file's order."""
    path = local_path(dataset, 'ann_file')
    if path is None or not _loads_as(kind, 'CocoDataset'):
        return []
    origin = _origin(dataset, kind, key, names)
    left = check_categories(path, key, names, origin)
    if not left:
        return []
    return [
        f'{key}: leaves out {len(left)} of the categories of {path} ({listing(left)})'
    ]


def _check_voc(
    dataset: dict, kind: type, name: str, key: str, names: Sequence[str]
) -> list[str]:
    """Check names for mmdet's VOC data sets, which skip objects with other names."""
    path = local_path(dataset, 'ann_file')
    if path is None or not _loads_as(kind, 'XMLDataset'):
        return []
    prefix = (dataset.get('data_prefix') or {}).get('sub_data_root', '')
    folder = os.path.join(
        dataset.get('data_root') or '',
        prefix,
        dataset.get('ann_subdir', 'Annotations'),
    )
    images = list_from_file(path)
    step = max(1, len(images) // _XML_FILES)
    for some in (images[::step], images):  # a refusal is based on all files
        found = _object_names(folder, some, f'{name}.ann_file: {path}')
        others = [other for other in found if other not in names]
        unseen = [name for name in names if name not in found]
        slips = [name for name in unseen if nearest(name, others, 0.75)]
        if not found or not (slips or len(unseen) == len(names)):
            break
    else:
        raise ConfigError(
            f'{_origin(dataset, kind, key, names)}, but the files in {folder} have no '
            f'{_slips(slips or unseen, others)}; they have {listing(list(found))}'
        )
    if others:
        return [f'{key}: leaves out objects of {folder}: {listing(others)}']
    return []


def _object_names(
    folder: str, images: Sequence[str], source: str
) -> dict[str | None, None]:
    """Return the names in the VOC files of some images, in order of appearance."""
    found: dict[str | None, None] = {}
    for image in images:
        file = os.path.join(folder, f'{image}.xml')
        if not os.path.isfile(file):
            raise ConfigError(f'{source} names {image}, but {file} does not exist')
        try:
            objects = ET.parse(file).getroot().findall('object/name')
        except ET.ParseError as error:
            raise ConfigError(f'{source}: {file} is not valid XML: {error}') from error
        found.update(dict.fromkeys(node.text for node in objects))
    return found


def _loads_as(kind: type, base: str) -> bool:
    """Return whether a data set reads its files with the method of a class of mmdet."""
    return kind.load_data_list.__qualname__ == f'{base}.load_data_list'


def _check_segmentation(
    dataset: dict, kind: type, name: str, key: str, names: Sequence[str]
) -> list[str]:
    """Check names for mmseg, which maps them to the data set's own names."""
    own = kind.METAINFO.get('classes')
    if own is None or list(own) == list(names):
        return []
    absent = [name for name in names if name not in own]
    if absent:
        raise ConfigError(
            f'{key}: {kind.__name__} has no {_slips(absent, own)}; it has '
            f'{listing(own)}'
        )
    left = [name for name in own if name not in names]
    if not left:
        return []
    return [
        f'{key}: leaves out {len(left)} of the {len(own)} classes of {kind.__name__} '
        f'({listing(left)}); their pixels are ignored'
    ]


# The checks, by the class of a data set or one of its bases.
FILE_CHECKS: dict[str, Any] = {
    'CocoDataset': _check_coco,
    'XMLDataset': _check_voc,
    'BaseSegDataset': _check_segmentation,
}
