"""The rebuilding of what was read, from plain containers and records."""

from collections import OrderedDict
from typing import Any

import torch

from .errors import Refusal, short
from .program import ATOMS, MAX_DEPTH
from .records import Record, is_key, is_text, kind_of


def plain(value: Any, others: tuple[type, ...] = ()) -> Any:
    """Rebuild what was read, from nothing but exactly known types.

    Args:
        value: as torch returned it, with records in it.
        others: types that the program itself allowed to be loaded.

    Raises:
        Refusal: it contains another type, refers to itself, or is nested too deeply.
    """
    return _Plain(others)(value)


_MAX_COUNT = 10**7


class _Plain:
    """A function that rebuilds values; what is shared in the file stays shared."""

    def __init__(self, others: tuple[type, ...]) -> None:
        self.others = frozenset(others)
        self.done: dict[int, tuple[Any, int]] = {}
        self.count = 0  # of values, as if nothing were shared
        self.begun: set[int] = set()

    def __call__(self, value: Any, depth: int = 0) -> Any:
        kind = type(value)
        if kind in ATOMS or kind is torch.dtype or kind in self.others:
            return value
        self.count += 1
        if id(value) in self.done:
            built, count = self.done[id(value)]
            self.count += count
            if self.count > _MAX_COUNT:
                raise Refusal(f'nested lists with over {_MAX_COUNT} items in all')
            return built
        if id(value) in self.begun:
            raise Refusal('a value that contains itself')
        if depth > MAX_DEPTH:
            raise Refusal(f'values nested more than {MAX_DEPTH} levels deep')
        self.begun.add(id(value))
        before = self.count
        built = self.build(kind, value, depth + 1)
        self.done[id(value)] = built, self.count - before
        return built

    def build(self, kind: type, value: Any, depth: int) -> Any:
        if kind is list or kind is tuple:
            return kind([self(item, depth) for item in value])
        if kind is set:
            return set(value)  # an empty one, as sets with items are records
        if kind is dict:
            return {_key(key): self(item, depth) for key, item in value.items()}
        if kind is OrderedDict:
            return self.build_ordered(value, depth)
        if issubclass(kind, Record):
            return value.restore(self, depth)
        raise Refusal(kind_of(value))

    def build_ordered(self, value: OrderedDict, depth: int) -> OrderedDict:
        built = OrderedDict()
        # value.items might be an attribute that the file set.
        for key, item in OrderedDict.items(value):
            built[_key(key)] = self(item, depth)
        for name, item in vars(value).items():
            if not is_text(name, '_metadata'):
                raise Refusal(f'an OrderedDict with the attribute {short(name)}')
            built._metadata = self(item, depth)
        return built


def _key(key: Any) -> Any:
    if not is_key(key):
        raise Refusal(f'a dict with {kind_of(key)} as a key')
    return key
