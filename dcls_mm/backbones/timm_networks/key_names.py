"""The names of parameters in the published files, and timm's for the same."""

import re
from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any, NamedTuple

from torch import Tensor, nn

from ..._listing import listing
from ...layers import DCLSConvNd
from ...layers.noted import StateDictError
from ...layers.plain_kernels import has_plain_kernel

SHOWN_KEYS = 4


class Names(NamedTuple):
    """The names in an architecture's own repository.

    Attributes:
        family: name of the architecture, for messages.
        own: regular expression that only its own names match, at their start.
        to_timm: regular expressions -> what replaces them, in order.
    """

    family: str
    own: str
    to_timm: dict[str, str]


CONVNEXT = Names(
    'ConvNeXt',
    r'downsample_layers\.\d\.\d\.|stages\.\d\.\d+\.(dwconv|pwconv|norm|gamma)|norm\.',
    {
        r'^head\.': 'head.fc.',
        r'^norm\.': 'head.norm.',
        r'^downsample_layers\.0\.': 'stem.',
        r'^downsample_layers\.(\d)\.': r'stages.\1.downsample.',
        r'^stages\.(\d)\.(\d+)\.': r'stages.\1.blocks.\2.',
        r'\.dwconv\.': '.conv_dw.',
        r'\.pwconv([12])\.': r'.mlp.fc\1.',
    },
)
METAFORMER = Names(
    'MetaFormer',
    r'downsample_layers\.\d\.(conv|pre_norm|post_norm)|'
    r'stages\.\d\.\d+\.(token_mixer|mlp|norm|layer_scale|res_scale)|norm\.',
    {
        r'^head\.': 'head.fc.',
        r'^norm\.': 'head.norm.',
        r'^downsample_layers\.0\.': 'stem.',
        r'^downsample_layers\.(\d)\.': r'stages.\1.downsample.',
        r'^stages\.(\d)\.(\d+)\.': r'stages.\1.blocks.\2.',
        r'\.(pre|post)_norm\.': '.norm.',
    },
)
# Stages, the layers between them and a position encoding are numbered in one list.
FASTVIT = Names(
    'FastViT',
    r'patch_embed\.|network\.|conv_exp\.',
    {
        r'^head\.': 'head.fc.',
        r'^patch_embed\.': 'stem.',
        r'^network\.6\.pe\.': 'stages.3.pos_emb.pos_enc.',
        r'^network\.0\.': 'stages.0.blocks.',
        r'^network\.1\.': 'stages.1.downsample.',
        r'^network\.2\.': 'stages.1.blocks.',
        r'^network\.3\.': 'stages.2.downsample.',
        r'^network\.4\.': 'stages.2.blocks.',
        r'^network\.5\.': 'stages.3.downsample.',
        r'^network\.7\.': 'stages.3.blocks.',
        r'^conv_exp\.': 'final_conv.',
        r'\.convffn\.': '.mlp.',
        r'\.rbr_conv\.': '.conv_kxk.',
        r'\.rbr_scale\.': '.conv_scale.',
        r'\.rbr_skip\.': '.identity.',
        r'\.lkb_origin\.': '.large_conv.',
        r'\.se\.reduce\.': '.se.fc1.',
        r'\.se\.expand\.': '.se.fc2.',
        r'\.(layer_scale(_\d)?)$': r'.\1.gamma',
    },
)
# The published ResNet was trained by timm itself.
RESNET = Names('ResNet', r'(?!)', {})

# By the class of timm's network.
NAMES = {
    'ConvNeXt': CONVNEXT,
    'MetaFormer': METAFORMER,
    'FastVit': FASTVIT,
    'ResNet': RESNET,
}


class RenamedKeys:
    """A hook that gives a published state_dict timm's names as a model loads it.

    A linear layer's weights get the shape that they have as a 1x1 convolution.

    Args:
        model: name of the model, for messages.
        names: what the published files call its parameters.
    """

    def __init__(self, model: str, names: Names) -> None:
        self.model = model
        self.names = names

    def __call__(
        self,
        module: nn.Module,
        state_dict: MutableMapping[str, Any],
        prefix: str,
        *_: Any,
    ) -> None:
        """Rename the keys under ``prefix`` in place.

        Raises:
            StateDictError: the names are of two sources, or of another network or size.
        """
        inside = {
            key[len(prefix) :]: state_dict[key]
            for key in state_dict
            if key.startswith(prefix)
        }
        renamed = self.renamed(module, inside)
        if reason := _misfit(renamed, module):
            raise StateDictError(
                module, f'the state_dict is not of {self.model}: {reason}'
            )
        if renamed is not inside:
            for key in inside:
                del state_dict[prefix + key]
            state_dict.update({prefix + key: renamed[key] for key in renamed})

    def renamed(self, module: nn.Module, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a state_dict with timm's names; itself if it has them already.

        Raises:
            StateDictError: the names are of two sources.
        """
        own = module.state_dict(keep_vars=True)
        foreign = [key for key in given if re.match(self.names.own, key)]
        if not foreign:
            return given
        # MetaFormer's own head has a norm of timm's name for another one.
        mixed = [key for key in given if key in own and not _is_head(key)]
        if mixed:
            raise StateDictError(
                module,
                f'the state_dict mixes the names of {self.names.family} '
                f'({listing(foreign, SHOWN_KEYS)}) with those of timm '
                f'({listing(mixed, SHOWN_KEYS)}): it must have been put together from '
                'two files',
            )
        names = {key: self.timm_name(key) for key in given}
        return {
            name: _reshaped(given[key], own[name]) if name in own else given[key]
            for key, name in names.items()
        }

    def timm_name(self, key: str) -> str:
        """Return timm's name for a published one."""
        for pattern, replacement in self.names.to_timm.items():
            key = re.sub(pattern, replacement, key)
        return key


def _misfit(given: Mapping[str, Any], module: nn.Module) -> str | None:
    """Return why a state_dict is of another architecture or size, or None.

    It may lack keys or have others, which is for torch's ``strict`` to judge.
    """
    own = module.state_dict(keep_vars=True)
    started = {
        f'{name}.weight'
        for name, layer in module.named_modules()
        if isinstance(layer, DCLSConvNd) and has_plain_kernel(layer, given, f'{name}.')
    }
    body, expected = ({k for k in keys if not _is_head(k)} for keys in (given, own))
    if len(body & expected) * 2 < len(expected):
        has = listing(sorted(body - expected), SHOWN_KEYS) or 'nothing'
        return f'it has {has} and lacks {listing(sorted(expected - body), SHOWN_KEYS)}'
    blocks, expected_blocks = _blocks(body), _blocks(expected)
    for stage in blocks.keys() & expected_blocks.keys():
        if blocks[stage] != expected_blocks[stage]:
            return (
                f'it has {len(blocks[stage])} blocks in {stage} instead of '
                f'{len(expected_blocks[stage])}'
            )
    shapes = [
        f'{key} {tuple(given[key].shape)} instead of {tuple(value.shape)}'
        for key, value in own.items()
        if isinstance(given.get(key), Tensor)
        and given[key].shape != value.shape
        and key not in started
    ]
    if not shapes:
        return None
    differing = f'its shapes differ, {listing(shapes, SHOWN_KEYS)}'
    if any(key.endswith('.P') for key in own.keys() - given.keys()):
        differing += (
            '. It has no positions (P), as a plain network: load it there, and start '
            "from its kernels by dcls_mm.replace_convs with start='conv'"
        )
    return differing


def _blocks(keys: Iterable[str]) -> dict[str, set[str]]:
    """Return the numbers of the blocks of each stage."""
    found: dict[str, set[str]] = {}
    for key in keys:
        block = re.match(r'(stages\.\d+)\.blocks\.(\d+)|(layer\d+)\.(\d+)', key)
        if block:
            stage, number = filter(None, block.groups())
            found.setdefault(stage, set()).add(number)
    return found


def _is_head(key: str) -> bool:
    return key.startswith(('head', 'fc.'))


def _reshaped(value: Any, like: Tensor) -> Any:
    """Return the weights of a linear layer as those of a 1x1 convolution."""
    if (
        isinstance(value, Tensor)
        and value.shape != like.shape
        and value.flatten().shape == like.flatten().shape
        and [side for side in value.shape if side > 1]
        == [side for side in like.shape if side > 1]
    ):
        return value.reshape(like.shape)
    return value
