"""The published DCLS networks as models of timm."""

from typing import Any, NamedTuple

import timm
from torch import nn

from ...layers import DCLSConv2d
from ...layers.published import published_axes
from ..conv_replacement import replace_convs
from .key_names import CONVNEXT, FASTVIT, METAFORMER, RESNET, Names, RenamedKeys
from .position_training import PositionTraining

# What timm says of its plain networks and is true of these.
KEPT = (
    *('input_size', 'interpolation', 'crop_pct', 'crop_mode', 'mean', 'std'),
    *('num_classes', 'pool_size', 'first_conv', 'classifier'),
)

# The published initial weights of the layers.
WEIGHT_STD = 0.02


class Network(NamedTuple):
    """A network of timm's and the DCLS layers that replace some of its convolutions.

    Attributes:
        base: name of timm's plain network, with the tag of the weights whose input
            size, crop and normalisation serve here too.
        extent, elements, interpolation: those of the layers.
        convs: which convolutions are replaced, as arguments of :func:`.replace_convs`.
        names: what the published files call the parameters.
    """

    base: str
    extent: int
    elements: int
    interpolation: str
    convs: dict[str, Any]
    names: Names


# Layers share their positions within a stage. `features_only` renames stages.0 to
# stages_0, hence the dots for any character.
_DEPTHWISE = dict(depthwise=True, share_positions=r'stages.(\d)')
# Not the convolutions between the stages, which double the channels.
_FASTVIT = dict(_DEPTHWISE, name=r'(mlp\.conv\.conv|pos_enc)$', kernel_size=7)
_RESNET = dict(kernel_size=3, share_positions=r'layer(\d)')

NETWORKS = {
    **{
        f'convnext_dcls_{size}': Network(
            f'convnext_{size}.fb_in1k', 17, count, 'bilinear', _DEPTHWISE, CONVNEXT
        )
        for size, count in (('tiny', 34), ('small', 40), ('base', 40))
    },
    'convnext_dcls_tiny_gauss': Network(
        'convnext_tiny.fb_in1k', 23, 26, 'gauss', _DEPTHWISE, CONVNEXT
    ),
    'convformer_dcls_s18': Network(
        'convformer_s18.sail_in1k', 17, 40, 'triangle', _DEPTHWISE, METAFORMER
    ),
    'caformer_dcls_s18': Network(
        'caformer_s18.sail_in1k', 17, 34, 'triangle', _DEPTHWISE, METAFORMER
    ),
    'fastvit_dcls_sa24': Network(
        'fastvit_sa24.apple_in1k', 17, 34, 'triangle', _FASTVIT, FASTVIT
    ),
    'fastvit_dcls_sa36': Network(
        'fastvit_sa36.apple_in1k', 17, 34, 'triangle', _FASTVIT, FASTVIT
    ),
    'resnet50_dcls': Network('resnet50.a1_in1k', 7, 5, 'bilinear', _RESNET, RESNET),
}


def build(
    name: str,
    pretrained: bool = False,
    pretrained_cfg: Any = None,
    pretrained_cfg_overlay: dict | None = None,
    position_rate: float = 5.0,
    repulsion_after: int | None = None,
    **options,
) -> nn.Module:
    """Build a network of the table as timm's registry does.

    The rows of P are in the order of the published files, so that these and what timm
    trains load without metadata, which timm drops.

    Args:
        name: name in ``NETWORKS``.
        pretrained: load the file that ``pretrained_cfg_overlay`` names, as train.py's
            ``--pretrained-path`` does; a head of another size is left out.
        pretrained_cfg, pretrained_cfg_overlay: as in timm; by default the network's
            own, with the input size, crop and normalisation of its evaluation.
        position_rate, repulsion_after: see :class:`.PositionTraining`.
        options: those of timm's plain network.

    Raises:
        ValueError, TypeError: an argument is invalid.
    """
    network = NETWORKS[name]
    training = PositionTraining(position_rate, repulsion_after)
    model = timm.create_model(
        timm.models.get_arch_name(network.base),
        pretrained_cfg=pretrained_cfg or default_cfg(name),
        pretrained_cfg_overlay=pretrained_cfg_overlay,
        **options,
    )
    replaced = replace_convs(
        model,
        DCLSConv2d,
        start='fresh',
        kernel_count=network.elements,
        dilated_kernel_size=network.extent,
        interpolation=network.interpolation,
        position_axes=published_axes(network.interpolation, 2),
        **network.convs,
    )
    for name_inside, *_ in replaced:
        layer = model.get_submodule(name_inside)
        nn.init.normal_(layer.weight, std=WEIGHT_STD)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    training.attach(model)
    names = RenamedKeys(name, network.names)
    model.register_load_state_dict_pre_hook(names)
    if pretrained:
        _check_source(name, model.pretrained_cfg)
        timm.models.load_pretrained(
            model,
            num_classes=model.num_classes,
            in_chans=options.get('in_chans', 3),
            filter_fn=lambda weights, model: names.renamed(model, weights),
        )
    return model


def _check_source(name: str, pretrained_cfg: dict[str, Any]) -> None:
    """Raise a ValueError unless there are weights to load."""
    if not {'file', 'url', 'state_dict', 'hf_hub_id'} & set(pretrained_cfg):
        raise ValueError(
            f'pretrained must be False for {name}, as timm has no weights for it: '
            'download the published file and give its path as checkpoint_path '
            '(--checkpoint in validate.py, --initial-checkpoint in train.py)'
        )


def default_cfg(name: str) -> dict[str, Any]:
    """Return timm's description of the plain network, without its weights."""
    plain = timm.get_pretrained_cfg(NETWORKS[name].base)
    return dict({key: getattr(plain, key) for key in KEPT}, architecture=name)


def _register(name: str) -> None:
    def entry(**options: Any) -> nn.Module:
        return build(name, **options)

    entry.__name__ = name
    entry.__doc__ = f'Build {name}, see ``build``.'
    timm.models.register_model(entry)


# Where timm's `register_model` looks.
default_cfgs = {name: default_cfg(name) for name in NETWORKS}
for _name in NETWORKS:
    _register(_name)
