"""Reads the graphs and weights of TensorFlow.js: JSON, and files of numbers."""

import base64
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

DTYPES = {'float32': '<f4', 'int32': '<i4'}
QUANTIZED = {'float16': '<f2'}


class Node(NamedTuple):
    """An operator of a graph: its name, inputs by name, and attributes."""

    name: str
    operator: str
    inputs: list[str]
    attributes: dict[str, Any]


def read_graph(path: Path) -> tuple[list[Node], dict[str, Tensor]]:
    """Read a graph model.

    Args:
        path: the JSON file; the files that it names must be beside it.

    Returns:
        Its operators without constants, in an order in which they can run, and its
        constants by name.

    Raises:
        ValueError: it is no graph model, or is stored in a way not known here.
    """
    content = json.loads(path.read_text())
    if content.get('format') != 'graph-model':
        raise ValueError(
            f'{path} must be a TensorFlow.js graph model, got format '
            f'{content.get("format")!r}'
        )
    constants = {}
    for group in content['weightsManifest']:
        constants.update(_read_weights(path, group))
    nodes = [
        Node(
            item['name'],
            item['op'],
            item.get('input', []),
            {key: _plain(value) for key, value in item.get('attr', {}).items()},
        )
        for item in content['modelTopology']['node']
    ]
    for node in nodes:
        if node.operator == 'Const' and node.name not in constants:
            raise ValueError(f'{path}: the constant {node.name} has no weights')
    return _in_order([n for n in nodes if n.operator != 'Const'], constants), constants


def _read_weights(path: Path, group: dict) -> dict[str, Tensor]:
    """Read the arrays of a group, which follow one another in its files."""
    for name in group['paths']:
        if Path(name).name != name:
            raise ValueError(f'{path}: weights must be beside it, got {name!r}')
    stored = b''.join((path.parent / name).read_bytes() for name in group['paths'])
    arrays, start = {}, 0
    for entry in group['weights']:
        stored_as = _stored_as(path, entry)
        count = math.prod(entry['shape'])
        end = start + count * stored_as.itemsize
        if end > len(stored):
            raise ValueError(
                f'{path}: {entry["name"]} ends at byte {end}, but '
                f'{", ".join(group["paths"])} has {len(stored)}'
            )
        array = np.frombuffer(stored, stored_as, count, start).reshape(entry['shape'])
        arrays[entry['name']] = torch.from_numpy(array.astype(entry['dtype']))
        start = end
    if start != len(stored):
        raise ValueError(
            f'{path}: its weights take {start} bytes, but {", ".join(group["paths"])} '
            f'has {len(stored)}'
        )
    return arrays


def _stored_as(path: Path, entry: dict) -> np.dtype:
    quantized = entry.get('quantization', {}).get('dtype')
    known = DTYPES if quantized is None else QUANTIZED
    dtype = quantized or entry['dtype']
    if entry['dtype'] not in DTYPES or dtype not in known:
        raise ValueError(
            f'{path}: {entry["name"]} must be {" or ".join(DTYPES)}, or stored as '
            f'{" or ".join(QUANTIZED)}, got {entry["dtype"]} stored as {dtype}'
        )
    return np.dtype(known[dtype])


def _plain(value: dict) -> Any:
    """Return an attribute's value: text, numbers, or a list of these."""
    (kind, content), *_ = [*value.items(), (None, None)]
    if kind == 's':
        return base64.b64decode(content).decode()
    if kind == 'i':
        return int(content)
    if kind == 'list':
        return [_plain({kind: each}) for kind, all_ in content.items() for each in all_]
    return content


def _in_order(nodes: list[Node], constants: dict[str, Tensor]) -> list[Node]:
    """Sort operators so that each comes after its inputs."""
    ordered, ready, waiting = [], set(constants), list(nodes)
    while waiting:
        able = [n for n in waiting if all(i.split(':')[0] in ready for i in n.inputs)]
        if not able:
            raise ValueError(
                f'{waiting[0].name} needs {waiting[0].inputs}: not all exist'
            )
        ordered += able
        ready.update(node.name for node in able)
        waiting = [node for node in waiting if node.name not in ready]
    return ordered
