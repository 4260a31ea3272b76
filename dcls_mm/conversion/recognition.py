"""The recognition of a ConvNeXt's weights by their keys."""

import re
from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

from torch import Tensor

from ..functional._arguments import check_choice
from .convnext_formats import FORMATS, STAGES, Format
from .state_dicts import check_state_dict, under

# A stage or block in a key. Longer numbers, which no network has, could keep us busy.
_NUMBER = r'(?P<\1>0|[1-9][0-9]?)'

# Prefixes to look at; no model holds more networks.
_MOST = 16


class Place(NamedTuple):
    """What a key is in any format: a tensor of a part of the network."""

    part: str
    stage: int | None
    block: int | None
    tensor: str | None

    def module_in(self, form: Format) -> str:
        """Return the name of the module in a format, without a prefix."""
        template = form.outside.get(self.part) or form.modules[self.part]
        stage = self.stage or 0
        numbers = {name: number(stage) for name, number in STAGES.items()}
        return template.format(block=self.block, **numbers)

    def key_in(self, form: Format) -> str:
        """Return the key in a format, without a prefix."""
        if self.tensor is None:
            return self.module_in(form)
        tensor = dict(zip(('gamma', 'beta'), form.grn)).get(self.tensor, self.tensor)
        return f'{self.module_in(form)}.{tensor}'


class Match(NamedTuple):
    """A state_dict read as one of a format.

    Attributes:
        name: the name of the format in ``FORMATS``.
        prefix: what its modules start with.
        places: key -> place, or None for those that nothing here reads.
        repeated: key -> key that must have the same values.
        unknown: keys that the format does not have.
    """

    name: str
    prefix: str
    places: dict[str, Place | None]
    repeated: dict[str, str]
    unknown: list[str]

    @property
    def form(self) -> Format:
        return FORMATS[self.name]

    @property
    def left(self) -> list[str]:
        """The keys that nothing here reads."""
        return [key for key, place in self.places.items() if place is None]

    def absent(self) -> list[str]:
        """List the keys that are missing between those that are there."""
        places = {place for place in self.places.values() if place is not None}
        return [
            self.prefix + place.key_in(self.form)
            for place in _whole(places)
            if place not in places
        ]

    def original_names(self) -> dict[str, str]:
        """Return the names in the original, by key, of what is read."""
        read = {key: place for key, place in self.places.items() if place is not None}
        parts = {place.part for place in read.values()}
        norms = {place.stage for place in read.values() if place.part == 'output norm'}
        if 'head' in parts and 'last norm' not in parts and len(norms) == 1:
            # mmpretrain names a classifier's only norm after the last stage's number.
            read = {
                key: place._replace(part='last norm')
                if place.part == 'output norm'
                else place
                for key, place in read.items()
            }
        return {key: place.key_in(FORMATS['convnext']) for key, place in read.items()}


def recognise(
    state_dict: Mapping[str, Tensor], release: str | None = None
) -> Match | None:
    """Find the format of which a state_dict has all keys and no others.

    Args:
        state_dict: weights of a classifier or a backbone.
        release: the name of the only format to try.

    Returns:
        None if there is no such format.
    """
    for match in matches(state_dict, release):
        if not match.unknown and not match.absent():
            return match
    return None


def matches(
    state_dict: Mapping[str, Tensor], release: str | None = None
) -> list[Match]:
    """Read a state_dict in every format, or one; those with fewest strange keys first.

    Raises:
        TypeError: ``state_dict`` is not one.
        ValueError: there is no such format.
    """
    check_state_dict(state_dict)
    if release is not None:
        check_choice('release', release, FORMATS)
    found = [
        _match(state_dict, name, prefix)
        for name in (FORMATS if release is None else [release])
        for prefix in FORMATS[name].prefixes
    ]
    return sorted(found, key=lambda match: len(match.unknown))


def prefixes_in(state_dict: Mapping[str, Tensor]) -> dict[str, Match]:
    """Find what the keys of a ConvNeXt inside a larger state_dict start with.

    Returns:
        The prefixes, each with the match of the keys without it.
    """
    stem = Place('stem', None, None, 'weight')
    forms = FORMATS.values()
    firsts = [inner + stem.key_in(form) for form in forms for inner in form.prefixes]
    starts = dict.fromkeys(
        key.removesuffix(first)
        for key in state_dict
        for first in firsts
        if key.endswith(first) and key != first
    )
    found: dict[str, Match] = {}
    for start in sorted([*starts][:_MOST], key=len):
        match = recognise(under(state_dict, start))
        # A format's own prefix may follow: 'model.' is enough for 'model.convnext.'.
        if match and not any(start.startswith(shorter) for shorter in found):
            found[start] = match
    return found


def _match(state_dict: Mapping[str, Tensor], name: str, prefix: str) -> Match:
    form = FORMATS[name]
    places: dict[str, Place | None] = {}
    repeated, unknown = {}, []
    for key in state_dict:
        place = _place(name, prefix, key)
        module, _, tensor = key.rpartition('.')
        if place is not None:
            places[key] = place
        elif module in form.repeated:
            places[key] = None
            repeated[key] = f'{form.repeated[module]}.{tensor}'
        elif form.left and re.fullmatch(form.left, key):
            places[key] = None
        else:
            unknown.append(key)
    if form.needed and not any(re.match(form.needed, key) for key in state_dict):
        unknown = list(state_dict)
    return Match(name, prefix, places, repeated, unknown)


def _place(name: str, prefix: str, key: str) -> Place | None:
    for part, pattern in _patterns(name, prefix):
        found = pattern.fullmatch(key)
        if found:
            groups = found.groupdict()
            tensor = groups.pop('tensor', None)
            if part == 'grn':
                tensor = ('gamma', 'beta')[FORMATS[name].grn.index(tensor)]
            numbers = {key: int(digits) for key, digits in groups.items()}
            block = numbers.pop('block', None)
            if not numbers:
                return Place(part, None, block, tensor)
            ((key, given),) = numbers.items()
            for stage in range(given + 1):
                if STAGES[key](stage) == given:
                    return Place(part, stage, block, tensor)
    return None


@cache
def _patterns(name: str, prefix: str) -> list[tuple[str, re.Pattern]]:
    form = FORMATS[name]
    tensors = {'scale': (), 'grn': form.grn, 'depthwise': ('weight', 'bias')}
    if form.learned:
        tensors['depthwise'] += ('P', 'SIG', 'local_weight')
    patterns = []
    for part, template in {**form.modules, **form.outside}.items():
        start = '' if part in form.outside else prefix
        module = re.sub(r'\\{(\w+)\\}', _NUMBER, re.escape(start + template))
        own = tensors.get(part, ('weight', 'bias'))
        tail = rf'\.(?P<tensor>{"|".join(own)})' if own else ''
        patterns.append((part, re.compile(module + tail)))
    return patterns


def _whole(places: set[Place]) -> list[Place]:
    """List what a network must have of which these are some of the places.

    Everything up to the last stage and the last block of each; scales, response norms,
    biases, positions and local branches of the depthwise convolutions in all blocks or
    in none.
    """
    blocks: dict[int, int] = {}
    for place in places:
        if place.block is not None:
            last = blocks.get(place.stage, 0)
            blocks[place.stage] = max(last, place.block + 1)
    pair = ('weight', 'bias')
    whole = [Place(p, None, None, t) for p in ('stem', 'stem norm') for t in pair]
    used = {(place.part, place.tensor) for place in places}
    if any(place.part == 'grn' for place in places):
        used |= {('grn', 'gamma'), ('grn', 'beta')}
    always = {(part, t) for part in ('norm', 'linear 1', 'linear 2') for t in pair}
    always |= {('depthwise', 'weight')}
    optional = {
        *(('depthwise', name) for name in ('bias', 'P', 'SIG', 'local_weight')),
        *(('grn', tensor) for tensor in ('gamma', 'beta')),
        ('scale', None),
    }
    for stage in range(max(blocks, default=0) + 1):
        if stage:
            parts = ('downsampling norm', 'downsampling')
            whole += [Place(part, stage, None, t) for part in parts for t in pair]
        for block in range(max(blocks.get(stage, 0), 1)):
            inside = sorted(always | (optional & used), key=str)
            whole += [Place(part, stage, block, tensor) for part, tensor in inside]
    return whole
