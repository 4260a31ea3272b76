"""Which classes annotation files name, and whether a data set's names are those.

A check a kind of data set, in the table ``FILE_CHECKS``. None reads more than it needs:
of COCO's 450 MB the list of categories, of VOC's files a few unless these have none of
the names, of mmseg's none.
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

# How many of VOC's files, one an image, are read where nothing is wrong.
_XML_FILES = 100


def read_categories(ann_file: str) -> list[str]:
    """The names of a COCO annotation file's categories, in its order.

    Only they are decoded, wherever they stand in the file.

    Raises:
        ConfigError: it has none.
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
        f'{ann_file} has no list of categories, as annotation files of COCO have'
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
    """The file that a data set reads, where it lies on this machine."""
    path = dataset.get(name) or ''
    root = dataset.get('data_root') or ''
    if dataset.get('backend_args') or '://' in root or '://' in path:
        return None
    path = os.path.join(root, path)
    return path if os.path.isfile(path) else None


def _origin(dataset: dict, kind: type, key: str, names: Sequence[str]) -> str:
    """How the names came about."""
    if 'classes' in (dataset.get('metainfo') or {}):
        return f'{key} are {listing(names)}'
    return f'{key} is not given, so they are those of {kind.__name__}, {listing(names)}'


def _slips(absent: Sequence[str], known: Sequence[str]) -> str:
    """What is absent, each with the nearest that is there."""
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
    """Checks that labels by the order of a COCO file's categories are those of names.

    Args:
        path: The annotation file.
        key: What sets the names.
        names: Of the classes.
        origin: How the message begins, on where the names come from.

    Returns:
        The categories that are left out.

    Raises:
        ConfigError: a name is not among the categories, or the order is another.
    """
    categories = read_categories(path)
    absent = [name for name in names if name not in categories]
    if absent:
        is_other = len(absent) == len(names) > 5
        lacks = 'none of them' if is_other else f'no {_slips(absent, categories)}'
        raise ConfigError(
            f'{origin}, but {path} has {lacks}; it has '
            f'{listing(categories)}. Each would move the labels of others: name what '
            f'is there, in its order, such as {key}={_as_tuple(categories)}'
        )
    taken = [category for category in categories if category in {*names}]
    if len(taken) > len(names):
        twice = [name for name in names if taken.count(name) > 1]
        raise ConfigError(f'{path} has two categories of one name: {listing(twice)}')
    if taken != list(names):
        raise ConfigError(
            f'{origin}, but {path} has them in the order {listing(taken)}, and its '
            f'order gives the labels; write {key}={_as_tuple(taken)}'
        )
    return [category for category in categories if category not in {*names}]


def _check_coco(
    dataset: dict, kind: type, name: str, key: str, names: Sequence[str]
) -> list[str]:
    """mmdet gives out labels in the file's order to those categories that are named."""
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
    """mmdet passes over objects of other names."""
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
    for some in (images[::step], images):  # all of them before anything is refused
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
        return [f'{key}: leaves out the objects {listing(others)} of {folder}']
    return []


def _object_names(
    folder: str, images: Sequence[str], source: str
) -> dict[str | None, None]:
    """The names in VOC's files of some images, in their order."""
    found: dict[str | None, None] = {}
    for image in images:
        file = os.path.join(folder, f'{image}.xml')
        if not os.path.isfile(file):
            raise ConfigError(f'{source} names {image}, but {file} does not exist')
        try:
            objects = ET.parse(file).getroot().findall('object/name')
        except ET.ParseError as error:
            raise ConfigError(f'{source}: {file} is no whole XML: {error}') from error
        found.update(dict.fromkeys(node.text for node in objects))
    return found


def _loads_as(kind: type, base: str) -> bool:
    """Whether a data set reads its files as a class of mmdet's does, its base."""
    return kind.load_data_list.__qualname__ == f'{base}.load_data_list'


def _check_segmentation(
    dataset: dict, kind: type, name: str, key: str, names: Sequence[str]
) -> list[str]:
    """Labels go by the data set's own names, of which others may be a part."""
    own = kind.METAINFO.get('classes')
    if own is None or list(own) == list(names):
        return []
    absent = [name for name in names if name not in own]
    if absent:
        raise ConfigError(
            f'{key}: a {kind.__name__} has no {_slips(absent, own)}; it has '
            f'{listing(own)}'
        )
    left = [name for name in own if name not in names]
    if not left:
        return []
    return [
        f'{key}: leaves out {len(left)} of the {len(own)} classes of {kind.__name__} '
        f'({listing(left)}); their pixels are ignored'
    ]


# By the class of a data set, or a base of its.
FILE_CHECKS: dict[str, Any] = {
    'CocoDataset': _check_coco,
    'XMLDataset': _check_voc,
    'BaseSegDataset': _check_segmentation,
}
