"""The formats in which ConvNeXt weights are published, recognised by their keys.

Each format is a table: part of the network -> name of its module. ``ORIGINAL`` has the
names of the original release, which are also those of :class:`ConvNeXtDCLS`.
"""

import re
from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

from torch import Tensor

from ..functional._arguments import check_choice
from .state_dicts import check_state_dict, under

# {stage} and {block} count from 0. Formats that number otherwise have {next}, the stage
# plus one, and {even} and {odd}, twice the stage and one more.
ORIGINAL = {
    'stem': 'downsample_layers.0.0',
    'stem norm': 'downsample_layers.0.1',
    'downsampling norm': 'downsample_layers.{stage}.0',
    'downsampling': 'downsample_layers.{stage}.1',
    'depthwise': 'stages.{stage}.{block}.dwconv',
    'norm': 'stages.{stage}.{block}.norm',
    'linear 1': 'stages.{stage}.{block}.pwconv1',
    'grn': 'stages.{stage}.{block}.grn',
    'linear 2': 'stages.{stage}.{block}.pwconv2',
    'scale': 'stages.{stage}.{block}.gamma',
    'output norm': 'norm{stage}',
    'last norm': 'norm',
    'head': 'head',
}

# How each of these numbers follows from the stage.
_STAGES = {
    'stage': lambda stage: stage,
    'next': lambda stage: stage + 1,
    'even': lambda stage: 2 * stage,
    'odd': lambda stage: 2 * stage + 1,
}


class Format(NamedTuple):
    """What one package calls the parts of a ConvNeXt.

    Attributes:
        title: the package, as messages name it.
        modules: part -> name; parts that it does not have are left out.
        outside: the same for parts that are never under a prefix.
        prefixes: what all names in ``modules`` may start with.
        grn: its names of gamma and beta.
        learned: whether the depthwise convolutions may have positions.
        repeated: modules that are stored again, by the name of the first.
        left: pattern of keys that neither a backbone nor a classifier here has.
        needed: pattern that one of its keys must match.
    """

    title: str
    modules: dict[str, str]
    outside: dict[str, str] = {}
    prefixes: tuple[str, ...] = ('',)
    grn: tuple[str, str] = ('gamma', 'beta')
    learned: bool = False
    repeated: dict[str, str] = {}
    left: str | None = None
    needed: str = ''


def _timm(stem: str, stage: str) -> dict[str, str]:
    return {
        'stem': f'{stem}0',
        'stem norm': f'{stem}1',
        'downsampling norm': f'{stage}.downsample.0',
        'downsampling': f'{stage}.downsample.1',
        'depthwise': f'{stage}.blocks.{{block}}.conv_dw',
        'norm': f'{stage}.blocks.{{block}}.norm',
        'linear 1': f'{stage}.blocks.{{block}}.mlp.fc1',
        'grn': f'{stage}.blocks.{{block}}.mlp.grn',
        'linear 2': f'{stage}.blocks.{{block}}.mlp.fc2',
        'scale': f'{stage}.blocks.{{block}}.gamma',
    }


def _transformers(stage: str) -> dict[str, str]:
    return {
        'stem': 'embeddings.patch_embeddings',
        'stem norm': 'embeddings.layernorm',
        'downsampling norm': f'{stage}.downsampling_layer.0',
        'downsampling': f'{stage}.downsampling_layer.1',
        'depthwise': f'{stage}.layers.{{block}}.dwconv',
        'norm': f'{stage}.layers.{{block}}.layernorm',
        'linear 1': f'{stage}.layers.{{block}}.pwconv1',
        'grn': f'{stage}.layers.{{block}}.grn',
        'linear 2': f'{stage}.layers.{{block}}.pwconv2',
        'scale': f'{stage}.layers.{{block}}.layer_scale_parameter',
        'output norm': 'hidden_states_norms.stage{next}',
        'last norm': 'layernorm',
    }


FORMATS = {
    'convnext': Format('the original release', ORIGINAL),
    'dcls': Format(
        'ConvNeXt-dcls', ORIGINAL, learned=True, needed=r'stages\..*\.dwconv\.P'
    ),
    'dinov3': Format(
        "DINOv3's release",
        ORIGINAL,
        repeated={'norms.3': 'norm'},
        left=r'norms\.[0-2]\..*|projectors\..*',
        needed=r'norms\.',
    ),
    'mmpretrain': Format(
        'mmpretrain',
        {
            **ORIGINAL,
            'depthwise': 'stages.{stage}.{block}.depthwise_conv',
            'linear 1': 'stages.{stage}.{block}.pointwise_conv1',
            'linear 2': 'stages.{stage}.{block}.pointwise_conv2',
        },
        outside={'head': 'head.fc'},
        prefixes=('backbone.', ''),
    ),
    'timm': Format(
        'timm',
        {
            **_timm('stem.', 'stages.{stage}'),
            'last norm': 'head.norm',
            'head': 'head.fc',
        },
        grn=('weight', 'bias'),
        learned=True,
        left=r'head\.pre_logits\.fc\.(weight|bias)|norm_pre\.(weight|bias)',
    ),
    'timm-features': Format(
        "timm's features_only",
        _timm('stem_', 'stages_{stage}'),
        grn=('weight', 'bias'),
        learned=True,
    ),
    'torchvision': Format(
        'torchvision',
        {
            'stem': 'features.0.0',
            'stem norm': 'features.0.1',
            'downsampling norm': 'features.{even}.0',
            'downsampling': 'features.{even}.1',
            'depthwise': 'features.{odd}.{block}.block.0',
            'norm': 'features.{odd}.{block}.block.2',
            'linear 1': 'features.{odd}.{block}.block.3',
            'linear 2': 'features.{odd}.{block}.block.5',
            'scale': 'features.{odd}.{block}.layer_scale',
            'last norm': 'classifier.0',
            'head': 'classifier.2',
        },
    ),
    'transformers': Format(
        'transformers',
        _transformers('encoder.stages.{stage}'),
        outside={'head': 'classifier'},
        prefixes=('convnext.', 'convnextv2.', ''),
        grn=('weight', 'bias'),
    ),
    'transformers-dinov3': Format(
        "transformers' DINOv3",
        {
            'stem': 'stages.0.downsample_layers.0',
            'stem norm': 'stages.0.downsample_layers.1',
            'downsampling norm': 'stages.{stage}.downsample_layers.0',
            'downsampling': 'stages.{stage}.downsample_layers.1',
            'depthwise': 'stages.{stage}.layers.{block}.depthwise_conv',
            'norm': 'stages.{stage}.layers.{block}.layer_norm',
            'linear 1': 'stages.{stage}.layers.{block}.pointwise_conv1',
            'linear 2': 'stages.{stage}.layers.{block}.pointwise_conv2',
            'scale': 'stages.{stage}.layers.{block}.gamma',
        },
        outside={'last norm': 'layer_norm'},
        prefixes=('model.', ''),
    ),
}


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
        numbers = {name: number(stage) for name, number in _STAGES.items()}
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
    found = {}
    stem = Place('stem', None, None, 'weight')
    for form in FORMATS.values():
        for inner in form.prefixes:
            first = inner + stem.key_in(form)
            for key in state_dict:
                start = key[: len(key) - len(first)]
                if key.endswith(first) and start not in found:
                    match = recognise(under(state_dict, start))
                    if start and match:
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
                if _STAGES[key](stage) == given:
                    return Place(part, stage, block, tensor)
    return None


@cache
def _patterns(name: str, prefix: str) -> list[tuple[str, re.Pattern]]:
    form = FORMATS[name]
    tensors = {'scale': (), 'grn': form.grn, 'depthwise': ('weight', 'bias')}
    if form.learned:
        tensors['depthwise'] += ('P', 'SIG')
    patterns = []
    for part, template in {**form.modules, **form.outside}.items():
        start = '' if part in form.outside else prefix
        module = re.sub(r'\\{(\w+)\\}', r'(?P<\1>\\d+)', re.escape(start + template))
        own = tensors.get(part, ('weight', 'bias'))
        tail = rf'\.(?P<tensor>{"|".join(own)})' if own else ''
        patterns.append((part, re.compile(module + tail)))
    return patterns


def _whole(places: set[Place]) -> list[Place]:
    """List what a network must have of which these are some of the places.

    Everything up to the last stage and the last block of each; scales, response norms,
    biases and positions of the depthwise convolutions in all blocks or in none.
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
        *(('depthwise', tensor) for tensor in ('bias', 'P', 'SIG')),
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
