"""The formats in which ConvNeXt weights are published: what they call each part.

Each format is a table: part of the network -> name of its module. ``ORIGINAL`` has the
names of the original release, which are also those of :class:`ConvNeXtDCLS`.
"""

from typing import NamedTuple

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
STAGES = {
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
        needed=r'norms\.3\.',
    ),
    'eupe': Format(
        "EUPE's release",
        ORIGINAL,
        left=r'(norms|projectors)\..*',
        needed=r'projectors\.',
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
